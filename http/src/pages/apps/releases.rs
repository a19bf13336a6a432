//! The releases of an app, what changed between them, and the way back.

use std::collections::{BTreeMap, btree_map::Entry};

use actix_web::HttpResponse;
use callboard_messages::{
    Cursor, Limit,
    deploy::{ListReleases, Release, Rollback},
    project::{Environment, ListEnv, Project},
};
use serde::Serialize;

use super::{AppHead, address, diff};
use crate::{
    pages::{confirm::Confirm, form, request::PageRequest},
    problem::Problem,
};

/// Rows of a page. The environments that they were made with are read as well.
const ROWS: Limit = Limit::of(15);

#[derive(Serialize)]
struct ReleasesView {
    app: AppHead,
    rows: Vec<ReleaseRow>,
    next: Option<Cursor>,
    first: bool,
}

#[derive(Serialize)]
struct ReleaseRow {
    release: Release,
    /// What it changed of the variables of the release before.
    differences: Vec<diff::Difference>,
    /// Whether its content is that of the release before.
    same_content: bool,
    /// Process types whose command is another than in the release before.
    commands: Vec<String>,
    /// The first release there is has none before it.
    compared: bool,
}

pub(crate) async fn list(request: PageRequest) -> Result<HttpResponse, Problem> {
    let app = AppHead::of(&request, "releases").await?;
    let project_id = app.project.id;
    let cursor = request.query("cursor").and_then(|text| text.parse().ok()).map(Cursor);
    let page = request.ask(ListReleases { project_id, limit: ROWS, cursor }).await?;
    let environments = environments(&request, &app.project, &page.items).await?;
    let nothing = Environment { version: 0, variables: Vec::new() };
    let of = |release: &Release| environments.get(&release.environment_version).unwrap_or(&nothing);
    let mut rows = Vec::with_capacity(page.items.len());
    for (index, release) in page.items.iter().enumerate() {
        let before = page.items.get(index + 1);
        rows.push(ReleaseRow {
            differences: before.map(|before| diff::between(of(before), of(release))).unwrap_or_default(),
            same_content: before.is_some_and(|before| before.digest == release.digest),
            commands: before.map(|before| changed(before, release)).unwrap_or_default(),
            compared: before.is_some(),
            release: release.clone(),
        });
    }
    let view = ReleasesView { app, rows, next: page.next, first: cursor.is_none() };
    request.render("apps/releases.html", &view).await
}

/// The environments that the releases were made with, by version.
async fn environments(
    request: &PageRequest,
    project: &Project,
    releases: &[Release],
) -> Result<BTreeMap<i64, Environment>, Problem> {
    let mut environments = BTreeMap::new();
    for release in releases {
        let version = release.environment_version;
        if let Entry::Vacant(place) = environments.entry(version) {
            place.insert(request.ask(ListEnv { project_id: project.id, version: Some(version) }).await?);
        }
    }
    Ok(environments)
}

/// Process types whose command differs, or that only one of them has.
fn changed(before: &Release, after: &Release) -> Vec<String> {
    let names = before.processes.keys().chain(after.processes.keys());
    let mut changed: Vec<String> =
        names.filter(|name| before.processes.get(*name) != after.processes.get(*name)).cloned().collect();
    changed.sort();
    changed.dedup();
    changed
}

/// Asks before an earlier release takes over, with what changes of the variables.
pub(crate) async fn confirm_rollback(request: PageRequest) -> Result<HttpResponse, Problem> {
    let version: i64 = request.id("version")?;
    let project = request.project().await?;
    let releases =
        request.ask(ListReleases { project_id: project.id, limit: Limit::of(100), cursor: None }).await?.items;
    let target = releases.iter().find(|release| release.version == version).ok_or_else(Problem::not_found)?;
    let current = releases.iter().find(|release| release.current);
    let name = &project.name;
    let title = format!("Roll {name} back to v{version}?");
    let mut confirm = Confirm::of(title, address(name, &format!("releases/{version}/rollback")), "Roll back");
    if let Some(current) = current {
        confirm = confirm
            .goes(format!("v{} stops serving once v{version} is healthy; no request is dropped.", current.version));
        let environments = environments(&request, &project, &[current.clone(), target.clone()]).await?;
        let pair = environments.get(&current.environment_version).zip(environments.get(&target.environment_version));
        for difference in pair.map(|(before, after)| diff::between(before, after)).unwrap_or_default() {
            confirm = confirm.goes(difference.sentence());
        }
    }
    confirm
        .note("It runs with the variables that it was made with. The newer release stays, and can be brought back.")
        .back(address(name, "releases"))
        .show(&request)
        .await
}

/// Brings an earlier release back.
pub(crate) async fn rollback(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    let version: i64 = request.id("version")?;
    let project = request.project().await?;
    match request.ask_once(&form, Rollback { project_id: project.id, version: Some(version) }).await {
        Ok(deployment) => {
            let to = address(&project.name, &format!("deployments/{}", deployment.id));
            Ok(request.done(&to, format!("Rolling back to v{version}.")))
        }
        refused => request.acted(refused, &address(&project.name, "releases"), ""),
    }
}
