//! `callboard build-log`.

use callboard_messages::{
    DeploymentId, Page,
    deploy::{Deployment, LogLine},
};
use clap::Args;

use super::deploy;
use crate::{
    cli::{AppArgs, session::Session},
    error::{Error, Result},
};

#[derive(Debug, Args)]
pub struct BuildLog {
    #[command(flatten)]
    app: AppArgs,
    /// Which deployment; default: the newest
    deployment: Option<DeploymentId>,
    /// Go on until the deployment has ended; fails when it does
    #[arg(long, short)]
    follow: bool,
}

impl BuildLog {
    pub async fn run(self, session: &Session) -> Result {
        let project = session.app(&self.app).await?;
        let deployment: Deployment = match self.deployment {
            Some(id) => session.client.get(&format!("/deployments/{id}")).await?,
            None => newest(session, &format!("/projects/{}/deployments?limit=1", project.id)).await?,
        };
        if self.follow {
            return deploy::follow_to_end(session, &project, deployment).await;
        }
        let output = session.output;
        let mut lines: Vec<LogLine> = Vec::new();
        let path = format!("/deployments/{}/logs", deployment.id);
        session.catch_up(&path, &mut 0, &mut |line| lines.push(line.clone())).await?;
        output.show(&serde_json::json!({ "deployment": deployment, "items": lines }), |_| {
            let text: Vec<String> = lines.iter().map(deploy::build_line).collect();
            format!("{}\n{}", text.join("\n"), output.dim(&format!("({})", deployment.status.as_str())))
        });
        Ok(())
    }
}

async fn newest(session: &Session, path: &str) -> Result<Deployment> {
    let page: Page<Deployment> = session.client.get(path).await?;
    page.items.into_iter().next().ok_or_else(|| Error::failure("the app has never been deployed"))
}
