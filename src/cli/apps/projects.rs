//! `callboard projects` and `callboard create`.

use callboard_messages::project::Project;
use clap::Args;
use serde_json::json;

use crate::{cli::session::Session, error::Result, output::table};

#[derive(Debug, Args)]
pub struct Projects {}

impl Projects {
    pub async fn run(self, session: &Session) -> Result {
        let projects: Vec<Project> = session.all("/projects").await?;
        session.output.show(&projects, |projects| match projects.as_slice() {
            [] => "There are no apps yet. Deploy one: callboard deploy <folder>".to_owned(),
            projects => table(
                ["APP", "CREATED", "DESCRIPTION"],
                projects.iter().map(|p| {
                    let about = if p.deleting_at.is_some() { "(is being deleted)" } else { p.description.as_str() };
                    [p.name.clone(), p.created_at.format("%F %R").to_string(), about.to_owned()]
                }),
            ),
        });
        Ok(())
    }
}

#[derive(Debug, Args)]
pub struct Create {
    /// 1 to 40 of a-z, 0-9 and -, beginning with a letter; also the app's host name
    name: String,
    /// What it is
    #[arg(long)]
    description: Option<String>,
}

impl Create {
    pub async fn run(self, session: &Session) -> Result {
        let body = json!({ "name": self.name, "description": self.description });
        let project: Project = session.client.post("/projects", &body).await?;
        session.output.show(&project, |project| {
            format!("Created the app {0}. Deploy it: callboard deploy <folder> --app {0}", project.name)
        });
        Ok(())
    }
}
