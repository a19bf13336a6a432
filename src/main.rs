//! The `callboard` binary: a node, and the command line that talks to one.
//!
//! `domains` is the one list of domains, `config` reads and checks the settings, `node` assembles the domains and the
//! gateway, `cli` has a file per verb, `client` is the HTTP client they share.

mod cli;
mod client;
mod config;
mod domains;
mod error;
mod node;
mod output;
mod static_server;

use std::process::ExitCode;

use clap::Parser;

/// The hidden verb that becomes an app's process, or its reaper. It comes before everything else, because it must not start
/// a thread.
pub(crate) const LAUNCH: &str = "launch";
/// The hidden verb that packs what a build has made.
pub(crate) const PACK: &str = "pack";
/// The hidden verb that serves a static site; `cli` has it under this name.
pub(crate) const STATIC_SERVER: &str = "static-server";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    match arguments.nth(1) {
        Some(verb) if verb == LAUNCH => return callboard_deploy::process::trampoline::launch(arguments),
        Some(verb) if verb == PACK => return callboard_deploy::build::package::pack(arguments),
        _ => {}
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(wrong) => cli::end(&wrong),
    };
    let json = cli.globals.json;
    match cli::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(json),
    }
}
