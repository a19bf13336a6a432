//! The OpenAPI 3.1 document, from the route table and the messages' own types, doc comments and errors.

mod docs;
mod links;
mod responses;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use callboard_messages::{Access, auth::ADMINISTER, shapes::SENTENCE_LONGEST};
use serde_json::{Map, Value, json};

pub(crate) use docs::Docs;
#[cfg(debug_assertions)]
pub(crate) use responses::statuses;

use crate::{
    problem::PROBLEMS,
    table::{Endpoint, Route},
};

/// The document of these routes.
pub(crate) fn document(routes: &[Route]) -> Value {
    let mut schemas = BTreeMap::from([("Problem".to_owned(), problem())]);
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in routes {
        let Some(docs) = route.endpoint.docs else { continue };
        let mut docs = docs();
        schemas.extend(std::mem::take(&mut docs.schemas));
        let method = route.method.as_str().to_ascii_lowercase();
        paths.entry(route.path.clone()).or_default().insert(method, operation(route, docs));
    }
    close_inputs(&paths, &mut schemas);
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Callboard",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The control plane's API. Every error is a problem document (RFC 9457). Lists are paged by \
                cursor; the Link header leads to the next page. A POST with an Idempotency-Key has its effect once.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses::problems(),
            "headers": responses::all_headers(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An access token (JWT) of POST /api/v1/auth/login, or an API key (cb_…).",
                },
            },
        },
    });
    links::add(&mut document);
    document
}

fn operation(route: &Route, docs: Docs) -> Value {
    let Endpoint { operation, access, if_match, keyed, .. } = &route.endpoint;
    let text = docs.message.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    let summary = text.split_once(['.', ';', ':']).map_or(text.as_str(), |(first, _)| first).replace('\n', " ");
    let (mut parameters, body) = split(route, &docs.message);
    if *access != Access::Public {
        let id = json!({"type": "string", "format": "uuid"});
        let organization = "The organization to act for, instead of the token's own";
        parameters.push(header("Callboard-Organization", organization, id));
    }
    if *if_match {
        let tag = json!({"type": "string", "pattern": "^(\\*|\"[0-9]{1,18}\")$", "maxLength": 20});
        parameters.push(header("If-Match", "The ETag that was read; refused with 412 when it has changed", tag));
    }
    if *keyed && route.method == "POST" {
        let key = json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"});
        let once = "Makes a retry safe: same key, same request, one effect, same answer";
        parameters.push(header("Idempotency-Key", once, key));
    }
    let mut described = json!({
        "operationId": operation,
        "tags": [operation.split('.').next()],
        "summary": summary,
        "description": text,
        "parameters": parameters,
        "responses": responses::of(route, &docs),
    });
    if let Some(described) = described.as_object_mut() {
        if let Some((schema, required)) = body {
            let content = json!({docs.media.0: {"schema": schema}});
            described.insert("requestBody".to_owned(), json!({"required": required, "content": content}));
        }
        match access {
            Access::Public => drop(described.insert("security".to_owned(), json!([]))),
            Access::Permission(permission) | Access::Personal(permission) => {
                drop(described.insert("x-permission".to_owned(), json!(permission)));
            }
            Access::Administrator => drop(described.insert("x-permission".to_owned(), json!(ADMINISTER))),
            Access::Authenticated | Access::Internal => {}
        }
    }
    described
}

fn header(name: &str, description: &str, schema: Value) -> Value {
    json!({"name": name, "in": "header", "required": false, "description": description, "schema": schema})
}

/// A message's fields as parameters and body: the path's, then the query's or the body's.
fn split(route: &Route, message: &Value) -> (Vec<Value>, Option<(Value, bool)>) {
    let empty = Map::new();
    let properties = message.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required: Vec<&str> =
        message.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut parameters = Vec::new();
    let mut body = Map::new();
    for (name, schema) in properties.iter().filter(|(name, _)| *name != "if_match") {
        let in_path = route.names.contains(&name.as_str());
        if !in_path && route.has_body() {
            body.insert(name.clone(), schema.clone());
            continue;
        }
        let schema = without_null(schema);
        parameters.push(json!({
            "name": name,
            "in": if in_path { "path" } else { "query" },
            "required": in_path || required.contains(&name.as_str()),
            "description": schema.get("description").and_then(Value::as_str).unwrap_or_default(),
            "schema": schema,
        }));
    }
    if body.contains_key("") {
        // A body that is no JSON object is under the empty name.
        return (parameters, body.remove("").map(|schema| (schema, true)));
    }
    let required: Vec<&str> = required.into_iter().filter(|name| body.contains_key(*name)).collect();
    let any = !required.is_empty();
    let schema = json!({"type": "object", "properties": body, "required": required, "additionalProperties": false});
    let has_fields = schema.get("properties").and_then(Value::as_object).is_some_and(|fields| !fields.is_empty());
    (parameters, has_fields.then_some((schema, any)))
}

/// Forbids undescribed fields in objects of requests, at any depth.
fn close_inputs(paths: &BTreeMap<String, Map<String, Value>>, schemas: &mut BTreeMap<String, Value>) {
    let bodies = paths.values().flat_map(Map::values).filter_map(|operation| operation.get("requestBody"));
    let mut reached: Vec<String> = bodies.flat_map(named).collect();
    let mut closed = BTreeSet::new();
    while let Some(name) = reached.pop() {
        if closed.insert(name.clone())
            && let Some(schema) = schemas.get_mut(&name)
        {
            close(schema);
            reached.extend(named(schema));
        }
    }
}

/// The schemas that a value refers to.
fn named(value: &Value) -> Vec<String> {
    let own = value.get("$ref").and_then(Value::as_str).and_then(|reference| reference.rsplit('/').next());
    let parts: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    };
    own.map(str::to_owned).into_iter().chain(parts.into_iter().flat_map(named)).collect()
}

fn close(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            if fields.get("properties").is_some_and(Value::is_object) && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
        }
        _ => {}
    }
}

/// A parameter's schema without null: an optional one is absent instead.
fn without_null(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let Some(fields) = schema.as_object_mut() else { return schema };
    if let Some(Value::Array(kinds)) = fields.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            let kind = kind.clone();
            fields.insert("type".to_owned(), kind);
        }
    }
    if let Some(Value::Array(choices)) = fields.get_mut("oneOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            fields.remove("oneOf");
            fields.extend(only);
        }
    }
    schema
}

fn problem() -> Value {
    let codes: Vec<&str> = PROBLEMS.iter().map(|(code, ..)| *code).collect();
    json!({
        "type": "object",
        "description": "Why a request was not carried out, RFC 9457.",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference", "maxLength": 100},
            "title": {"type": "string", "maxLength": 100},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {
                "type": "string",
                "maxLength": SENTENCE_LONGEST,
                "description": "What is wrong with this request, for a person.",
            },
            "code": {"type": "string", "enum": codes, "description": "For a program."},
            "request_id": {"type": "string", "format": "uuid", "description": "Leads to the cause in the node's log."},
        },
    })
}
