//! `callboard completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{
    cli::Cli,
    error::{Error, Result},
};

#[derive(Debug, Args)]
pub struct Completions {
    /// For example: `callboard completions bash > /etc/bash_completion.d/callboard`
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "callboard", &mut script);
        std::io::Write::write_all(&mut std::io::stdout(), &script)
            .map_err(|error| Error::failure(format!("could not write the completions: {error}")))
    }
}
