//! `callboard deploy`: pack, upload, build, roll out, and tell it as it happens.

use std::path::{Path, PathBuf};

use callboard_messages::{
    deploy::{Deployment, DeploymentSource, DeploymentStatus, LogLine, Release, Source},
    project::{BuildConfig, Project},
};
use clap::Args;
use serde_json::json;

use super::build_config;
use crate::{
    cli::{AppArgs, session::Session},
    client::pack::{self, Packed},
    error::{Error, Result, Status},
    output::line_of_log,
};

#[derive(Debug, Args)]
pub struct Deploy {
    /// A folder, or the https:// URL of a git repository
    #[arg(default_value = ".")]
    source: String,
    #[command(flatten)]
    app: AppArgs,
    /// The branch or tag of a git repository; default: its default branch
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    /// Release it even if it lacks a process type that runs
    #[arg(long)]
    allow_missing: bool,
    /// Build it even if the same was built before
    #[arg(long)]
    rebuild: bool,
    /// For this deployment alone, before build-config: `--set start="node x.js" --set publish=dist`, by its names
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Return as soon as the deployment is accepted
    #[arg(long)]
    detach: bool,
}

impl Deploy {
    pub async fn run(self, session: &Session) -> Result {
        let git = is_git_url(&self.source);
        if self.reference.is_some() && !git {
            return Err(Error::usage("--reference is for git repositories; this is a folder"));
        }
        if git {
            check_address(&self.source)?;
        }
        let config = build_config::of_settings(&self.settings)?;
        let name = self.name(git)?;
        // First of all: a folder that can't be packed makes no app.
        let packed = if git { None } else { Some(pack::pack(Path::new(&self.source))?) };
        packed.iter().flat_map(|packed| &packed.notes).for_each(|note| session.output.note(note));
        let project = project(session, &name).await?;
        let source = match &packed {
            None => DeploymentSource::Git { url: self.source.clone(), reference: self.reference.clone() },
            Some(packed) => upload(session, &project, packed).await?,
        };
        let path = format!("/projects/{}/deployments", project.id);
        let deployment: Deployment = session.client.post(&path, &self.request(&source, &config)).await?;
        if self.detach {
            session.output.show(&deployment, |d| format!("-----> Deployment {} of {} is accepted", d.id, project.name));
            return Ok(());
        }
        follow_to_end(session, &project, deployment).await
    }

    fn request(&self, source: &DeploymentSource, config: &BuildConfig) -> serde_json::Value {
        let mut request = json!({ "source": source });
        if let (false, Some(fields)) = (self.settings.is_empty(), request.as_object_mut()) {
            fields.insert("config".to_owned(), json!(config));
        }
        // A node of an earlier version knows no such fields, and builds and releases what it is given.
        for (name, is_set) in [("allow_missing", self.allow_missing), ("rebuild", self.rebuild)] {
            if let (true, Some(fields)) = (is_set, request.as_object_mut()) {
                fields.insert(name.to_owned(), true.into());
            }
        }
        request
    }

    fn name(&self, git: bool) -> Result<String> {
        if let Some(name) = &self.app.app {
            return Ok(name.clone());
        }
        if !git {
            return pack::folder_name(Path::new(&self.source));
        }
        let last = self.source.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
        let name = pack::app_name(last);
        if name.is_empty() {
            return Err(Error::usage("the repository's name is no name for an app").hint("say one with --app NAME"));
        }
        Ok(name)
    }
}

fn is_git_url(source: &str) -> bool {
    source.contains("://") || (source.starts_with("git@") && !PathBuf::from(source).exists())
}

/// What no node takes, found before an app is made for it. What is left is the node's to judge.
fn check_address(source: &str) -> Result {
    let hint = "only https:// addresses of public repositories can be deployed; for others deploy a folder";
    let refused = |reason: &str| Err(Error::usage(format!("this address can't be deployed: {reason}")).hint(hint));
    match url::Url::parse(source) {
        Ok(url) if !["https", "http"].contains(&url.scheme()) => refused("it is no https:// address"),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            refused("it holds a user name or password")
        }
        Ok(_) => Ok(()),
        Err(_) => refused("it is no https:// address"),
    }
}

/// The app, made when it is not there.
async fn project(session: &Session, name: &str) -> Result<Project> {
    if let Some(project) = session.find(name).await? {
        return Ok(project);
    }
    match session.client.post("/projects", &json!({ "name": name })).await {
        Ok(project) => {
            session.output.line(format!("-----> Created the app {name}"));
            Ok(project)
        }
        // Another deploy of it may have made it meanwhile.
        Err(error) => session.find(name).await?.ok_or(error),
    }
}

async fn upload(session: &Session, project: &Project, packed: &Packed) -> Result<DeploymentSource> {
    let files = if packed.files == 1 { "1 file".to_owned() } else { format!("{} files", packed.files) };
    session.output.line(format!("-----> Uploading {files} ({})", human_size(packed.size)));
    let path = format!("/projects/{}/sources", project.id);
    let source: Source = session.client.upload(&path, packed.file.path(), packed.size).await?;
    Ok(DeploymentSource::Archive { source_id: source.id })
}

fn human_size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// Prints what happens until the deployment has ended; an error unless it serves.
pub async fn follow_to_end(session: &Session, project: &Project, deployment: Deployment) -> Result {
    let output = session.output;
    let mut told = false;
    let mut print = |line: &LogLine| {
        told = line.text.trim() == deployment.url;
        output.line(build_line(line));
    };
    let ended = tokio::select! {
        ended = session.follow(&deployment, &mut print) => ended.map_err(|error| error.showing(&deployment))?,
        _ = tokio::signal::ctrl_c() => {
            let hint = format!(
                "watch it: callboard build-log --app {0} --follow    end it: callboard cancel --app {0}",
                project.name
            );
            let error = Error::new(Status::Interrupted, "the deployment goes on without you");
            return Err(error.hint(hint).showing(&deployment));
        }
    };
    match ended.status {
        DeploymentStatus::Completed => {
            if output.json {
                output.document(&ended);
            }
            // The log's own last line, as a rule.
            if !told {
                output.line(format!("       {}", ended.url));
            }
            Ok(())
        }
        DeploymentStatus::Cancelled => {
            Err(Error::failure("the deployment was cancelled; what served before serves still").showing(&ended))
        }
        _ => {
            let reason = ended.error.clone().unwrap_or_else(|| "the deployment failed".to_owned());
            let hint = whole_log_hint(&what_serves(session, project).await, &project.name);
            Err(Error::failure(line_of_log(&reason)).hint(hint).showing(&ended))
        }
    }
}

fn whole_log_hint(serves: &str, app: &str) -> String {
    format!("{serves}; the whole log: callboard build-log --app {app}")
}

/// What serves after a deployment that did not come into service.
async fn what_serves(session: &Session, project: &Project) -> String {
    let releases: Result<Vec<Release>> = session.all(&format!("/projects/{}/releases", project.id)).await;
    match releases.map(|releases| releases.into_iter().find(|release| release.current)) {
        Ok(Some(release)) => format!("v{} serves as before", release.version),
        Ok(None) => "nothing serves: no deployment of this app has succeeded yet".to_owned(),
        Err(_) => "what served before serves still".to_owned(),
    }
}

/// Lines of the build come as they are shown; others are told apart by who wrote them.
pub fn build_line(line: &LogLine) -> String {
    let text = line_of_log(&line.text);
    match line.from.as_str() {
        "build" => text,
        from => format!("       {}: {text}", line_of_log(from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_after_a_failure_names_the_app_whose_log_it_is() {
        assert_eq!(
            whole_log_hint("v1 serves as before", "shop"),
            "v1 serves as before; the whole log: callboard build-log --app shop"
        );
    }
}
