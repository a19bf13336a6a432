//! What the instances of an app write.

use std::collections::BTreeSet;

use actix_web::{HttpResponse, http::header};
use callboard_messages::{
    deploy::{GetLogs, LogLine, LogTopic},
    live::Topic,
};
use serde::Serialize;

use super::{
    AppHead,
    deployments::{LogView, as_text},
};
use crate::{pages::request::PageRequest, problem::Problem};

/// Lines that are in the page itself, without a script.
const LINES: u32 = 200;
/// Lines that a filter looks through, and that a download has.
const SEARCHED: u32 = 10_000;

#[derive(Serialize)]
struct LogsView {
    app: AppHead,
    log: LogView,
    /// Whose lines there are.
    writers: Vec<String>,
    /// Whose lines are shown; empty for all.
    writer: String,
    query: String,
    error: Option<String>,
}

pub(crate) async fn logs(request: PageRequest) -> Result<HttpResponse, Problem> {
    let app = AppHead::of(&request, "logs").await?;
    let (writer, query) = filters(&request);
    let is_filtered = !writer.is_empty() || !query.is_empty();
    let limit = if is_filtered { SEARCHED } else { LINES };
    let asked = GetLogs { project_id: app.project.id, after: None, limit: Some(limit) };
    let (mut lines, error) = match request.ask(asked).await {
        Ok(lines) => (lines.items, None),
        Err(problem) => (Vec::new(), Some(problem.detail.into_owned())),
    };
    let running = app.instances.iter().map(|instance| format!("{}.{}", instance.process, instance.index));
    let mut writers: BTreeSet<String> = running.collect();
    writers.extend(lines.iter().map(|line| line.from.clone()));
    if is_filtered {
        lines = filtered(lines, &writer, &query);
        let excess = lines.len().saturating_sub(LINES as usize);
        lines.drain(..excess);
    }
    let id = app.project.id;
    let log = LogView::of_app(
        lines,
        LogTopic::name(id),
        format!("/api/v1/projects/{id}/logs"),
        app.address(&format!(
            "logs.txt{}",
            request.http().uri().query().map_or_else(String::new, |query| format!("?{query}"))
        )),
    );
    let view = LogsView { app, log, writers: writers.into_iter().collect(), writer, query, error };
    request.render("apps/logs.html", &view).await
}

/// The last lines as a text, by the same filters.
pub(crate) async fn download(request: PageRequest) -> Result<HttpResponse, Problem> {
    let project = request.project().await?;
    let (writer, query) = filters(&request);
    let asked = GetLogs { project_id: project.id, after: None, limit: Some(SEARCHED) };
    let lines = filtered(request.ask(asked).await?.items, &writer, &query);
    let disposition = format!("attachment; filename=\"{}-logs.txt\"", project.name);
    Ok(HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header((header::CONTENT_DISPOSITION, disposition))
        .body(as_text(&lines)))
}

fn filters(request: &PageRequest) -> (String, String) {
    (request.query("from").unwrap_or_default(), request.query("q").unwrap_or_default())
}

fn filtered(mut lines: Vec<LogLine>, writer: &str, query: &str) -> Vec<LogLine> {
    let wanted = query.to_lowercase();
    lines.retain(|line| (writer.is_empty() || line.from == writer) && line.text.to_lowercase().contains(&wanted));
    lines
}
