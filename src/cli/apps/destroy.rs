//! `callboard destroy`.

use std::{
    io::{BufRead, IsTerminal},
    time::{Duration, Instant},
};

use callboard_messages::project::Project;
use clap::Args;
use serde_json::json;

use crate::{
    cli::{AppArgs, session::Session},
    error::{Error, Result},
    output::question,
};

/// How long the end of what the node has accepted is waited for.
const WAITED: Duration = Duration::from_secs(60);
const LOOKED_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub struct Destroy {
    #[command(flatten)]
    app: AppArgs,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

impl Destroy {
    pub async fn run(self, session: &Session) -> Result {
        let project = session.app(&self.app).await?;
        if !self.yes {
            confirm(&project.name)?;
        }
        let path = format!("/projects/{}", project.id);
        let under_way: Option<Project> = session.client.delete(&path).await?;
        let destroyed = match under_way {
            None => true,
            Some(_) => {
                session.output.line(format!("-----> Destroying {}: its app takes long to end", project.name));
                is_gone(session, &path).await?
            }
        };
        let document = json!({ "id": project.id, "name": project.name, "destroyed": destroyed });
        session.output.show(&document, |_| match destroyed {
            true => format!("-----> Destroyed {}", project.name),
            false => format!(
                "-----> {} is being destroyed, and that goes on without you; it is gone when callboard projects no longer \
                 lists it",
                project.name
            ),
        });
        Ok(())
    }
}

/// Waits for a while until nothing is found there any more.
async fn is_gone(session: &Session, path: &str) -> Result<bool> {
    let deadline = Instant::now() + WAITED;
    while Instant::now() < deadline {
        match session.client.get::<Project>(path).await {
            Err(error) if error.code.as_deref() == Some("not_found") => return Ok(true),
            Err(error) => return Err(error.hint("it is accepted and goes on; look for it in: callboard projects")),
            Ok(_) => {}
        }
        tokio::time::sleep(LOOKED_EVERY).await;
    }
    Ok(false)
}

fn confirm(name: &str) -> Result {
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage("this removes the app and all its releases, so it asks first")
            .hint("where nobody can answer, add --yes"));
    }
    question(&format!("This takes {name} down and removes its releases, variables and logs. Type its name to go on: "));
    let mut answer = String::new();
    drop(std::io::stdin().lock().read_line(&mut answer));
    match answer.trim() == name {
        true => Ok(()),
        false => Err(Error::failure("that is not its name; nothing was changed")),
    }
}
