//! `callboard scale`, `rollback`, `restart`, `stop` and `cancel`: what an app runs.

use std::collections::BTreeMap;

use callboard_messages::{
    Page,
    deploy::{Deployment, Formation},
};
use clap::Args;
use serde_json::json;

use super::deploy;
use crate::{
    cli::{AppArgs, session::Session},
    error::{Error, Result},
};

#[derive(Debug, Args)]
pub struct Scale {
    /// `web=3 worker=1`
    #[arg(required = true, value_name = "TYPE=COUNT", value_parser = parse_count)]
    processes: Vec<(String, u32)>,
    #[command(flatten)]
    app: AppArgs,
}

fn parse_count(text: &str) -> std::result::Result<(String, u32), String> {
    let (process, count) = text.split_once('=').ok_or("write it as web=3")?;
    let count: u32 = count.parse().map_err(|_| format!("{count} is not a number of instances, 0 to 100"))?;
    if process.is_empty() || count > 100 {
        return Err("write it as web=3, with 0 to 100 instances".to_owned());
    }
    Ok((process.to_owned(), count))
}

impl Scale {
    pub async fn run(self, session: &Session) -> Result {
        let project = session.app(&self.app).await?;
        let mut wanted: BTreeMap<String, u32> = BTreeMap::new();
        for (process, count) in self.processes {
            if let Some(other) = wanted.insert(process.clone(), count) {
                return Err(Error::usage(format!("{process} is named twice: {other} and {count}")));
            }
        }
        let path = format!("/projects/{}/scale", project.id);
        let formation: Formation = session.client.post(&path, &json!({ "processes": wanted })).await?;
        session
            .output
            .show(&formation, |formation| format!("-----> Scaled {} to {}", project.name, written(formation)));
        Ok(())
    }
}

fn written(formation: &Formation) -> String {
    formation.processes.iter().map(|(process, count)| format!("{process}={count}")).collect::<Vec<_>>().join(" ")
}

#[derive(Debug, Args)]
pub struct Rollback {
    /// The release, such as v3; default: the one that served before the current
    #[arg(value_parser = parse_version)]
    release: Option<i64>,
    #[command(flatten)]
    app: AppArgs,
}

fn parse_version(text: &str) -> std::result::Result<i64, String> {
    let digits = text.strip_prefix('v').unwrap_or(text);
    digits.parse().ok().filter(|version| *version > 0).ok_or_else(|| "write it as v3".to_owned())
}

impl Rollback {
    pub async fn run(self, session: &Session) -> Result {
        let project = session.app(&self.app).await?;
        let path = format!("/projects/{}/rollback", project.id);
        let deployment: Deployment = session.client.post(&path, &json!({ "version": self.release })).await?;
        deploy::follow_to_end(session, &project, deployment).await
    }
}

#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    app: AppArgs,
}

impl Restart {
    pub async fn run(self, session: &Session) -> Result {
        let project = session.app(&self.app).await?;
        let deployment: Deployment =
            session.client.post(&format!("/projects/{}/restart", project.id), &json!({})).await?;
        deploy::follow_to_end(session, &project, deployment).await
    }
}

#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    app: AppArgs,
}

impl Stop {
    pub async fn run(self, session: &Session) -> Result {
        let project = session.app(&self.app).await?;
        let formation: Formation = session.client.post(&format!("/projects/{}/stop", project.id), &json!({})).await?;
        session.output.show(&formation, |_| {
            format!("-----> Stopped {0}. Start it again: callboard scale web=1 --app {0}", project.name)
        });
        Ok(())
    }
}

#[derive(Debug, Args)]
pub struct Cancel {
    #[command(flatten)]
    app: AppArgs,
}

impl Cancel {
    pub async fn run(self, session: &Session) -> Result {
        let project = session.app(&self.app).await?;
        let path = format!("/projects/{}/deployments?limit=1", project.id);
        let newest: Page<Deployment> = session.client.get(&path).await?;
        let Some(running) = newest.items.into_iter().find(|deployment| !deployment.status.is_final()) else {
            return Err(Error::failure(format!("no deployment of {} is under way", project.name)));
        };
        let path = format!("/deployments/{}/cancel", running.id);
        let deployment: Deployment = session.client.post(&path, &json!({})).await?;
        session
            .output
            .show(&deployment, |d| format!("-----> Cancelled the deployment {} ({})", d.id, d.status.as_str()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_versions_are_read_as_people_write_them() {
        assert_eq!(parse_count("web=3").unwrap(), ("web".to_owned(), 3));
        assert!(parse_count("web").is_err() && parse_count("web=-1").is_err() && parse_count("web=101").is_err());
        assert_eq!(parse_version("v3").unwrap(), 3);
        assert!(parse_version("v0").is_err() && parse_version("three").is_err());
    }
}
