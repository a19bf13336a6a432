//! The deployments of an app, and one of them with its log.

use actix_web::{HttpResponse, http::header};
use anstream::adapter::strip_str;
use bytes::Bytes;
use callboard_messages::{
    Code, Cursor, DeploymentId, Limit, ProjectId,
    deploy::{
        CancelDeployment, Deployment, DeploymentStatus, DeploymentTopic, GetBuildLog, GetDeployment, ListDeployments,
        LogLine,
    },
    live::Topic,
};
use chrono::{DateTime, Utc};
use futures_util::stream;
use serde::Serialize;

use super::{AppHead, address};
use crate::{
    pages::{
        chart::{Chart, ChartView, Kind, Marker, Point, Series},
        form,
        request::PageRequest,
    },
    problem::Problem,
};

/// Rows of a page.
const ROWS: Limit = Limit::of(25);
/// Lines that are in the page itself, without a script.
const LINES: u32 = 200;
/// Lines read at a time for a download.
const DOWNLOADED: u32 = 5_000;
/// Fewer deployments make no chart.
const WORTH_A_CHART: usize = 3;

#[derive(Serialize)]
struct DeploymentsView {
    app: AppHead,
    items: Vec<Deployment>,
    next: Option<Cursor>,
    first: bool,
    chart: Option<ChartView>,
}

pub(crate) async fn list(request: PageRequest) -> Result<HttpResponse, Problem> {
    let app = AppHead::of(&request, "deployments").await?;
    let cursor = request.query("cursor").and_then(|text| text.parse().ok()).map(Cursor);
    let list = ListDeployments { project_id: app.project.id, limit: ROWS, cursor };
    let page = request.ask(list).await?;
    let chart = chart(&request, &page.items);
    let view = DeploymentsView { app, items: page.items, next: page.next, first: cursor.is_none(), chart };
    request.render("apps/deployments.html", &view).await
}

/// How long deployments took. Those that failed are marked.
fn chart(request: &PageRequest, deployments: &[Deployment]) -> Option<ChartView> {
    let took = |deployment: &Deployment| -> Option<(DateTime<Utc>, f64)> {
        let finished = deployment.finished_at?;
        let took = (finished - deployment.created_at).num_milliseconds();
        Some((deployment.created_at, f64::from(i32::try_from(took).ok()?) / 1_000.0))
    };
    let mut points: Vec<Point> = deployments
        .iter()
        .filter_map(|deployment| {
            let (at, value) = took(deployment)?;
            let version = deployment.release_version.map_or_else(String::new, |version| format!("v{version}, "));
            Some(Point { at, value, label: format!("{version}{}", deployment.status.as_str()) })
        })
        .collect();
    if points.len() < WORTH_A_CHART {
        return None;
    }
    points.sort_by_key(|point| point.at);
    let failed = deployments.iter().filter(|deployment| deployment.status == DeploymentStatus::Failed);
    let markers = failed.map(|deployment| Marker { at: deployment.created_at, label: "failed".to_owned() }).collect();
    let chart = Chart {
        title: "Time to deploy",
        unit: "s",
        kind: Kind::Bars,
        series: vec![Series { name: "from request to end", points }],
        markers,
    };
    chart.view(request)
}

#[derive(Serialize)]
struct DeploymentView {
    app: AppHead,
    deployment: Deployment,
    ended: bool,
    may_cancel: bool,
    took: Option<i64>,
    log: LogView,
}

/// The beginning of a log, for who has no script; a script reads all of it.
#[derive(Debug, Serialize)]
pub(super) struct LogView {
    lines: Vec<LogLine>,
    /// The topic on which it goes on.
    topic: String,
    /// Where its lines are, for the script.
    source: String,
    download: Option<String>,
    /// Whether more can come.
    live: bool,
    /// The page with the lines after these.
    next: Option<String>,
    /// Whether it is read from its beginning; otherwise the last lines.
    whole: bool,
}

impl LogView {
    /// Of an app: its last lines, and those that come.
    pub(super) fn of_app(lines: Vec<LogLine>, topic: String, source: String, download: String) -> Self {
        Self { lines, topic, source, download: Some(download), live: true, next: None, whole: false }
    }
}

pub(crate) async fn show(request: PageRequest) -> Result<HttpResponse, Problem> {
    let deployment_id: DeploymentId = request.id("deployment_id")?;
    let app = AppHead::of(&request, "deployments").await?;
    let deployment = of_project(&request, app.project.id).await?;
    let after = request.query("after").and_then(|text| text.parse().ok());
    let asked = GetBuildLog { deployment_id, after, limit: Some(LINES) };
    let lines = request.ask(asked).await.map(|lines| lines.items).unwrap_or_default();
    let page = app.address(&format!("deployments/{deployment_id}"));
    let next = (lines.len() >= LINES as usize).then(|| lines.last().map(|line| format!("{page}?after={}", line.id)));
    let ended = deployment.status.is_final();
    let log = LogView {
        lines,
        topic: DeploymentTopic::name(deployment_id),
        source: format!("/api/v1/deployments/{deployment_id}/logs"),
        download: Some(format!("{page}/log.txt")),
        live: !ended,
        next: next.flatten(),
        whole: true,
    };
    let took = deployment.finished_at.map(|finished| (finished - deployment.created_at).num_milliseconds());
    let may_cancel =
        matches!(deployment.status, DeploymentStatus::Queued | DeploymentStatus::Building | DeploymentStatus::Rolling);
    // The app's own topic tells of this deployment as well.
    let view = DeploymentView { ended, may_cancel, took, log, deployment, app };
    request.render("apps/deployment.html", &view).await
}

/// The deployment in the path, which must be the project's: what an address says of the app is so.
pub(super) async fn of_project(request: &PageRequest, project_id: ProjectId) -> Result<Deployment, Problem> {
    let deployment = request.ask(GetDeployment { deployment_id: request.id("deployment_id")? }).await?;
    if deployment.project_id == project_id { Ok(deployment) } else { Err(Problem::not_found()) }
}

/// Ends a deployment that has not ended.
pub(crate) async fn cancel(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    request.form(form::SHORT).await?;
    let project = request.project().await?;
    let deployment_id = of_project(&request, project.id).await?.id;
    let outcome = request.ask(CancelDeployment { deployment_id }).await;
    let to = address(&project.name, &format!("deployments/{deployment_id}"));
    request.acted(outcome, &to, "The deployment is cancelled; what served before serves on.")
}

/// The whole log as a text, streamed.
pub(crate) async fn download(request: PageRequest) -> Result<HttpResponse, Problem> {
    let project = request.project().await?;
    let (name, deployment) = (project.name, of_project(&request, project.id).await?);
    let deployment_id = deployment.id;
    let version = deployment.release_version.map_or_else(String::new, |version| format!("-v{version}"));
    let first = read(&request, deployment_id, 0).await?;
    // Each piece is asked for when the one before was sent.
    let pieces = stream::unfold((request, Some(first)), move |(request, piece)| async move {
        let (text, last) = piece?;
        let next = match last {
            // A download that breaks off tells the browser so.
            Some(last) => match read(&request, deployment_id, last).await {
                Ok(next) => Some(next),
                Err(problem) => return Some((Err(std::io::Error::other(problem.detail)), (request, None))),
            },
            None => None,
        };
        Some((Ok(text), (request, next)))
    });
    let disposition = format!("attachment; filename=\"{name}{version}-build.txt\"");
    Ok(HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header((header::CONTENT_DISPOSITION, disposition))
        .streaming(pieces))
}

/// Lines after one as text, and after which line there may be more.
async fn read(request: &PageRequest, deployment_id: DeploymentId, after: u64) -> Result<(Bytes, Option<u64>), Problem> {
    let asked = GetBuildLog { deployment_id, after: Some(after), limit: Some(DOWNLOADED) };
    let lines = match request.ask(asked).await {
        Ok(lines) => lines.items,
        Err(problem) if problem.code == Code::NotFound.as_str() && after > 0 => Vec::new(),
        Err(problem) => return Err(problem),
    };
    let last = (lines.len() >= DOWNLOADED as usize).then(|| lines.last().map(|line| line.id)).flatten();
    Ok((Bytes::from(as_text(&lines)), last))
}

/// Lines as a text, each with its time and who wrote it, without the colours of a terminal.
pub(super) fn as_text(lines: &[LogLine]) -> String {
    lines
        .iter()
        .map(|line| format!("{} {} {}\n", line.at.format("%Y-%m-%dT%H:%M:%S%.3fZ"), line.from, strip_str(&line.text)))
        .collect()
}
