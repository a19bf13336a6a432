//! The API's reference, from the same document that programs read.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, http::StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::page;
use crate::{
    problem::{PROBLEMS, Problem},
    worker::Request,
};

#[derive(Serialize)]
struct DocsView {
    version: String,
    groups: Vec<GroupView>,
    schemas: Vec<SchemaView>,
}

#[derive(Serialize)]
struct GroupView {
    name: String,
    operations: Vec<OperationView>,
}

#[derive(Serialize)]
struct OperationView {
    id: String,
    method: String,
    path: String,
    summary: String,
    description: String,
    access: String,
    parameters: Vec<FieldView>,
    body: Vec<FieldView>,
    body_type: Option<String>,
    status: String,
    answer: Option<String>,
}

#[derive(Serialize)]
struct FieldView {
    name: String,
    place: String,
    shape: String,
    required: bool,
    description: String,
}

#[derive(Serialize)]
struct SchemaView {
    name: String,
    description: String,
    shape: String,
    fields: Vec<FieldView>,
}

pub(crate) async fn docs(request: Request) -> Result<HttpResponse, Problem> {
    let document = &request.worker.shared.document().value;
    let mut groups: BTreeMap<String, Vec<OperationView>> = BTreeMap::new();
    let paths = document.pointer("/paths").and_then(Value::as_object);
    for (path, methods) in paths.into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let group = operation.pointer("/tags/0").map(text).unwrap_or_default();
            groups.entry(group).or_default().push(view(path, method, operation));
        }
    }
    let schemas = document.pointer("/components/schemas").and_then(Value::as_object);
    let view = DocsView {
        version: document.pointer("/info/version").map(text).unwrap_or_default(),
        groups: groups.into_iter().map(|(name, operations)| GroupView { name, operations }).collect(),
        schemas: schemas
            .into_iter()
            .flatten()
            .map(|(name, schema)| SchemaView {
                name: name.clone(),
                description: described(schema),
                shape: shape(schema),
                fields: fields(schema, ""),
            })
            .collect(),
    };
    page(&request.worker, StatusCode::OK, "docs.html", &view)
}

fn view(path: &str, method: &str, operation: &Value) -> OperationView {
    let content =
        operation.pointer("/requestBody/content").and_then(Value::as_object).and_then(|all| all.iter().next());
    let answers = operation.pointer("/responses").and_then(Value::as_object);
    let answer = answers.into_iter().flatten().find(|(status, _)| status.starts_with('2'));
    let answer_content = answer.and_then(|(_, answer)| answer.pointer("/content")?.as_object()?.values().next());
    let access = match (operation.get("x-permission"), operation.get("security")) {
        (Some(permission), _) => text(permission),
        (None, Some(_)) => "public".to_owned(),
        (None, None) => "signed in".to_owned(),
    };
    OperationView {
        id: operation.get("operationId").map(text).unwrap_or_default(),
        method: method.to_ascii_uppercase(),
        path: path.to_owned(),
        summary: operation.get("summary").map(text).unwrap_or_default(),
        description: described(operation),
        access,
        parameters: parameters(operation),
        body: content.map(|(_, body)| fields(body.get("schema").unwrap_or(body), "body")).unwrap_or_default(),
        body_type: content.map(|(media, _)| media.clone()),
        status: answer.map(|(status, _)| status.clone()).unwrap_or_default(),
        answer: answer_content.and_then(|content| content.get("schema")).map(shape),
    }
}

fn parameters(operation: &Value) -> Vec<FieldView> {
    let all = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
    let field = |parameter: &Value| FieldView {
        name: parameter.get("name").map(text).unwrap_or_default(),
        place: parameter.get("in").map(text).unwrap_or_default(),
        shape: parameter.get("schema").map(shape).unwrap_or_default(),
        required: parameter.get("required").and_then(Value::as_bool).unwrap_or_default(),
        description: described(parameter),
    };
    // The same header of every operation is told once, above them.
    all.filter(|parameter| parameter.get("name").map(text).as_deref() != Some("Callboard-Organization"))
        .map(field)
        .collect()
}

fn fields(schema: &Value, place: &str) -> Vec<FieldView> {
    let required: Vec<String> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().map(text).collect();
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let field = |(name, property): (&String, &Value)| FieldView {
        name: name.clone(),
        place: place.to_owned(),
        shape: shape(property),
        required: required.contains(name),
        description: described(property),
    };
    properties.map(field).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn described(value: &Value) -> String {
    value.get("description").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A type in a few words: `string (uuid)`, `Project[]`, `"a" | "b"`.
fn shape(schema: &Value) -> String {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        return reference.rsplit('/').next().unwrap_or_default().to_owned();
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.iter().map(Value::to_string).collect::<Vec<_>>().join(" | ");
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(choices) = schema.get(key).and_then(Value::as_array) {
            return choices.iter().map(shape).collect::<Vec<_>>().join(" | ");
        }
    }
    if let Some(items) = schema.get("items") {
        return format!("{}[]", shape(items));
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().map(text).collect::<Vec<_>>().join(" | "),
        Some(kind) => text(kind),
        None => return "any".to_owned(),
    };
    if kind == "object"
        && let Some(properties) = schema.get("properties").and_then(Value::as_object)
    {
        let fields: Vec<String> = properties.iter().map(|(name, field)| format!("{name}: {}", shape(field))).collect();
        return format!("{{ {} }}", fields.join(", "));
    }
    if kind == "object"
        && let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object())
    {
        return format!("map of {}", shape(values));
    }
    match schema.get("format").and_then(Value::as_str) {
        Some(format) if !format.starts_with("int") => format!("{kind} ({format})"),
        _ => kind,
    }
}

#[derive(Serialize)]
struct ProblemsView {
    problems: Vec<KindView>,
}

#[derive(Serialize)]
struct KindView {
    code: &'static str,
    status: u16,
    title: &'static str,
    advice: &'static str,
}

/// What every error means, and what to do.
pub(crate) async fn problems(request: Request) -> Result<HttpResponse, Problem> {
    let kind = |&(code, status, title, advice): &(&'static str, u16, &'static str, &'static str)| KindView {
        code,
        status,
        title,
        advice,
    };
    let view = ProblemsView { problems: PROBLEMS.iter().map(kind).collect() };
    page(&request.worker, StatusCode::OK, "problems.html", &view)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_type_is_told_in_a_few_words() {
        assert_eq!(shape(&json!({"type": "string", "format": "uuid"})), "string (uuid)");
        assert_eq!(shape(&json!({"type": ["string", "null"]})), "string | null");
        assert_eq!(shape(&json!({"type": "array", "items": {"$ref": "#/components/schemas/Project"}})), "Project[]");
        assert_eq!(shape(&json!({"type": "string", "enum": ["a", "b"]})), "\"a\" | \"b\"");
        assert_eq!(shape(&json!({"oneOf": [{"type": "null"}, {"$ref": "#/x/Y"}]})), "null | Y");
    }
}
