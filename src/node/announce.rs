//! What a node says when it is ready.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use callboard_messages::Secret;
use serde_json::json;

use super::addresses::Addresses;
use crate::output::Output;

/// Says where the node is, and what to do next.
pub fn ready(
    addresses: &Addresses,
    setup: Option<&Secret>,
    sample: Option<&str>,
    data: &Path,
    took: Duration,
    as_json: bool,
) {
    let output = Output::new(as_json);
    let setup = setup.map(|token| setup_url(addresses, token));
    if as_json {
        output.json_line(&json!({
            "url": addresses.platform(),
            "setup_url": setup,
            "sample_url": sample,
            "data": data,
            "pid": std::process::id(),
            "ready_milliseconds": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }));
        return;
    }
    output.line(format!("{} ({} ms)\n", output.bold("Callboard is ready."), took.as_millis()));
    output.line(format!("  Open     {}", addresses.platform()));
    if let Some(setup) = setup {
        output.line(format!("  Set up   {setup}   makes you the administrator, once"));
    }
    if let Some(sample) = sample {
        output.line(format!("  Sample   {sample}"));
    }
    output.line("  Deploy   callboard deploy <folder>\n");
    output.line(output.dim(&format!("  Data in {}. Ctrl-C stops the node.\n", data.display())));
}

/// Says the set-up link when it could not be said before. The node goes on when nobody reads that any more.
pub fn setup(addresses: &Addresses, token: &Secret, as_json: bool) {
    let url = setup_url(addresses, token);
    let line = match as_json {
        true => json!({ "setup_url": url }).to_string(),
        false => format!("  Set up   {url}   makes you the administrator, once"),
    };
    drop(writeln!(io::stdout(), "{line}"));
}

fn setup_url(addresses: &Addresses, token: &Secret) -> String {
    format!("{}/setup?token={}", addresses.platform(), token.expose())
}
