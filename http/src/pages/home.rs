//! The home page: the apps, where they answer and how they are, and the actor tree.

use actix_web::{HttpResponse, http::StatusCode};
use callboard_messages::{
    Caller, Code, Limit,
    auth::WhoAmI,
    deploy::{Deployment, DeploymentStatus, Instance, InstanceStatus, ListDeployments, ListInstances, ProjectTopic},
    live::Topic,
    project::{ListProjects, Project},
};
use callboard_supervisors::{Bus, TreeView};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::{page, redirect};
use crate::{problem::Problem, session, worker::Request};

/// Most apps on the page; the command line lists more.
const APPS: Limit = Limit::of(50);
/// Apps asked about at a time.
const AT_ONCE: usize = 8;

#[derive(Serialize)]
struct HomeView {
    account: String,
    apps: Vec<AppView>,
    more: bool,
    topics: String,
    tree: Option<TreeView>,
}

#[derive(Serialize)]
struct AppView {
    name: String,
    description: String,
    url: Option<String>,
    /// `running`, `degraded`, `deploying`, `failed`, `stopped` or `new`.
    status: &'static str,
    healthy: usize,
    wanted: u32,
    instances: Vec<InstanceView>,
    last: Option<DeploymentView>,
}

#[derive(Serialize)]
struct InstanceView {
    name: String,
    status: &'static str,
    release: i64,
    restarts: u32,
    last_exit: Option<String>,
}

#[derive(Serialize)]
struct DeploymentView {
    status: &'static str,
    release: Option<i64>,
    error: Option<String>,
    at: String,
    at_machine: String,
}

pub(crate) async fn home(request: Request) -> Result<HttpResponse, Problem> {
    let worker = &request.worker;
    let session = match session::authenticate(worker, &request.http, &request.arrival).await {
        Ok(session) => session,
        Err(problem) if problem.code == Code::Unauthenticated.as_str() => return Ok(redirect("/sign-in")),
        Err(problem) => return Err(problem),
    };
    let (bus, caller) = (worker.bus(), &session.caller);
    let account = bus.ask(caller, WhoAmI {}).await?.account;
    let list = ListProjects { name: None, limit: APPS, cursor: None };
    let projects = bus.ask(caller, list).await?;
    let topics: Vec<String> = projects.items.iter().map(|project| ProjectTopic::name(project.id)).collect();
    let more = projects.next.is_some();
    #[expect(clippy::disallowed_methods, reason = "collected in one go: nothing else is awaited meanwhile")]
    let apps = stream::iter(projects.items).map(|project| app(bus, caller, project)).buffered(AT_ONCE).collect().await;
    let view = HomeView {
        account: if account.name.is_empty() { account.email } else { account.name },
        apps,
        more,
        topics: topics.join(","),
        tree: caller.administrator.then(|| worker.shared.runtime.tree()),
    };
    let response = page(worker, StatusCode::OK, "home.html", &view)?;
    *request.arrival.refreshed.borrow_mut() = session.refreshed;
    Ok(response)
}

/// An app with its state in deploy; without it when deploy does not answer.
async fn app(bus: &Bus, caller: &Caller, project: Project) -> AppView {
    let project_id = project.id;
    let instances = bus.ask(caller, ListInstances { project_id }).await.ok();
    let latest = ListDeployments { project_id, limit: Limit::of(1), cursor: None };
    let last = bus.ask(caller, latest).await.ok().and_then(|page| page.items.into_iter().next());
    let (running, wanted, url) = match instances {
        Some(instances) => (instances.items, instances.formation.processes.values().sum(), Some(instances.url)),
        None => (Vec::new(), 0, None),
    };
    let healthy = running.iter().filter(|instance| instance.status == InstanceStatus::Healthy).count();
    AppView {
        status: if project.deleting_at.is_some() { "deleting" } else { status(healthy, wanted, last.as_ref()) },
        name: project.name,
        description: project.description,
        url: url.filter(|_| last.is_some()),
        healthy,
        wanted,
        instances: running.into_iter().map(instance).collect(),
        last: last.map(deployment),
    }
}

fn status(healthy: usize, wanted: u32, last: Option<&Deployment>) -> &'static str {
    let Some(last) = last else { return "new" };
    match (healthy, wanted) {
        _ if !last.status.is_final() => "deploying",
        (0, _) if last.status == DeploymentStatus::Failed => "failed",
        (_, 0) => "stopped",
        (healthy, wanted) if healthy >= wanted as usize => "running",
        _ => "degraded",
    }
}

fn instance(instance: Instance) -> InstanceView {
    InstanceView {
        name: format!("{}.{}", instance.process, instance.index),
        status: match instance.status {
            InstanceStatus::Starting => "starting",
            InstanceStatus::Healthy => "healthy",
            InstanceStatus::Unhealthy => "unhealthy",
            InstanceStatus::Crashed => "crashed",
            InstanceStatus::Stopping => "stopping",
        },
        release: instance.release_version,
        restarts: instance.restarts,
        last_exit: instance.last_exit,
    }
}

fn deployment(deployment: Deployment) -> DeploymentView {
    let at: DateTime<Utc> = deployment.finished_at.unwrap_or(deployment.created_at);
    DeploymentView {
        status: deployment.status.as_str(),
        release: deployment.release_version,
        error: deployment.error,
        at: at.format("%-d %b %H:%M UTC").to_string(),
        at_machine: at.to_rfc3339(),
    }
}
