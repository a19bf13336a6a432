//! `callboard releases`.

use callboard_messages::deploy::{Release, ReleaseStatus};
use clap::Args;

use crate::{
    cli::{AppArgs, session::Session},
    error::Result,
    output::table,
};

#[derive(Debug, Args)]
pub struct Releases {
    #[command(flatten)]
    app: AppArgs,
}

impl Releases {
    pub async fn run(self, session: &Session) -> Result {
        let project = session.app(&self.app).await?;
        let releases: Vec<Release> = session.all(&format!("/projects/{}/releases", project.id)).await?;
        session.output.show(&releases, |releases| match releases.as_slice() {
            [] => "There are no releases yet. Deploy one: callboard deploy <folder>".to_owned(),
            releases => {
                table(["RELEASE", "STATUS", "LANGUAGE", "CREATED", "DIGEST", "COMMIT"], releases.iter().map(row))
            }
        });
        Ok(())
    }
}

/// Whether it serves, or why not, in a word.
fn status(release: &Release) -> &'static str {
    match release.status {
        // A node of an earlier version says of none whether it failed.
        _ if release.current => "serves",
        ReleaseStatus::Serving => "serves",
        ReleaseStatus::Served => "",
        ReleaseStatus::Pending => "pending",
        ReleaseStatus::Failed => "failed",
    }
}

fn row(release: &Release) -> [String; 6] {
    let short = |text: &str| text.chars().take(12).collect::<String>();
    [
        format!("v{}", release.version),
        status(release).to_owned(),
        release.language.clone(),
        release.created_at.format("%F %R").to_string(),
        short(&release.digest),
        release.commit.as_deref().map(short).unwrap_or_default(),
    ]
}
