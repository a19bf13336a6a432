use serde_json::{Value, json};

use super::document;

fn the_document() -> Value {
    document(&crate::routes::all())
}

/// Every operation, with a name for failure messages.
fn operations(document: &Value) -> impl Iterator<Item = (String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
    })
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    let document = the_document();
    let text = document.to_string();
    for pointer in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    assert!(!text.contains("/health"), "probes are not part of the API");
}

#[test]
fn fields_are_where_the_gateway_reads_them() {
    let document = the_document();
    let update = &document["paths"]["/api/v1/projects/{project_id}"]["patch"];
    let body = &update["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), ["description"]);
    let names: Vec<_> = update["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"project_id") && names.contains(&"If-Match"), "{names:?}");
    let list = &document["paths"]["/api/v1/projects"]["get"]["parameters"];
    let cursor = list.as_array().unwrap().iter().find(|p| p["name"] == "cursor" && p["in"] == "query").unwrap();
    assert_eq!(cursor["schema"]["$ref"], "#/components/schemas/Cursor", "absent, and never null");
    assert!(!cursor["description"].as_str().unwrap().is_empty());
    assert_eq!(document["paths"]["/api/v1/projects"]["post"]["x-permission"], "project:write");
}

#[test]
fn what_a_request_holds_is_closed_however_deep_it_is() {
    let document = the_document();
    let schemas = &document["components"]["schemas"];
    for closed in [&schemas["BuildConfig"], &schemas["NewVariable"]] {
        assert_eq!(closed["additionalProperties"], false, "{closed}");
    }
    let source = schemas["DeploymentSource"]["oneOf"].as_array().unwrap();
    for variant in source {
        let (_, inner) = variant["properties"].as_object().unwrap().iter().next().unwrap();
        assert_eq!((&variant["additionalProperties"], &inner["additionalProperties"]), (&json!(false), &json!(false)));
    }
    assert_eq!(schemas["Project"].get("additionalProperties"), None, "an answer may grow");
}

/// Unbounded parts of a schema, by path.
fn unbounded(at: &str, schema: &Value, found: &mut Vec<String>) {
    let is = |kind: &str| match &schema["type"] {
        Value::String(own) => own == kind,
        Value::Array(own) => own.iter().any(|own| own == kind),
        _ => false,
    };
    let has = |key: &str| schema.get(key).is_some();
    if is("string") && !["enum", "const", "format", "maxLength"].into_iter().any(has) {
        found.push(format!("{at}: a text of any length"));
    }
    if (is("integer") || is("number")) && !(has("minimum") && (has("maximum") || has("format"))) {
        found.push(format!("{at}: a number of any size"));
    }
    if is("array") && !has("maxItems") {
        found.push(format!("{at}: a list of any length"));
    }
    if has("additionalProperties") && schema["additionalProperties"].is_object() && !has("maxProperties") {
        found.push(format!("{at}: a map of any size"));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        unbounded(&format!("{at}.{name}"), property, found);
    }
    for key in ["items", "additionalProperties", "propertyNames"] {
        if schema[key].is_object() {
            unbounded(&format!("{at}.{key}"), &schema[key], found);
        }
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        for (index, part) in schema[key].as_array().into_iter().flatten().enumerate() {
            unbounded(&format!("{at}.{key}[{index}]"), part, found);
        }
    }
}

#[test]
fn every_text_number_and_list_has_its_bound() {
    let document = the_document();
    let mut found = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        unbounded(name, schema, &mut found);
    }
    for (name, header) in document["components"]["headers"].as_object().unwrap() {
        unbounded(name, &header["schema"], &mut found);
    }
    for (name, operation) in operations(&document) {
        for parameter in operation["parameters"].as_array().unwrap() {
            unbounded(&format!("{name} {}", parameter["name"]), &parameter["schema"], &mut found);
        }
        let responses = operation["responses"].as_object().unwrap().values();
        for part in responses.chain([&operation["requestBody"]]) {
            for content in part["content"].as_object().into_iter().flatten().map(|(_, content)| content) {
                unbounded(&name, &content["schema"], &mut found);
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_is_unbounded_would_be_found() {
    let mut found = Vec::new();
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "string"}, "b": {"type": ["integer", "null"], "format": "int64"}, "c": {"type": "array", "items": {"type": "string"}},
        "d": {"oneOf": [{"type": "null"}, {"type": "string"}]}, "e": {"type": "object", "additionalProperties": {"type": "boolean"}},
    }});
    unbounded("x", &schema, &mut found);
    assert_eq!(found.len(), 6, "{found:?}");
}

#[test]
fn every_operation_tells_every_status_that_it_can_answer() {
    let document = the_document();
    let mut walked = 0;
    for (name, operation) in operations(&document) {
        let responses = operation["responses"].as_object().unwrap();
        let has = |status: &str| responses.contains_key(status);
        assert!(responses.keys().any(|status| status.starts_with('2')), "{name}");
        assert!(["400", "429", "500", "503", "504"].into_iter().all(has), "{name}: {responses:?}");
        let public = operation["security"] == json!([]);
        assert!(public || ["401", "403", "404"].into_iter().all(has), "{name}");
        let has_body = !name.starts_with("get") && !name.starts_with("delete");
        assert_eq!(has("415"), has_body, "{name}");
        assert!(!has("default"), "{name}: what is not listed can't be answered");
        walked += 1;
    }
    assert!(walked > 35, "{walked}");
    let statuses = |method: &str, path: &str| {
        let responses = document["paths"][format!("/api/v1{path}")][method]["responses"].as_object().unwrap();
        responses.keys().map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(statuses("post", "/auth/login"), "200 400 401 403 404 408 409 413 415 429 500 503 504");
    assert_eq!(statuses("get", "/projects/{project_id}"), "200 304 400 401 403 404 409 412 429 500 503 504");
    assert_eq!(
        statuses("post", "/projects/{project_id}/sources"),
        "201 400 401 403 404 408 409 412 413 415 429 500 503 504"
    );
    assert!(statuses("delete", "/projects/{project_id}").starts_with("202 204 400"));
    let accepted = &document["paths"]["/api/v1/projects/{project_id}"]["delete"]["responses"]["202"];
    assert_eq!(accepted["content"]["application/json"]["schema"]["$ref"], "#/components/schemas/Project");
    assert_eq!(accepted["headers"]["Location"]["$ref"], "#/components/headers/Location");
    assert!(statuses("get", "/live").starts_with("101 200 400"));
}

#[test]
fn what_is_made_leads_to_what_can_be_done_with_it() {
    let document = the_document();
    let links = |path: &str| document["paths"][format!("/api/v1{path}")]["post"]["responses"]["201"]["links"].clone();
    let made = links("/projects");
    for operation in ["project.get", "project.update", "project.delete"] {
        let link = json!({"operationId": operation, "parameters": {"project_id": "$response.body#/id"}});
        assert_eq!(made[operation], link, "{made}");
    }
    assert_eq!(links("/organizations")["organization.get"]["parameters"]["organization_id"], "$response.body#/id");
    assert_eq!(links("/auth/api-keys")["auth.revoke_api_key"]["parameters"]["api_key_id"], "$response.body#/id");
    let deployment = links("/projects/{project_id}/deployments");
    assert_eq!(deployment["deploy.get_status"]["parameters"]["deployment_id"], "$response.body#/id");
    assert_eq!(deployment["project.get"]["parameters"]["project_id"], "$response.body#/project_id");
    assert_eq!(made["deploy.create"]["parameters"]["project_id"], "$response.body#/id");
}
