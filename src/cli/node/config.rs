//! `callboard config`.

use clap::Args;

use crate::{
    cli::Globals,
    config::{Mode, Settings},
    error::Result,
    output::Output,
};

#[derive(Debug, Args)]
pub struct Config {
    /// Also say what each setting is for
    #[arg(long, short)]
    explain: bool,
    /// Check it as `callboard serve` does: what a node of a cluster needs must be there
    #[arg(long)]
    serve: bool,
}

impl Config {
    pub fn run(self, globals: &Globals, output: Output) -> Result {
        let (_, entries) = Settings::read(globals, &[], if self.serve { Mode::Serve } else { Mode::Dev })?;
        output.show(&entries, |entries| {
            let mut text = String::new();
            for entry in entries {
                if self.explain {
                    text.push_str(&output.dim(&format!("# {}\n", entry.about)));
                }
                let line = format!("{}={}", entry.variable, entry.value);
                text.push_str(&format!("{line:<60} {}\n", output.dim(&format!("# {}", entry.source))));
            }
            text
        });
        Ok(())
    }
}
