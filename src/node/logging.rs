//! Logs go to standard error, readable in `dev`.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

use crate::error::{Error, Result};

/// Starts logging with this filter, such as `info` or `callboard_deploy=debug,info`.
pub fn start(filter: &str) -> Result {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Error::usage(format!("CALLBOARD_LOG is {filter:?}: {error}")).hint("for example: info"))?;
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let started = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !plain)
        .with_target(true)
        .compact()
        .try_init();
    started.map_err(|error| Error::failure(format!("could not start logging: {error}")))
}
