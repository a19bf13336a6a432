//! Live updates: `GET /api/v1/live?topics=…`, as server-sent events or over a WebSocket.
//!
//! A topic is `<kind>:<id>`, such as `deployment:<id>`. Which kinds there are, and whom to ask in the caller's name whether
//! it may follow, is said by the contracts of the domains.
//!
//! Every event is `{"topic", "id", "kind", "data"}`. Ids grow within a topic. To resume, a reader gives the last id of
//! each topic, in the order of `topics`, with `;` between them: as `Last-Event-ID` (that is what the SSE `id` holds, so a
//! browser resumes by itself) or as `after=`. Lines of a log come from the store then, so none is lost, however long ago;
//! `after=0` is a log from its beginning. Of a project's older events only the newest are remembered, and the oldest lines
//! of a log go: a reader that missed some gets the event `gap`, and reads the project again.
//!
//! A stream ends when the caller's token expires or is revoked, when nobody can say for five seconds whether it was, when
//! its reader does not keep up, and when what other nodes told may be lost. An event `end` says why, and whether the
//! reader may resume as it is; a WebSocket closes with 1013 (try again later) or 1008 (sign in again).

mod credentials;
mod feed;
mod frames;
mod sse;
mod topic;
mod websocket;

use std::{collections::HashSet, time::Duration};

use actix_web::{HttpResponse, http::header};
use callboard_messages::Code;
use serde_json::json;

use self::{feed::Feed, topic::Topic};
use crate::{message, openapi::Docs, problem::Problem, worker::Request};

/// Topics of one stream.
const TOPICS: usize = 64;
/// How long an event may wait for its reader.
const SEND_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

#[derive(serde::Deserialize)]
struct Query {
    topics: String,
    #[serde(default)]
    after: Option<String>,
}

/// Follows topics.
pub(crate) async fn follow(request: Request) -> Result<HttpResponse, Problem> {
    let mut fields = Vec::new();
    message::push_query(&mut fields, request.http.query_string())?;
    let (query, bus): (Query, _) = (message::Input::of(fields).read()?, request.worker.bus());
    let topics = query.topics.split(',').map(|text| Topic::parse(bus, text)).collect::<Result<Vec<_>, _>>()?;
    let names: HashSet<String> = topics.iter().map(Topic::name).collect();
    if names.len() < topics.len() {
        return Err(Problem::invalid("a topic is named twice"));
    }
    if topics.len() > TOPICS {
        return Err(Problem::invalid(format!("one stream follows at most {TOPICS} topics")));
    }
    let last_event = request.http.headers().get("last-event-id").and_then(|id| id.to_str().ok());
    let after = after(last_event.or(query.after.as_deref()), topics.len())?;

    let headers = request.http.headers();
    let names = |name: header::HeaderName, wanted: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.to_ascii_lowercase().contains(wanted))
    };
    if names(header::UPGRADE, "websocket") {
        websocket::check_origin(&request)?;
        let feed = Feed::open(&request, topics, after).await?;
        return websocket::answer(request, feed).await;
    }
    if !names(header::ACCEPT, "text/event-stream") {
        return Err(Problem::invalid("ask with Accept: text/event-stream, or upgrade to a WebSocket"));
    }
    let feed = Feed::open(&request, topics, after).await?;
    Ok(sse::answer(feed))
}

/// The id after which each topic resumes.
fn after(text: Option<&str>, topics: usize) -> Result<Vec<Option<u64>>, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(vec![None; topics]) };
    let ids: Option<Vec<Option<u64>>> =
        text.split(';').map(|id| if id.is_empty() { Some(None) } else { id.trim().parse().ok().map(Some) }).collect();
    ids.filter(|ids| ids.len() == topics).ok_or_else(|| {
        Problem::invalid("a stream resumes after one id for each topic, in their order, with ; between them")
    })
}

pub(crate) fn docs() -> Docs {
    let fields = json!({
        "topics": {
            "type": "string",
            "minLength": 38,
            "maxLength": TOPICS * 80,
            "description": "Such as deployment:<id>, with commas between them. A text that is no topic is answered with \
                            those there are.",
        },
        "after": {
            "type": "string",
            "maxLength": TOPICS * 21,
            "pattern": "^[0-9; ]*$",
            "description": "The last id seen of each topic, in their order, with ; between them; Last-Event-ID goes before it.",
        },
    });
    Docs::saying::<()>(
        "Live updates as server-sent events (Accept: text/event-stream) or over a WebSocket. Each event is a JSON object \
         with topic, id, kind and data.",
    )
    .with_fields(fields, &["topics"])
    .answering(json!({"type": "string", "format": "event-stream", "description": "Server-sent events."}))
    // Any domain may have topics, and refuse in its own way.
    .refusing(&Code::ALL)
    .with_media("application/json", "text/event-stream")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_resumes_each_topic_after_its_own_id() {
        assert_eq!(after(None, 2).unwrap(), [None, None]);
        assert_eq!(after(Some("7;"), 2).unwrap(), [Some(7), None]);
        assert_eq!(after(Some("7"), 1).unwrap(), [Some(7)]);
        for bad in ["7", "7;8;9", "a;b", "-1;2"] {
            assert!(after(Some(bad), 2).is_err(), "{bad}");
        }
    }
}
