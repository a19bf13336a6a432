//! `callboard migrate`.

use clap::Args;
use serde_json::json;

use crate::{
    cli::Globals,
    config::{Mode, Settings},
    error::Result,
    node,
    output::Output,
};

#[derive(Debug, Args)]
pub struct Migrate {}

impl Migrate {
    pub async fn run(self, globals: &Globals, output: Output) -> Result {
        let (settings, _) = Settings::read(globals, &[], Mode::Dev)?;
        let domains = node::migrate(&settings).await?;
        output.show(&json!({ "migrated": domains }), |_| format!("-----> Up to date: {}", domains.join(", ")));
        Ok(())
    }
}
