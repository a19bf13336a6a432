//! Links: operations that take an id in an answer.
//!
//! The type of an id shows its noun. So an operation whose path takes one such id can follow each answer that has one.

use serde_json::{Map, Value, json};

/// An operation on one id.
struct ById {
    operation: String,
    parameter: String,
    /// The reference to the type of the id.
    kind: String,
}

/// Adds links to the answers of every operation that changes something.
pub(super) fn add(document: &mut Value) {
    let Some(paths) = document.get("paths").and_then(Value::as_object) else { return };
    let all =
        || paths.iter().flat_map(|(path, methods)| methods.as_object().into_iter().flatten().map(move |m| (path, m)));
    let by_id: Vec<ById> = all().filter_map(|(_, (_, operation))| by_id(operation)).collect();
    let mut links = Vec::new();
    for (path, (method, operation)) in all().filter(|(_, (method, _))| *method != "get") {
        for status in ["200", "201"] {
            let schema = operation.pointer(&format!("/responses/{status}/content/application~1json/schema"));
            let Some(schema) = schema else { continue };
            let found = of(&ids(document, schema), &by_id);
            if !found.is_empty() {
                links.push((path.clone(), method.clone(), status, found));
            }
        }
    }
    for (path, method, status, found) in links {
        let response = document
            .get_mut("paths")
            .and_then(|paths| paths.get_mut(&path)?.get_mut(&method)?.get_mut("responses")?.get_mut(status));
        if let Some(response) = response.and_then(Value::as_object_mut) {
            response.insert("links".to_owned(), Value::Object(found));
        }
    }
}

fn by_id(operation: &Value) -> Option<ById> {
    let parameters = operation.get("parameters")?.as_array()?;
    let mut in_path = parameters.iter().filter(|parameter| parameter.get("in").is_some_and(|place| place == "path"));
    let parameter = in_path.next()?;
    if in_path.next().is_some() {
        return None;
    }
    Some(ById {
        operation: operation.get("operationId")?.as_str()?.to_owned(),
        parameter: parameter.get("name")?.as_str()?.to_owned(),
        kind: kind(parameter.get("schema")?)?,
    })
}

fn kind(schema: &Value) -> Option<String> {
    schema.get("$ref")?.as_str().map(str::to_owned)
}

/// The properties of an object with a named type, and that type.
fn ids(document: &Value, schema: &Value) -> Vec<(String, String)> {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let named = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        return named.map(|named| ids(document, named)).unwrap_or_default();
    }
    let parts = schema.get("allOf").and_then(Value::as_array).into_iter().flatten();
    let mut found: Vec<_> = parts.flat_map(|part| ids(document, part)).collect();
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    found.extend(properties.filter_map(|(name, schema)| Some((name.clone(), kind(schema)?))));
    found
}

fn of(ids: &[(String, String)], by_id: &[ById]) -> Map<String, Value> {
    let link = |ById { operation, parameter, kind }: &ById| {
        let (name, _) = ids.iter().find(|(_, of)| of == kind)?;
        let link = json!({
            "operationId": operation,
            "parameters": {parameter: format!("$response.body#/{name}")},
        });
        Some((operation.clone(), link))
    };
    by_id.iter().filter_map(link).collect()
}
