//! Verbs for whoever runs a cluster.

mod dead_letters;
mod fingerprints;
mod nodes;
mod sagas;

use clap::Subcommand;

use super::{Globals, block_on, help::Group, session::Session};
use crate::{error::Result, output::Output};

#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// List the nodes of the cluster and how they are
    Nodes(nodes::Nodes),
    /// List what the nodes of a cluster must have in common, or forget a part to change it
    Fingerprints(fingerprints::Fingerprints),
    /// List, show, replay and drop the events that a domain could not apply
    DeadLetters(dead_letters::DeadLetters),
    /// List the sagas, which take several steps over several domains, and retry stuck ones
    Sagas(sagas::Sagas),
}

impl Group for ClusterVerb {
    const HEADING: &'static str = "Cluster";

    fn run(self, globals: &Globals, output: Output) -> Result {
        block_on(async {
            match self {
                Self::Nodes(verb) => verb.run(&Session::open(globals, output)?).await,
                Self::Fingerprints(verb) => verb.run(globals, output).await,
                Self::DeadLetters(verb) => verb.run(&Session::open(globals, output)?).await,
                Self::Sagas(verb) => verb.run(&Session::open(globals, output)?).await,
            }
        })
    }
}
