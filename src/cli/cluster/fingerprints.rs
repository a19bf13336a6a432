//! `callboard fingerprints`.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    cli::Globals,
    config::{Mode, Settings},
    error::Result,
    node,
    output::{Output, table},
};

#[derive(Debug, Args)]
#[command(after_help = "Example: callboard fingerprints forget objects    once all nodes are stopped")]
pub struct Fingerprints {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Forget what is recorded of a part, while no node is up: the next node to start records what it has
    Forget {
        /// The part, as it is listed
        part: String,
    },
}

impl Fingerprints {
    pub async fn run(self, globals: &Globals, output: Output) -> Result {
        let (settings, _) = Settings::read(globals, &[], Mode::Serve)?;
        match self.verb {
            None => {
                let recorded = node::fingerprints(&settings).await?;
                let rows = |(part, at): &(String, chrono::DateTime<chrono::Utc>)| {
                    [part.clone(), at.format("%F %R").to_string()]
                };
                let shown: Vec<_> =
                    recorded.iter().map(|(part, at)| json!({ "part": part, "recorded_at": at })).collect();
                output.show(&shown, |_| table(["PART", "RECORDED"], recorded.iter().map(rows)));
            }
            Some(Verb::Forget { part }) => {
                node::forget_fingerprint(&settings, &part).await?;
                output.show(&json!({ "forgotten": part }), |_| {
                    format!("-----> The next node to start decides what {part} is for all of them")
                });
            }
        }
        Ok(())
    }
}
