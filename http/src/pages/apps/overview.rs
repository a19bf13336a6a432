//! An app at a glance: where it answers, what runs, and what can be done with it.

use actix_web::HttpResponse;
use callboard_messages::{
    Limit,
    deploy::{Deployment, ListDeployments, ListReleases, Release},
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
    /// The last deployment that built a source, which can be built again.
    source: Option<Deployment>,
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
    let releases = ListReleases { project_id, limit: Limit::of(20), cursor: None };
    let (deployments, releases) = join!(request.ask(deployments), request.ask(releases));
    let recent = deployments.map(|page| page.items).unwrap_or_default();
    let releases = releases.map(|page| page.items).unwrap_or_default();
    let process =
        |missing| move |(name, wanted): (&String, &u32)| ProcessView { name: name.clone(), wanted: *wanted, missing };
    let formation = &app.formation;
    let processes =
        formation.processes.iter().map(process(false)).chain(formation.missing.iter().map(process(true))).collect();
    let builds = |deployment: &&Deployment| deployment.kind == callboard_messages::deploy::DeploymentKind::Deploy;
    let view = OverviewView {
        processes,
        source: recent.iter().find(builds).cloned(),
        release: releases.into_iter().find(|release| release.current),
        recent,
        app,
    };
    request.render("apps/overview.html", &view).await
}
