//! The pages of apps, a file for each tab.

pub(crate) mod deployments;
mod diff;
mod dotenv;
pub(crate) mod lifecycle;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod new;
pub(crate) mod overview;
pub(crate) mod releases;
pub(crate) mod settings;
mod sources;
pub(crate) mod variables;

use callboard_messages::{
    Cursor, Limit,
    deploy::{
        Deployment, DeploymentStatus, Formation, Instance, InstanceStatus, ListDeployments, ListInstances,
        ProjectTopic, RouteState,
    },
    live::Topic,
    project::{ListProjects, Project},
};
use futures_util::join;
use serde::Serialize;

use super::request::PageRequest;
use crate::problem::Problem;

/// Projects asked for at a time.
const AT_ONCE: Limit = Limit::of(100);
/// Most projects that a list looks through; the newest ones.
const MOST: usize = 2_000;

/// The organization's projects, and whether there are more than a list looks through.
pub(super) async fn every_project(request: &PageRequest) -> Result<(Vec<Project>, bool), Problem> {
    let mut projects = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let page = request.ask(ListProjects { name: None, limit: AT_ONCE, cursor }).await?;
        projects.extend(page.items);
        cursor = page.next;
        if cursor.is_none() || projects.len() >= MOST {
            return Ok((projects, cursor.is_some()));
        }
    }
}

/// What stands above every tab of an app.
#[derive(Debug, Serialize)]
pub(super) struct AppHead {
    pub(super) project: Project,
    /// Where it answers, once something was deployed.
    pub(super) url: Option<String>,
    pub(super) status: &'static str,
    pub(super) instances: Vec<Instance>,
    pub(super) formation: Formation,
    pub(super) healthy: usize,
    pub(super) wanted: u32,
    /// The newest deployment.
    pub(super) last: Option<Deployment>,
    /// Why it is not known how the app is, when deploy does not answer.
    pub(super) trouble: Option<String>,
    /// The tab that is shown.
    pub(super) tab: &'static str,
    /// What is followed live.
    pub(super) topics: String,
}

impl AppHead {
    /// Of the app in the path. It is shown also while deploy does not answer, without what deploy knows.
    pub(super) async fn of(request: &PageRequest, tab: &'static str) -> Result<Self, Problem> {
        let project = request.project().await?;
        let project_id = project.id;
        let latest = ListDeployments { project_id, limit: Limit::of(1), cursor: None };
        let (instances, latest) = join!(request.ask(ListInstances { project_id }), request.ask(latest));
        let trouble = instances.as_ref().err().or(latest.as_ref().err()).map(|problem| problem.detail.to_string());
        let last = latest.ok().and_then(|page| page.items.into_iter().next());
        let (items, formation, url) = match instances {
            Ok(instances) => (instances.items, instances.formation, Some(instances.url)),
            Err(_) => (Vec::new(), Formation::default(), None),
        };
        let healthy = items.iter().filter(|instance| instance.status == InstanceStatus::Healthy).count();
        let wanted = formation.processes.values().sum();
        let status = match () {
            () if project.deleting_at.is_some() => "deleting",
            () if trouble.is_some() => "unknown",
            () => status(wanted, last.as_ref(), healthy >= wanted as usize, healthy > 0),
        };
        Ok(Self {
            url: url.filter(|_| last.is_some()),
            status,
            instances: items,
            formation,
            healthy,
            wanted,
            last,
            trouble,
            tab,
            topics: ProjectTopic::name(project_id),
            project,
        })
    }

    /// The address of one of its pages.
    pub(super) fn address(&self, below: &str) -> String {
        address(&self.project.name, below)
    }
}

/// The address of a page of an app.
pub(super) fn address(name: &str, below: &str) -> String {
    if below.is_empty() { format!("/apps/{name}") } else { format!("/apps/{name}/{below}") }
}

/// How an app is: `new`, `deploying`, `failed`, `stopped`, `running` or `degraded`.
fn status(wanted: u32, last: Option<&Deployment>, all_healthy: bool, any_healthy: bool) -> &'static str {
    let Some(last) = last else { return "new" };
    match last.status {
        status if !status.is_final() => "deploying",
        DeploymentStatus::Failed if !any_healthy => "failed",
        _ if wanted == 0 => "stopped",
        _ if all_healthy => "running",
        _ => "degraded",
    }
}

/// The same as the router knows it, which counts no instances.
fn status_of_route(wanted: u32, last: Option<&Deployment>, route: Option<RouteState>) -> &'static str {
    let is_served = !matches!(route, None | Some(RouteState::Unhealthy | RouteState::NoRelease | RouteState::Moving));
    status(wanted, last, is_served, is_served)
}
