//! The OpenAPI 3.1 document, from the route table and the messages' own types and doc comments.

use std::collections::BTreeMap;

use callboard_messages::{Access, Operation, Page};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

use crate::{
    problem::PROBLEMS,
    table::{Endpoint, Route},
};

/// What a route's types say of themselves.
pub(crate) struct Docs {
    pub(crate) message: Value,
    pub(crate) reply: Option<Value>,
    pub(crate) schemas: Vec<(String, Value)>,
    /// The media type of the body and of the answer.
    pub(crate) media: (&'static str, &'static str),
}

type Named = Vec<(String, RefOr<Schema>)>;

impl Docs {
    /// Of an operation.
    pub(crate) fn of<M: Operation + ToSchema>() -> Self
    where
        M::Reply: ToSchema,
    {
        Self::new(M::schema(), Some::<&dyn Fn(&mut Named)>(&M::schemas), reply::<M::Reply>())
    }

    /// Of an operation that lists `T`: the derived schema of a page refers to `T` and does not bring it.
    pub(crate) fn of_page<T, M>() -> Self
    where
        T: ToSchema + Serialize + DeserializeOwned + Send + 'static,
        M: Operation<Reply = Page<T>> + ToSchema,
    {
        let mut docs = Self::of::<M>();
        docs.schemas.push((T::name().into_owned(), value(&T::schema())));
        docs
    }

    /// Of an operation that answers what is under way, unless it is done.
    pub(crate) fn of_accepted<T, M>() -> Self
    where
        T: ToSchema + 'static,
        M: Operation<Reply = Option<T>> + ToSchema,
    {
        Self::new(M::schema(), Some::<&dyn Fn(&mut Named)>(&M::schemas), reply::<T>())
    }

    fn new(message: RefOr<Schema>, more: Option<&dyn Fn(&mut Named)>, reply: (Option<Value>, Named)) -> Self {
        let (reply, mut schemas) = reply;
        if let Some(more) = more {
            more(&mut schemas);
        }
        let schemas = schemas.into_iter().map(|(name, schema)| (name, value(&schema))).collect();
        Self { message: value(&message), reply, schemas, media: ("application/json", "application/json") }
    }

    /// Of an endpoint without a message: what it does, and what it answers.
    pub(crate) fn saying<R: ToSchema + 'static>(description: &str) -> Self {
        let mut docs = Self::new(RefOr::T(Schema::default()), None, reply::<R>());
        docs.message = json!({"type": "object", "description": description, "properties": {}});
        docs
    }

    /// With other fields in its path, query or body.
    pub(crate) fn with_fields(mut self, fields: Value, required: &[&str]) -> Self {
        if let Some(message) = self.message.as_object_mut() {
            message.insert("properties".to_owned(), fields);
            message.insert("required".to_owned(), json!(required));
        }
        self
    }

    pub(crate) fn with_media(mut self, body: &'static str, answer: &'static str) -> Self {
        self.media = (body, answer);
        self
    }
}

fn value(schema: &impl serde::Serialize) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

/// The schema of an answer: by name, unless the type is generic or nothing.
fn reply<R: ToSchema + 'static>() -> (Option<Value>, Named) {
    let mut schemas = Named::new();
    if std::any::TypeId::of::<R>() == std::any::TypeId::of::<()>() {
        return (None, schemas);
    }
    R::schemas(&mut schemas);
    if std::any::type_name::<R>().contains('<') {
        return (Some(value(&<R as PartialSchema>::schema())), schemas);
    }
    schemas.push((R::name().into_owned(), R::schema()));
    (Some(reference(&R::name())), schemas)
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

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
    json!({
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
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An access token (JWT) of POST /api/v1/auth/login, or an API key (cb_…).",
                },
            },
        },
    })
}

fn operation(route: &Route, docs: Docs) -> Value {
    let Endpoint { operation, access, if_match, keyed, creates, accepts, .. } = &route.endpoint;
    let text = docs.message.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    let summary = text.split_once(['.', ';', ':']).map_or(text.as_str(), |(first, _)| first).replace('\n', " ");
    let has_body = matches!(route.method.as_str(), "POST" | "PUT" | "PATCH");
    let (mut parameters, body) = split(route, &docs.message, has_body);
    parameters.push(header("Callboard-Organization", "The organization to act for, instead of the token's own"));
    if *if_match {
        parameters.push(header("If-Match", "The ETag that was read; refused with 412 when it has changed"));
    }
    if *keyed && route.method == "POST" {
        parameters
            .push(header("Idempotency-Key", "Makes a retry safe: same key, same request, one effect, same answer"));
    }
    let status = match &docs.reply {
        _ if *creates => "201",
        _ if *accepts => "202",
        None => "204",
        Some(_) => "200",
    };
    let done = json!({"description": "Done"});
    let mut answer = if *accepts {
        json!({"description": "Accepted and under way; Location says where to look"})
    } else {
        done.clone()
    };
    if let (Some(reply), Some(answer)) = (docs.reply, answer.as_object_mut()) {
        answer.insert("content".to_owned(), json!({docs.media.1: {"schema": reply}}));
    }
    let mut described = json!({
        "operationId": operation,
        "tags": [operation.split('.').next()],
        "summary": summary,
        "description": text,
        "parameters": parameters,
        "responses": {
            status: answer,
            "default": {
                "description": "A problem",
                "content": {"application/problem+json": {"schema": reference("Problem")}},
            },
        },
    });
    if *accepts && let Some(responses) = described["responses"].as_object_mut() {
        responses.insert("204".to_owned(), done);
    }
    if let Some(described) = described.as_object_mut() {
        if let Some((schema, required)) = body {
            let content = json!({docs.media.0: {"schema": schema}});
            described.insert("requestBody".to_owned(), json!({"required": required, "content": content}));
        }
        match access {
            Access::Public => drop(described.insert("security".to_owned(), json!([]))),
            Access::Permission(permission) => drop(described.insert("x-permission".to_owned(), json!(permission))),
            Access::Administrator => drop(described.insert("x-permission".to_owned(), json!("administrator"))),
            Access::Authenticated | Access::Internal => {}
        }
    }
    described
}

fn header(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "header", "required": false, "description": description, "schema": {"type": "string"}})
}

/// A message's fields, where they go: the path's, then the query's or the body's.
fn split(route: &Route, message: &Value, has_body: bool) -> (Vec<Value>, Option<(Value, bool)>) {
    let empty = Map::new();
    let properties = message.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required: Vec<&str> =
        message.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut parameters = Vec::new();
    let mut body = Map::new();
    for (name, schema) in properties.iter().filter(|(name, _)| *name != "if_match") {
        let in_path = route.names.contains(&name.as_str());
        if !in_path && has_body {
            body.insert(name.clone(), schema.clone());
            continue;
        }
        parameters.push(json!({
            "name": name,
            "in": if in_path { "path" } else { "query" },
            "required": in_path || required.contains(&name.as_str()),
            "description": schema.get("description").cloned().unwrap_or_default(),
            "schema": schema,
        }));
    }
    if body.contains_key("") {
        // A body that is no JSON object stands under the empty name.
        return (parameters, body.remove("").map(|schema| (schema, true)));
    }
    let required: Vec<&str> = required.into_iter().filter(|name| body.contains_key(*name)).collect();
    let any = !required.is_empty();
    let schema = json!({"type": "object", "properties": body, "required": required, "additionalProperties": false});
    let has_fields = schema.get("properties").and_then(Value::as_object).is_some_and(|fields| !fields.is_empty());
    (parameters, has_fields.then_some((schema, any)))
}

fn problem() -> Value {
    let codes: Vec<&str> = PROBLEMS.iter().map(|(code, ..)| *code).collect();
    json!({
        "type": "object",
        "description": "Why a request was not carried out, RFC 9457.",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What is wrong with this request, for a person."},
            "code": {"type": "string", "enum": codes, "description": "For a program."},
            "request_id": {"type": "string", "format": "uuid", "description": "Leads to the cause in the node's log."},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document = document(&crate::routes::all());
        let text = document.to_string();
        let known = document["components"]["schemas"].as_object().unwrap();
        for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(known.contains_key(name), "{name}");
        }
        assert!(!text.contains("/health"), "probes are not part of the API");
    }

    #[test]
    fn fields_are_where_the_gateway_reads_them() {
        let document = document(&crate::routes::all());
        let update = &document["paths"]["/api/v1/projects/{project_id}"]["patch"];
        let body = &update["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), ["description"]);
        let names: Vec<_> =
            update["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"project_id") && names.contains(&"If-Match"), "{names:?}");
        let list = &document["paths"]["/api/v1/projects"]["get"]["parameters"];
        assert!(list.as_array().unwrap().iter().any(|p| p["name"] == "cursor" && p["in"] == "query"));
        assert_eq!(document["paths"]["/api/v1/projects"]["post"]["x-permission"], "project:write");
        let delete = &document["paths"]["/api/v1/projects/{project_id}"]["delete"]["responses"];
        let mut statuses: Vec<_> = delete.as_object().unwrap().keys().collect();
        statuses.sort();
        assert_eq!(statuses, ["202", "204", "default"]);
        let under_way = &delete["202"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(under_way, "#/components/schemas/Project");
    }
}
