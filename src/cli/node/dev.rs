//! `callboard dev`.

use std::net::SocketAddr;

use clap::Args;

use crate::{
    cli::Globals,
    config::{Mode, Settings},
    error::Result,
    node,
};

#[derive(Debug, Args)]
pub struct Dev {
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Don't deploy the sample app on the first start
    #[arg(long)]
    no_sample: bool,
}

impl Dev {
    pub fn run(self, globals: &Globals) -> Result {
        let listen = self.listen.map(|listen| ("CALLBOARD_LISTEN", listen.to_string()));
        let flags: Vec<_> = listen.into_iter().collect();
        let (settings, _) = Settings::read(globals, &flags, Mode::Dev)?;
        node::run(settings, node::Options { mode: Mode::Dev, sample: !self.no_sample, json: globals.json })
    }
}
