//! The platform from within: the actor tree of each node, dead letters and sagas.

use actix_web::HttpResponse;
use callboard_messages::{
    Cursor, Limit, NodeId, SagaStatus, SagaView,
    cluster::{
        BreakerHold, DeadLetter, DropDeadLetter, GetCluster, GetDeadLetter, HoldBreaker, ListDeadLetters, ListSagas,
        NodeState, ReplayDeadLetter, RetrySaga, ReviveDomain,
    },
};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{confirm::Confirm, form, request::PageRequest};
use crate::problem::Problem;

/// Rows of a page.
const ROWS: Limit = Limit::of(25);

#[derive(Serialize)]
struct TreeView {
    tab: &'static str,
    nodes: Vec<NodeTree>,
    refresh: u32,
}

#[derive(Serialize)]
struct NodeTree {
    id: NodeId,
    name: String,
    /// Absent when the node does not answer.
    tree: Option<Value>,
    trouble: Option<String>,
}

pub(crate) async fn actors(request: PageRequest) -> Result<HttpResponse, Problem> {
    let cluster = request.ask(GetCluster {}).await?;
    let present = cluster.nodes.into_iter().filter(|report| report.node.state != NodeState::Gone);
    let nodes = present
        .map(|report| NodeTree {
            id: report.node.id,
            name: report.node.name,
            tree: report.health.map(|health| health.tree),
            trouble: report.trouble,
        })
        .collect();
    request.render("cluster/actors.html", &TreeView { tab: "actors", nodes, refresh: 2 }).await
}

/// Gives a domain of a node another chance.
pub(crate) async fn revive(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    request.form(form::SHORT).await?;
    let (node_id, domain) = (request.id("node_id")?, request.parameter("domain")?);
    let outcome = request.ask(ReviveDomain { node_id, domain: domain.clone() }).await;
    request.acted(outcome, "/cluster", format!("The domain {domain} gets another chance."))
}

fn hold_of(text: &str) -> Result<BreakerHold, Problem> {
    match text {
        "open" => Ok(BreakerHold::Open),
        "closed" => Ok(BreakerHold::Closed),
        "released" => Ok(BreakerHold::Released),
        _ => Err(Problem::invalid("a breaker is held open or closed, or released")),
    }
}

/// Asks before a breaker is held.
pub(crate) async fn confirm_hold(request: PageRequest) -> Result<HttpResponse, Problem> {
    let (node_id, domain): (NodeId, String) = (request.id("node_id")?, request.parameter("domain")?);
    let hold = request.query("hold").unwrap_or_default();
    let (title, goes, button) = match hold_of(&hold)? {
        BreakerHold::Open => (
            format!("Hold the breaker of {domain} open?"),
            format!("Every call of {domain} on this node is refused, until the breaker is released."),
            "Hold open",
        ),
        BreakerHold::Closed => (
            format!("Hold the breaker of {domain} closed?"),
            format!(
                "Every call of {domain} passes, also while what it depends on fails: callers wait for their deadlines."
            ),
            "Hold closed",
        ),
        BreakerHold::Released => {
            (format!("Release the breaker of {domain}?"), "It judges by itself again.".to_owned(), "Release")
        }
    };
    Confirm::of(title, format!("/cluster/nodes/{node_id}/domains/{domain}/breaker"), button)
        .goes(goes)
        .field("hold", hold)
        .back("/cluster")
        .show(&request)
        .await
}

/// Holds the breakers of a domain on a node, or releases them.
pub(crate) async fn hold(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    let (node_id, domain) = (request.id("node_id")?, request.parameter("domain")?);
    let hold = hold_of(form.text("hold"))?;
    let outcome = request.ask(HoldBreaker { node_id, domain: domain.clone(), hold }).await;
    let sentence = match hold {
        BreakerHold::Open => format!("The breaker of {domain} is held open."),
        BreakerHold::Closed => format!("The breaker of {domain} is held closed."),
        BreakerHold::Released => format!("The breaker of {domain} judges by itself again."),
    };
    request.acted(outcome, "/cluster", sentence)
}

#[derive(Serialize)]
struct DeadLettersView {
    tab: &'static str,
    items: Vec<DeadLetterRow>,
    next: Option<Cursor>,
    first: bool,
}

#[derive(Serialize)]
struct DeadLetterRow {
    #[serde(flatten)]
    letter: DeadLetter,
    /// The type of the event, if it is one.
    kind: String,
}

impl DeadLetterRow {
    fn of(letter: DeadLetter) -> Self {
        let kind = letter.event.get("type").and_then(Value::as_str).unwrap_or("no event").to_owned();
        Self { letter, kind }
    }
}

pub(crate) async fn dead_letters(request: PageRequest) -> Result<HttpResponse, Problem> {
    let cursor = cursor(&request);
    let page = request.ask(ListDeadLetters { domain: None, limit: ROWS, cursor }).await?;
    let items = page.items.into_iter().map(DeadLetterRow::of).collect();
    let view = DeadLettersView { tab: "dead-letters", items, next: page.next, first: cursor.is_none() };
    request.render("cluster/dead_letters.html", &view).await
}

#[derive(Serialize)]
struct DeadLetterView {
    tab: &'static str,
    row: DeadLetterRow,
    /// The event, indented.
    text: String,
}

pub(crate) async fn dead_letter(request: PageRequest) -> Result<HttpResponse, Problem> {
    let letter = request.ask(GetDeadLetter { dead_letter_id: request.id("dead_letter_id")? }).await?;
    let text = serde_json::to_string_pretty(&letter.event).unwrap_or_default();
    let view = DeadLetterView { tab: "dead-letters", row: DeadLetterRow::of(letter), text };
    request.render("cluster/dead_letter.html", &view).await
}

/// Delivers the event of a dead letter again.
pub(crate) async fn replay(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    request.form(form::SHORT).await?;
    let dead_letter_id: Uuid = request.id("dead_letter_id")?;
    let outcome = request.ask(ReplayDeadLetter { dead_letter_id }).await;
    request.acted(outcome, "/cluster/dead-letters", "The event was delivered again and applied.")
}

/// Asks before a dead letter is dropped.
pub(crate) async fn confirm_drop(request: PageRequest) -> Result<HttpResponse, Problem> {
    let letter = request.ask(GetDeadLetter { dead_letter_id: request.id("dead_letter_id")? }).await?;
    let row = DeadLetterRow::of(letter);
    let (id, domain) = (row.letter.id, &row.letter.domain);
    Confirm::of("Drop this dead letter?", format!("/cluster/dead-letters/{id}/drop"), "Drop it")
        .goes(format!("The event {} is never applied by {domain}.", row.kind))
        .note("Replaying it delivers it once more instead.")
        .back(format!("/cluster/dead-letters/{id}"))
        .show(&request)
        .await
}

/// Forgets a dead letter.
pub(crate) async fn drop_letter(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    request.form(form::SHORT).await?;
    let dead_letter_id: Uuid = request.id("dead_letter_id")?;
    let outcome = request.ask(DropDeadLetter { dead_letter_id }).await;
    request.acted(outcome, "/cluster/dead-letters", "The dead letter is dropped.")
}

#[derive(Serialize)]
struct SagasView {
    tab: &'static str,
    items: Vec<SagaView>,
    next: Option<Cursor>,
    first: bool,
    /// Empty for those that have not ended.
    status: String,
    statuses: Vec<&'static str>,
    trouble: Option<String>,
}

pub(crate) async fn sagas(request: PageRequest) -> Result<HttpResponse, Problem> {
    let cursor = cursor(&request);
    let asked = request.query("status").unwrap_or_default();
    let status = SagaStatus::ALL.into_iter().find(|status| status.as_str() == asked);
    let (items, next, trouble) = match request.ask(ListSagas { domain: None, status, limit: ROWS, cursor }).await {
        Ok(page) => (page.items, page.next, None),
        Err(problem) if problem.cause.is_some() => return Err(problem),
        Err(problem) => (Vec::new(), None, Some(problem.detail.into_owned())),
    };
    let view = SagasView {
        tab: "sagas",
        items,
        next,
        first: cursor.is_none(),
        status: status.map_or_else(String::new, |status| status.as_str().to_owned()),
        statuses: SagaStatus::ALL.map(SagaStatus::as_str).to_vec(),
        trouble,
    };
    request.render("cluster/sagas.html", &view).await
}

/// Lets a stuck saga go on.
pub(crate) async fn retry(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    request.form(form::SHORT).await?;
    let saga_id: Uuid = request.id("saga_id")?;
    let outcome = request.ask(RetrySaga { saga_id }).await;
    request.acted(outcome, "/cluster/sagas", "The saga goes on from where it was.")
}

fn cursor(request: &PageRequest) -> Option<Cursor> {
    request.query("cursor").and_then(|text| text.parse().ok()).map(Cursor)
}
