//! The command line: a folder per group of verbs, in it a file per verb. [`help`] lists them.

mod account;
mod apps;
mod cluster;
mod help;
mod machine;
mod node;
mod session;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use self::help::{Group, Section};
use crate::{
    error::{Error, Result},
    output::Output,
};

/// An actor-based control plane: deploys apps, and runs the services every product needs behind them.
#[derive(Debug, Parser)]
#[command(name = "callboard", version, propagate_version = true, max_term_width = 100)]
#[command(help_template = help::template(&sections()))]
#[command(after_help = "callboard help VERB tells how a verb is used.\n\n\
Start with: callboard dev    then, in another terminal: callboard deploy examples/node")]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Clone, Default, Args)]
pub struct Globals {
    /// Print one JSON document on standard output instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// The node's data folder: which node to start, or which node of this machine to talk to
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "context")]
    pub data: Option<PathBuf>,
    /// The saved context that says which node to talk to
    #[arg(long, global = true, value_name = "NAME", env = "CALLBOARD_CONTEXT")]
    pub context: Option<String>,
    /// The configuration file of a node (TOML)
    #[arg(long, global = true, value_name = "FILE", env = "CALLBOARD_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Which app a verb is about.
#[derive(Debug, Clone, Default, Args)]
pub struct AppArgs {
    /// The app; default: the name of the current folder
    #[arg(long, short, value_name = "NAME")]
    pub app: Option<String>,
}

/// Declares the groups of verbs, in the order in which the help lists them.
macro_rules! groups {
    ($($group:ident($verbs:ty)),+ $(,)?) => {
        #[derive(Debug, Subcommand)]
        pub enum Verb {
            $(#[command(flatten)] $group($verbs)),+
        }

        fn sections() -> Vec<Section> {
            vec![$(Section::of::<$verbs>()),+]
        }

        fn dispatch(verb: Verb, globals: &Globals, output: Output) -> Result {
            match verb {
                $(Verb::$group(verb) => verb.run(globals, output)),+
            }
        }
    };
}

groups! {
    Node(node::NodeVerb),
    Account(account::AccountVerb),
    Apps(apps::AppVerb),
    Cluster(cluster::ClusterVerb),
    Machine(machine::MachineVerb),
}

/// Ends the program as clap does: with help, or with status 2 when the command line is wrong.
pub fn end(wrong: &clap::Error) -> ! {
    let json = std::env::args_os().take_while(|argument| argument != "--").any(|argument| argument == "--json");
    if json && wrong.use_stderr() {
        let rendered = wrong.to_string();
        let sentence = rendered.lines().next().unwrap_or_default();
        Output::new(json).json_line(&Error::usage(sentence.trim_start_matches("error: ")).as_json());
    }
    wrong.exit()
}

/// Does what the command line says.
pub fn run(cli: Cli) -> Result {
    dispatch(cli.verb, &cli.globals, Output::new(cli.globals.json))
}

/// Runs a verb that waits for something, on this thread.
fn block_on(verb: impl Future<Output = Result>) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::failure(format!("could not start: {error}")))?.block_on(verb)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
