//! An app at a glance: where it answers, what runs, and what can be done with it.

use actix_web::HttpResponse;
use callboard_messages::{
    DeploymentId, Limit,
    deploy::{Deployment, DeploymentKind, ListDeployments, ListReleases, Release},
};
use futures_util::join;
use serde::Serialize;

use super::AppHead;
use crate::{pages::request::PageRequest, problem::Problem};

/// Deployments that are listed.
const RECENT: Limit = Limit::of(5);

#[derive(Serialize)]
struct OverviewView {
    app: AppHead,
    processes: Vec<ProcessView>,
    recent: Vec<Deployment>,
    release: Option<Release>,
    /// The deployment whose source can be built again: the last one that built any, or the one that made what serves.
    source: Option<DeploymentId>,
}

#[derive(Serialize)]
struct ProcessView {
    name: String,
    wanted: u32,
    /// Whether the release that serves has it.
    missing: bool,
}

pub(crate) async fn overview(request: PageRequest) -> Result<HttpResponse, Problem> {
    let app = AppHead::of(&request, "overview").await?;
    let project_id = app.project.id;
    let deployments = ListDeployments { project_id, limit: RECENT, cursor: None };
    let releases = ListReleases { project_id, limit: Limit::of(100), cursor: None };
    let (deployments, releases) = join!(request.ask(deployments), request.ask(releases));
    let recent = deployments.map(|page| page.items).unwrap_or_default();
    let releases = releases.map(|page| page.items).unwrap_or_default();
    let process =
        |missing| move |(name, wanted): (&String, &u32)| ProcessView { name: name.clone(), wanted: *wanted, missing };
    let formation = &app.formation;
    let processes =
        formation.processes.iter().map(process(false)).chain(formation.missing.iter().map(process(true))).collect();
    let release = releases.into_iter().find(|release| release.current);
    let built = recent.iter().find(|deployment| deployment.kind == DeploymentKind::Deploy);
    let made = release.as_ref().map(|release| release.deployment_id);
    let view = OverviewView { processes, source: built.map(|deployment| deployment.id).or(made), release, recent, app };
    request.render("apps/overview.html", &view).await
}
