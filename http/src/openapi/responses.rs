//! Possible responses of each operation.
//!
//! The statuses follow from the route's entry in the table and from the codes of its domains' errors, so that nobody
//! lists them; a gateway built for tests fails on any that is not described.

use std::collections::{BTreeMap, BTreeSet};

use callboard_messages::{Access, Code};
use serde_json::{Map, Value, json};

use super::docs::{Docs, reference};
use crate::{
    problem::{PROBLEMS, status_of},
    table::Route,
};

/// Codes of any operation, for every caller.
const ALWAYS: [Code; 6] =
    [Code::Invalid, Code::RateLimited, Code::Overloaded, Code::Unavailable, Code::Timeout, Code::Internal];
/// Codes of routes with credentials, which may name an organization that does not exist.
const WITH_CREDENTIALS: [Code; 3] = [Code::Unauthenticated, Code::Forbidden, Code::NotFound];

/// The statuses of a route's refusals.
fn refused(route: &Route, codes: &[Code]) -> BTreeSet<u16> {
    let endpoint = &route.endpoint;
    let mut statuses: BTreeSet<u16> = ALWAYS.iter().chain(codes).map(|code| status_of(*code).as_u16()).collect();
    if endpoint.access != Access::Public {
        statuses.extend(WITH_CREDENTIALS.map(|code| status_of(code).as_u16()));
    }
    if route.has_body() {
        // Too slow, too large, of another type.
        statuses.extend([408, 413, 415]);
    }
    if endpoint.keyed && route.method == "POST" {
        // The same key in progress, or with another request.
        statuses.extend([409, 422]);
    }
    if endpoint.if_match {
        statuses.insert(412);
    }
    statuses
}

/// The statuses of a route's successes, the usual one first.
fn answered(route: &Route, docs: &Docs) -> Vec<u16> {
    let endpoint = &route.endpoint;
    let usual = match &docs.reply {
        _ if endpoint.creates => 201,
        _ if endpoint.accepts => 202,
        None => 204,
        Some(_) => 200,
    };
    let unchanged = (endpoint.versioned && route.method == "GET").then_some(304);
    let upgraded = endpoint.upgrades.then_some(101);
    let done = endpoint.accepts.then_some(204);
    [Some(usual), done, unchanged, upgraded].into_iter().flatten().collect()
}

/// All statuses of a route.
#[cfg(debug_assertions)]
pub(crate) fn statuses(route: &Route, docs: &Docs) -> BTreeSet<u16> {
    answered(route, docs).into_iter().chain(refused(route, &docs.refusals)).collect()
}

/// The responses of an operation.
pub(super) fn of(route: &Route, docs: &Docs) -> Map<String, Value> {
    let mut responses = Map::new();
    for status in answered(route, docs) {
        let mut response = json!({"description": describe(status), "headers": headers(route, status)});
        if let (200..=202, Some(reply), Some(response)) = (status, &docs.reply, response.as_object_mut()) {
            response.insert("content".to_owned(), json!({docs.media.1: {"schema": reply}}));
        }
        responses.insert(status.to_string(), response);
    }
    for status in refused(route, &docs.refusals) {
        responses.insert(status.to_string(), json!({"$ref": format!("#/components/responses/{status}")}));
    }
    responses
}

fn describe(status: u16) -> &'static str {
    match status {
        101 => "Events follow over a WebSocket",
        201 => "Made",
        202 => "Accepted and under way; Location says where to look",
        304 => "The version that If-None-Match names",
        _ => "Done",
    }
}

fn headers(route: &Route, status: u16) -> Value {
    let endpoint = &route.endpoint;
    let mut names = vec!["X-Request-Id", "RateLimit", "RateLimit-Policy"];
    if status == 202 || status == 201 && endpoint.locates {
        names.push("Location");
    }
    if endpoint.versioned {
        names.push("ETag");
    }
    if endpoint.paged {
        names.push("Link");
    }
    refer(&names)
}

fn refer(names: &[&str]) -> Value {
    let refer = |name: &&str| ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{name}")}));
    Value::Object(names.iter().map(refer).collect())
}

/// One response for each status of a problem.
pub(super) fn problems() -> BTreeMap<String, Value> {
    let mut titles: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for (_, status, title, _) in PROBLEMS {
        titles.entry(*status).or_default().push(title);
    }
    titles.entry(408).or_default().push("The body did not arrive in time");
    let response = |(status, titles): (u16, Vec<&str>)| {
        let mut names = vec!["X-Request-Id"];
        match status {
            401 => names.push("WWW-Authenticate"),
            409 | 429 | 503 => names.push("Retry-After"),
            _ => {}
        }
        let response = json!({
            "description": titles.join("; "),
            "headers": refer(&names),
            "content": {"application/problem+json": {"schema": reference("Problem")}},
        });
        (status.to_string(), response)
    };
    titles.into_iter().map(response).collect()
}

/// The headers of responses.
pub(super) fn all_headers() -> Value {
    let text = |description: &str, longest: usize| json!({"description": description, "schema": {"type": "string", "maxLength": longest}});
    json!({
        "X-Request-Id": {
            "description": "Leads to the request in the node's log.",
            "schema": {"type": "string", "format": "uuid"},
        },
        "RateLimit": text("What is left of the limit that was counted.", 100),
        "RateLimit-Policy": text("That limit.", 100),
        "Location": {
            "description": "Where it is.",
            "schema": {"type": "string", "format": "uri-reference", "maxLength": 2048},
        },
        "ETag": {
            "description": "Its version, for If-Match and If-None-Match.",
            "schema": {"type": "string", "pattern": "^\"[0-9]+\"$", "maxLength": 22},
        },
        "Link": text("The page after this one, rel=\"next\"; absent on the last.", 8192),
        "Retry-After": {
            "description": "Seconds to wait.",
            "schema": {"type": "integer", "minimum": 1, "maximum": 86400},
        },
        "WWW-Authenticate": text("How to authenticate.", 100),
    })
}
