//! Verbs about this machine: its health and its shell.

mod completions;
mod doctor;

use clap::Subcommand;

use super::{Globals, block_on, help::Group};
use crate::{error::Result, output::Output};

#[derive(Debug, Subcommand)]
pub enum MachineVerb {
    /// Say what is wrong with this machine or its node, and how to mend it
    Doctor(doctor::Doctor),
    /// Print the completions of a shell
    Completions(completions::Completions),
}

impl Group for MachineVerb {
    const HEADING: &'static str = "This machine";

    fn run(self, globals: &Globals, output: Output) -> Result {
        match self {
            Self::Doctor(verb) => block_on(verb.run(globals, output)),
            Self::Completions(verb) => verb.run(),
        }
    }
}
