//! `callboard destroy`.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;

use super::{AppArgs, session::Session};
use crate::error::{Error, Result};

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
        session.client.delete::<serde_json::Value>(&format!("/projects/{}", project.id)).await?;
        session.output.show(&serde_json::json!({ "id": project.id, "name": project.name, "destroyed": true }), |_| {
            format!("-----> Destroyed {}", project.name)
        });
        Ok(())
    }
}

fn confirm(name: &str) -> Result {
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage("this removes the app and all its releases, so it asks first")
            .hint("where nobody can answer, add --yes"));
    }
    eprint!("This takes {name} down and removes its releases, variables and logs. Type its name to go on: ");
    drop(std::io::stderr().flush());
    let mut answer = String::new();
    drop(std::io::stdin().lock().read_line(&mut answer));
    match answer.trim() == name {
        true => Ok(()),
        false => Err(Error::failure("that is not its name; nothing was changed")),
    }
}
