//! Verbs that start a node, or say what one would start with.

mod config;
mod dev;
mod domains;
mod migrate;
mod serve;

use clap::Subcommand;

use super::{Globals, block_on, help::Group};
use crate::{error::Result, output::Output, static_server::StaticServer};

#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// Start a node on this machine: one process, SQLite files, nothing else needed
    Dev(dev::Dev),
    /// Start a node of a cluster, on PostgreSQL, Redis and RabbitMQ
    Serve(serve::Serve),
    /// Bring every domain's schema up to date, as a node does at its start
    Migrate(migrate::Migrate),
    /// Print the configuration a node would start with, without secrets
    Config(config::Config),
    /// List the domains that there are, what each answers, and where it runs
    Domains(domains::Domains),
    /// Serve a folder of files on $PORT
    #[command(hide = true)]
    StaticServer(StaticServer),
}

impl Group for NodeVerb {
    const HEADING: &'static str = "Node";

    fn run(self, globals: &Globals, output: Output) -> Result {
        match self {
            Self::Dev(verb) => verb.run(globals),
            Self::Serve(verb) => verb.run(globals),
            Self::Migrate(verb) => block_on(verb.run(globals, output)),
            Self::Config(verb) => verb.run(globals, output),
            Self::Domains(verb) => verb.run(output),
            Self::StaticServer(verb) => verb.run(),
        }
    }
}
