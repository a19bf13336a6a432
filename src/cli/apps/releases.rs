//! `callboard releases`.

use callboard_messages::deploy::Release;
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
            releases => table(["RELEASE", "", "LANGUAGE", "CREATED", "DIGEST", "COMMIT"], releases.iter().map(row)),
        });
        Ok(())
    }
}

fn row(release: &Release) -> [String; 6] {
    let short = |text: &str| text.chars().take(12).collect::<String>();
    [
        format!("v{}", release.version),
        if release.current { "serves".to_owned() } else { String::new() },
        release.language.clone(),
        release.created_at.format("%F %R").to_string(),
        short(&release.digest),
        release.commit.as_deref().map(short).unwrap_or_default(),
    ]
}
