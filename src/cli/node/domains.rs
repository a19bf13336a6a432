//! `callboard domains`.

use clap::Args;

use crate::{
    domains::{self, Description},
    error::Result,
    output::{Output, table},
};

/// The domains that there are, what each answers, and where it runs
///
/// What a node hosts of them is said with `callboard serve --domains`.
#[derive(Debug, Args)]
pub struct Domains {}

impl Domains {
    pub fn run(self, output: Output) -> Result {
        output.show(&domains::describe(), |domains| {
            table(["DOMAIN", "PLACED", "THREADS", "OPERATIONS", "REACTS TO", "OWN DATABASE"], domains.iter().map(row))
        });
        Ok(())
    }
}

fn row(domain: &Description) -> [String; 6] {
    [
        domain.name.to_owned(),
        if domain.everywhere { "on every node" } else { "by --domains" }.to_owned(),
        match domain.threads {
            0 => "workers".to_owned(),
            threads => format!("{threads} own"),
        },
        domain.operations.len().to_string(),
        if domain.reacts_to.is_empty() { "-".to_owned() } else { domain.reacts_to.join(",") },
        domain.database_variable.clone(),
    ]
}
