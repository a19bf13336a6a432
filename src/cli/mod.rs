//! The command line: one file per verb.

mod apps;
mod build_log;
mod completions;
mod config;
mod dead_letters;
mod deploy;
mod destroy;
mod dev;
mod doctor;
mod domains;
mod env;
mod fingerprints;
mod lifecycle;
mod login;
mod logs;
mod migrate;
mod nodes;
mod open;
mod ps;
mod releases;
mod sagas;
mod serve;
mod session;
mod whoami;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    client::target,
    error::{Error, Result},
    output::Output,
};

/// An actor-based control plane: deploys apps, and runs the services every product needs behind them.
#[derive(Debug, Parser)]
#[command(name = "callboard", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Start with: callboard dev    then, in another terminal: callboard deploy examples/node")]
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
    /// The app; the name of the current folder unless told
    #[arg(long, short, value_name = "NAME")]
    pub app: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a node on this machine: one process, SQLite files, nothing else needed
    Dev(dev::Dev),
    /// Start a node of a cluster, on PostgreSQL, Redis and RabbitMQ
    Serve(serve::Serve),
    /// Bring every domain's schema up to date, as a node does at its start
    Migrate(migrate::Migrate),
    /// Sign in to a node and save it as a context
    Login(login::Login),
    /// End the session of a saved context and forget it
    Logout(login::Logout),
    /// Show who you are, and on which node
    Whoami(whoami::Whoami),
    /// List your apps
    Projects(apps::Projects),
    /// Create an app without deploying it
    Create(apps::Create),
    /// Build a folder or a git repository and bring it into service
    Deploy(deploy::Deploy),
    /// Show what an app's instances wrote
    Logs(logs::Logs),
    /// Show the build log of a deployment
    BuildLog(build_log::BuildLog),
    /// List an app's instances
    Ps(ps::Ps),
    /// Set how many instances of each process type run: `scale web=3 worker=1`
    Scale(lifecycle::Scale),
    /// List an app's releases
    Releases(releases::Releases),
    /// Bring an earlier release back: the one before, or `v3`
    Rollback(lifecycle::Rollback),
    /// Replace every instance, without a gap in service
    Restart(lifecycle::Restart),
    /// Stop every instance
    Stop(lifecycle::Stop),
    /// End the deployment that is under way; what serves now serves on
    Cancel(lifecycle::Cancel),
    /// Set, unset and list environment variables
    Env(env::Env),
    /// Open the app in the browser
    Open(open::Open),
    /// Take an app down and remove all of it
    Destroy(destroy::Destroy),
    /// List the nodes of the cluster and how they are
    Nodes(nodes::Nodes),
    /// List what the nodes of a cluster must have in common, and forget it when it is to change
    Fingerprints(fingerprints::Fingerprints),
    /// List, show, replay and drop the events that a domain could not apply
    DeadLetters(dead_letters::DeadLetters),
    /// List what takes several steps over several domains, and let what is stuck go on
    Sagas(sagas::Sagas),
    /// Say what is wrong with this machine or its node, and how to mend it
    Doctor(doctor::Doctor),
    /// List the domains that there are, what each answers, and where it runs
    Domains(domains::Domains),
    /// Print the configuration a node would start with, without secrets
    Config(config::Config),
    /// Print the completions of a shell
    Completions(completions::Completions),
    /// Serve a folder of files on $PORT
    #[command(hide = true)]
    StaticServer(crate::static_server::StaticServer),
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
    let output = Output::new(cli.globals.json);
    let globals = &cli.globals;
    match cli.verb {
        Verb::Dev(verb) => return verb.run(globals),
        Verb::Serve(verb) => return verb.run(globals),
        Verb::Completions(verb) => return verb.run(),
        Verb::Config(verb) => return verb.run(globals, output),
        Verb::Domains(verb) => return verb.run(output),
        Verb::StaticServer(verb) => return verb.run(),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::failure(format!("could not start: {error}")))?;
    runtime.block_on(talk(cli.verb, globals, output))
}

/// The verbs that talk to a node.
async fn talk(verb: Verb, globals: &Globals, output: Output) -> Result {
    match verb {
        Verb::Login(verb) => return verb.run(output).await,
        Verb::Logout(verb) => return verb.run(globals, output).await,
        Verb::Doctor(verb) => return verb.run(globals, output).await,
        Verb::Migrate(verb) => return verb.run(globals, output).await,
        Verb::Fingerprints(verb) => return verb.run(globals, output).await,
        _ => {}
    }
    let session = session::Session { client: target::find(globals)?, output };
    match verb {
        Verb::Whoami(verb) => verb.run(&session).await,
        Verb::Projects(verb) => verb.run(&session).await,
        Verb::Create(verb) => verb.run(&session).await,
        Verb::Deploy(verb) => verb.run(&session).await,
        Verb::Logs(verb) => verb.run(&session).await,
        Verb::BuildLog(verb) => verb.run(&session).await,
        Verb::Ps(verb) => verb.run(&session).await,
        Verb::Scale(verb) => verb.run(&session).await,
        Verb::Releases(verb) => verb.run(&session).await,
        Verb::Rollback(verb) => verb.run(&session).await,
        Verb::Restart(verb) => verb.run(&session).await,
        Verb::Stop(verb) => verb.run(&session).await,
        Verb::Cancel(verb) => verb.run(&session).await,
        Verb::Env(verb) => verb.run(&session).await,
        Verb::Open(verb) => verb.run(&session).await,
        Verb::Destroy(verb) => verb.run(&session).await,
        Verb::Nodes(verb) => verb.run(&session).await,
        Verb::DeadLetters(verb) => verb.run(&session).await,
        Verb::Sagas(verb) => verb.run(&session).await,
        Verb::Serve(_) | Verb::Migrate(_) | Verb::Fingerprints(_) => Ok(()),
        Verb::Dev(_) | Verb::Login(_) | Verb::Logout(_) | Verb::Doctor(_) | Verb::Config(_) => Ok(()),
        Verb::Completions(_) | Verb::Domains(_) | Verb::StaticServer(_) => Ok(()),
    }
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
