//! Verbs about who you are: sessions and contexts.

mod login;
mod whoami;

use clap::Subcommand;

use super::{Globals, block_on, help::Group, session::Session};
use crate::{error::Result, output::Output};

#[derive(Debug, Subcommand)]
pub enum AccountVerb {
    /// Sign in to a node and save it as a context
    Login(login::Login),
    /// End the session of a saved context and forget it
    Logout(login::Logout),
    /// Show who you are, and on which node
    Whoami(whoami::Whoami),
}

impl Group for AccountVerb {
    const HEADING: &'static str = "Account";

    fn run(self, globals: &Globals, output: Output) -> Result {
        block_on(async {
            match self {
                Self::Login(verb) => verb.run(output).await,
                Self::Logout(verb) => verb.run(globals, output).await,
                Self::Whoami(verb) => verb.run(&Session::open(globals, output)?).await,
            }
        })
    }
}
