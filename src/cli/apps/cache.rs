//! `callboard cache`.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    cli::{AppArgs, session::Session},
    error::Result,
};

#[derive(Debug, Args)]
pub struct Cache {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Empty what an app's builds have kept for the next one: `callboard cache clear --app shop`
    Clear {
        #[command(flatten)]
        app: AppArgs,
    },
}

impl Cache {
    pub async fn run(self, session: &Session) -> Result {
        let Verb::Clear { app } = self.verb;
        let project = session.app(&app).await?;
        let (): () = session.client.delete(&format!("/projects/{}/build-cache", project.id)).await?;
        session.output.show(&json!({ "project_id": project.id, "cleared": true }), |_| {
            format!("The build cache of {} is empty; its next build starts without one.", project.name)
        });
        Ok(())
    }
}
