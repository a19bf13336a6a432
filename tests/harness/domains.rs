//! The domains of the program that is tested, as it lists them itself, and where the three nodes of a cluster have them.

use std::{process::Command, sync::LazyLock};

use serde::Deserialize;

/// What the three nodes of a cluster host: every domain is on two of them.
pub const PLACEMENTS: [&str; 3] = ["auth,organization", "all-but:auth,organization", "all"];

/// A domain, or the gateway.
#[derive(Debug, Deserialize)]
pub struct Domain {
    pub name: String,
    pub everywhere: bool,
    /// Of its own; none where it runs on every worker thread.
    pub threads: u32,
    pub database_variable: String,
    pub operations: Vec<String>,
    pub reacts_to: Vec<String>,
}

/// Every one.
pub fn all() -> &'static [Domain] {
    static ALL: LazyLock<Vec<Domain>> = LazyLock::new(|| {
        let listed = Command::new(env!("CARGO_BIN_EXE_callboard")).args(["domains", "--json"]).output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        serde_json::from_slice(&listed.stdout).unwrap()
    });
    &ALL
}

/// The names of those that the first of three nodes hosts, or of those that it leaves to the second.
pub fn hosted(number: usize) -> Vec<&'static str> {
    let of_first: Vec<&str> = PLACEMENTS[0].split(',').collect();
    let is_placed = |domain: &&Domain| !domain.everywhere;
    let names = all().iter().filter(is_placed).map(|domain| domain.name.as_str());
    match number {
        0 => names.filter(|name| of_first.contains(name)).collect(),
        1 => names.filter(|name| !of_first.contains(name)).collect(),
        _ => names.collect(),
    }
}
