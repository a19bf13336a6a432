//! `callboard serve`.

use std::net::SocketAddr;

use clap::Args;

use crate::{
    cli::Globals,
    config::{Mode, Settings},
    error::Result,
    node,
};

#[derive(Debug, Args)]
pub struct Serve {
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The domains this node hosts, such as deploy,project; `none` makes a gateway alone [default: all]
    #[arg(long, value_name = "DOMAINS")]
    domains: Option<String>,
    /// Deploy the sample app on the first start of this data folder
    #[arg(long)]
    sample: bool,
}

impl Serve {
    pub fn run(self, globals: &Globals) -> Result {
        let listen = self.listen.map(|listen| ("CALLBOARD_LISTEN", listen.to_string()));
        let domains = self.domains.map(|domains| ("CALLBOARD_DOMAINS", domains));
        let flags: Vec<_> = listen.into_iter().chain(domains).collect();
        let (settings, _) = Settings::read(globals, &flags, Mode::Serve)?;
        node::run(settings, node::Options { mode: Mode::Serve, sample: self.sample, json: globals.json })
    }
}
