//! The home page: the organization's apps. Without one, what to do first.

use std::{
    cmp::{Ordering, Reverse},
    collections::HashMap,
};

use actix_web::HttpResponse;
use callboard_messages::{
    Cursor, ProjectId,
    auth::ListApiKeys,
    deploy::{AppSummary, Deployment, ListApps, ProjectTopic, RouteState},
    live::Topic,
    project::Project,
};
use serde::Serialize;

use super::{AT_ONCE, MOST, every_project, status_of_route};
use crate::{pages::request::PageRequest, problem::Problem};

/// Rows of a page.
const ROWS: usize = 50;

#[derive(Serialize)]
struct ListView {
    rows: Vec<AppRow>,
    /// Apps that match.
    found: usize,
    /// Apps there are.
    total: usize,
    /// Whether there are more than are looked through.
    more: bool,
    query: String,
    status: String,
    sort: &'static str,
    descending: bool,
    number: usize,
    pages: usize,
    topics: String,
    /// Why it is not known how the apps are.
    trouble: Option<String>,
    steps: Option<FirstSteps>,
}

#[derive(Serialize)]
struct AppRow {
    name: String,
    description: String,
    status: &'static str,
    url: Option<String>,
    wanted: u32,
    last: Option<Deployment>,
    #[serde(skip)]
    id: ProjectId,
}

/// What is done first, and what of it was.
#[derive(Serialize)]
struct FirstSteps {
    /// The platform's own address, for the commands.
    address: String,
    has_key: bool,
    may_invite: bool,
}

/// The columns by which a list can be sorted.
const SORTS: [&str; 3] = ["name", "status", "deployed"];

pub(crate) async fn list(request: PageRequest) -> Result<HttpResponse, Problem> {
    let (projects, more) = every_project(&request).await?;
    let total = projects.len();
    let (summaries, trouble) = if total == 0 { (HashMap::new(), None) } else { summaries(&request).await };
    let routes = &request.worker().shared.routes;
    let route = |name: &str| -> Option<RouteState> {
        let here = routes.get(name);
        let serves = here.as_ref().is_some_and(|route| !route.backends().is_empty());
        if serves {
            Some(RouteState::Serving)
        } else {
            routes.elsewhere(name).map(|app| app.state).or(here.map(|route| route.state()))
        }
    };
    let known = trouble.is_none();
    let mut summaries = summaries;
    let mut rows: Vec<AppRow> = projects
        .into_iter()
        .map(|project| {
            let summary = summaries.remove(&project.id);
            row(project, summary, known, &route)
        })
        .collect();

    let query = request.query("q").unwrap_or_default();
    let wanted = query.trim().to_lowercase();
    rows.retain(|row| row.name.contains(&wanted) || row.description.to_lowercase().contains(&wanted));
    let status = request.query("status").unwrap_or_default();
    if !status.is_empty() {
        rows.retain(|row| row.status == status);
    }
    let asked = request.query("sort").unwrap_or_default();
    let sort = SORTS.into_iter().find(|known| *known == asked).unwrap_or("deployed");
    let descending = match request.query("direction").as_deref() {
        Some("down") => true,
        Some("up") => false,
        _ => sort == "deployed",
    };
    rows.sort_by(|one, other| compare(one, other, sort, descending));

    let found = rows.len();
    let pages = found.div_ceil(ROWS).max(1);
    let number = request.query("page").and_then(|page| page.parse().ok()).unwrap_or(1).clamp(1, pages);
    let rows: Vec<AppRow> = rows.into_iter().skip((number - 1) * ROWS).take(ROWS).collect();
    let topics: Vec<String> = rows.iter().map(|row| ProjectTopic::name(row.id)).collect();
    let steps = if total == 0 { Some(first_steps(&request).await) } else { None };
    let view = ListView {
        rows,
        found,
        total,
        more,
        query,
        status,
        sort,
        descending,
        number,
        pages,
        topics: topics.join(","),
        trouble,
        steps,
    };
    request.render("apps/list.html", &view).await
}

/// What deploy knows of every app, in as few questions as there are pages; without it when deploy does not answer.
async fn summaries(request: &PageRequest) -> (HashMap<ProjectId, AppSummary>, Option<String>) {
    let mut summaries = HashMap::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        match request.ask(ListApps { project_id: None, limit: AT_ONCE, cursor }).await {
            Ok(page) => {
                summaries.extend(page.items.into_iter().map(|app| (app.project_id, app)));
                cursor = page.next;
                if cursor.is_none() || summaries.len() >= MOST {
                    return (summaries, None);
                }
            }
            Err(problem) => return (summaries, Some(problem.detail.into_owned())),
        }
    }
}

fn row(
    project: Project,
    summary: Option<AppSummary>,
    known: bool,
    route: &impl Fn(&str) -> Option<RouteState>,
) -> AppRow {
    let wanted = summary.as_ref().map_or(0, |app| app.formation.processes.values().sum());
    let (last, url) = summary.map(|app| (app.last, Some(app.url))).unwrap_or_default();
    let status = match () {
        () if project.deleting_at.is_some() => "deleting",
        () if !known => "unknown",
        () => status_of_route(wanted, last.as_ref(), route(&project.name)),
    };
    let url = url.filter(|_| last.is_some());
    AppRow { name: project.name, description: project.description, status, url, wanted, last, id: project.id }
}

/// Apps of the same status, and those never deployed, are in the order of their names.
fn compare(one: &AppRow, other: &AppRow, sort: &str, descending: bool) -> Ordering {
    let turned = |order: Ordering| if descending { order.reverse() } else { order };
    let by_name = one.name.cmp(&other.name);
    match sort {
        "name" => turned(by_name),
        "status" => turned(one.status.cmp(other.status)).then(by_name),
        // Those never deployed come last in either direction.
        _ => match (&one.last, &other.last) {
            (Some(one), Some(other)) => turned(one.created_at.cmp(&other.created_at)),
            (one, other) => Reverse(one.is_some()).cmp(&Reverse(other.is_some())).then(by_name),
        },
    }
}

async fn first_steps(request: &PageRequest) -> FirstSteps {
    let keys = request.ask(ListApiKeys {}).await.unwrap_or_default();
    FirstSteps {
        address: request.worker().shared.address.clone(),
        has_key: !keys.is_empty(),
        may_invite: request.caller().administrator,
    }
}
