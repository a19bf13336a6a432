//! `callboard open`.

use std::process::{Command, Stdio};

use callboard_messages::deploy::Instances;
use clap::Args;

use crate::{
    cli::{AppArgs, session::Session},
    error::Result,
};

#[derive(Debug, Args)]
pub struct Open {
    #[command(flatten)]
    app: AppArgs,
}

impl Open {
    pub async fn run(self, session: &Session) -> Result {
        let project = session.app(&self.app).await?;
        let instances: Instances = session.client.get(&format!("/projects/{}/instances", project.id)).await?;
        session.output.show(&serde_json::json!({ "url": instances.url }), |_| instances.url.clone());
        if !session.output.json {
            start_browser(&instances.url);
        }
        Ok(())
    }
}

/// Where there is no browser the printed URL is all there is to do.
fn start_browser(url: &str) {
    let desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    let program = match () {
        () if cfg!(target_os = "macos") => "open",
        () if desktop => "xdg-open",
        () => return,
    };
    drop(Command::new(program).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn());
}
