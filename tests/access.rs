//! Every route of the API, as its own description lists them: nobody passes without a session, and another tenant's
//! things are not there.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, App, Node, answered};

/// What answers without credentials. This list only ever gets shorter.
const PUBLIC: &[&str] = &["POST /auth/register", "POST /auth/login", "POST /auth/refresh"];

/// Method and path below `/api/v1`, with the operation.
fn routes(document: &Value) -> Vec<(Method, String, Value)> {
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(path) = path.strip_prefix("/api/v1") else { continue };
        for (method, operation) in item.as_object().unwrap() {
            if let Ok(method) = method.to_uppercase().parse::<Method>()
                && ["get", "post", "put", "patch", "delete"].contains(&method.as_str().to_lowercase().as_str())
            {
                routes.push((method, path.to_owned(), operation.clone()));
            }
        }
    }
    assert!(routes.len() > 25, "the description lists {} routes", routes.len());
    routes
}

/// A path with a value for each of its parameters.
fn filled(path: &str, value: impl Fn(&str) -> String) -> String {
    let fill = |part: &str| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        None => part.to_owned(),
        Some(name) => value(name),
    };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

/// A value of nothing that is there.
fn nothing(parameter: &str) -> String {
    if parameter.ends_with("_id") { uuid::Uuid::now_v7().to_string() } else { "deploy".to_owned() }
}

/// What the parameters of paths below these are of: the platform, which refuses a tenant whatever the value.
const OF_PLATFORM: &[&str] = &["/cluster/", "/dead-letters/", "/sagas/"];

/// Something that a tenant has, and the parameter that stands for it in paths which begin with this.
struct Row {
    parameter: &'static str,
    below: &'static str,
    value: String,
}

/// One row for each parameter of a path, made through the API as a tenant makes it. A domain with a parameter of its own
/// adds how its row comes to be.
async fn rows(owner: &Api, app: &App<'_>) -> Vec<Row> {
    let project = owner.create_project("shop").await;
    owner.put(&format!("/projects/{project}/env"), json!({ "variables": [{ "name": "A", "value": "1" }] })).await.ok();
    let deployment = owner.deploy_archive(&project, app.packed()).await.ok();
    let deployment = deployment["id"].as_str().unwrap().to_owned();
    answered("the app serves", || async {
        let deployment = owner.look(&format!("/deployments/{deployment}")).await?;
        Ok((deployment["status"] == "completed").then_some(()))
    })
    .await;
    let me = owner.get("/auth/whoami").await.ok();
    let key = owner.post("/auth/api-keys", json!({ "name": "k", "scopes": ["project:read"] })).await.ok();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let row = |parameter, below, value| Row { parameter, below, value };
    vec![
        row("project_id", "/projects/", project),
        row("name", "/projects/{project_id}/env/", "A".to_owned()),
        row("deployment_id", "/deployments/", deployment),
        row("organization_id", "/organizations/", text(&me["organization_id"])),
        row("session_id", "/auth/sessions/", text(&me["session_id"])),
        row("api_key_id", "/auth/api-keys/", text(&key["id"])),
    ]
}

/// The value of a parameter of this path.
fn value_of(rows: &[Row], path: &str, parameter: &str) -> String {
    if OF_PLATFORM.iter().any(|below| path.starts_with(below)) {
        return nothing(parameter);
    }
    let row = rows.iter().find(|row| row.parameter == parameter && path.starts_with(row.below));
    let Some(row) = row else {
        panic!("nobody knows how to make a row for {{{parameter}}} of {path}: add it to `rows` in tests/access.rs")
    };
    row.value.clone()
}

#[tokio::test]
async fn every_route_refuses_a_caller_without_a_session() {
    let node = Node::start().await;
    let anonymous = node.anonymous();
    for (method, path, _) in routes(&anonymous.get("/openapi.json").await.ok()) {
        let label = format!("{method} {path}");
        if PUBLIC.contains(&label.as_str()) || path == "/openapi.json" {
            continue;
        }
        let answer = anonymous.send(anonymous.request(method, &filled(&path, nothing)).json(&json!({}))).await;
        assert_eq!(answer.status, 401, "{label}: {}", answer.text);
        assert_eq!(answer.body["code"], "unauthenticated", "{label}");
    }
    node.finish().await;
}

/// A value that a schema of the API's description accepts: only what is required, and of that the least.
fn example(schema: &Value, document: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return example(document.pointer(reference.trim_start_matches('#')).unwrap(), document);
    }
    if let Some(choices) = ["oneOf", "anyOf", "enum"].iter().find_map(|choices| schema[*choices].as_array()) {
        let is_value = schema["enum"].is_array();
        return if is_value { choices[0].clone() } else { example(&choices[0], document) };
    }
    let at_least = |rule: &str, otherwise: u64| schema[rule].as_u64().unwrap_or(otherwise);
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|name| (name, example(&schema["properties"][name], document))).collect()
        }
        Some("array") => (0..at_least("minItems", 0)).map(|_| example(&schema["items"], document)).collect(),
        Some("string") if schema["format"] == "uuid" => json!(uuid::Uuid::now_v7()),
        Some("string") => json!("a".repeat(at_least("minLength", 1) as usize)),
        Some("integer" | "number") => json!(at_least("minimum", 1)),
        Some("boolean") => json!(false),
        _ => Value::Null,
    }
}

/// A body that every rule accepts, so that the answer tells about the id and nothing else.
fn body(method: &Method, path: &str, operation: &Value, document: &Value) -> Value {
    match (method.as_str(), path) {
        (_, "/projects/{project_id}/deployments") => {
            json!({ "source": { "archive": { "source_id": uuid::Uuid::now_v7() } } })
        }
        ("PATCH", "/projects/{project_id}/env") => json!({ "remove": ["A"] }),
        (_, "/projects/{project_id}/env") => json!({ "variables": [{ "name": "A", "value": "1" }] }),
        (_, "/projects/{project_id}/build-config") => json!({ "config": {} }),
        (_, "/projects/{project_id}/scale") => json!({ "processes": { "web": 1 } }),
        _ => match &operation["requestBody"]["content"]["application/json"]["schema"] {
            Value::Null => json!({}),
            schema => example(schema, document),
        },
    }
}

#[tokio::test]
async fn another_tenants_things_are_not_there() {
    let node = Node::start().await;
    let owner = node.user("owner").await;
    let app = App::web(&node, "shop", "one");
    let rows = rows(&owner, &app).await;
    let stranger = node.user("stranger").await;
    let document = stranger.get("/openapi.json").await.ok();
    let with_rows: Vec<_> = routes(&document).into_iter().filter(|(_, path, _)| path.contains('{')).collect();
    assert!(with_rows.len() > 15, "{} routes have a parameter", with_rows.len());
    for (method, path, operation) in &with_rows {
        let filled = filled(path, |parameter| value_of(&rows, path, parameter));
        let request = stranger.request(method.clone(), &filled);
        let request = match path.ends_with("/sources") {
            true => request.header("Content-Type", "application/gzip").body(vec![0_u8; 16]),
            false => request.json(&body(method, path, operation, &document)),
        };
        let answer = stranger.send(request).await;
        let of_platform = OF_PLATFORM.iter().any(|below| path.starts_with(below));
        let expected = if of_platform { 403 } else { 404 };
        assert_eq!(answer.status, expected, "{method} {path}: {}", answer.text);
    }
    // The owner finds each of them, as if nobody else had asked.
    for (_, path, _) in with_rows.iter().filter(|(method, ..)| method == Method::GET) {
        if !OF_PLATFORM.iter().any(|below| path.starts_with(below)) {
            owner.get(&filled(path, |parameter| value_of(&rows, path, parameter))).await.ok();
        }
    }
    let project = value_of(&rows, "/projects/", "project_id");
    for (list, parameter, below) in [
        ("/auth/sessions", "session_id", "/auth/sessions/"),
        ("/auth/api-keys", "api_key_id", "/auth/api-keys/"),
        (&format!("/projects/{project}/env"), "name", "/projects/{project_id}/env/"),
    ] {
        let listed = owner.get(list).await;
        let value = value_of(&rows, below, parameter);
        assert!(listed.text.contains(&format!("\"{value}\"")), "{list}: {}", listed.text);
    }
    for topic in ["project", "logs"] {
        let request = stranger.request(Method::GET, &format!("/live?topics={topic}:{project}"));
        let answer = stranger.send(request.header("Accept", "text/event-stream")).await;
        assert_eq!(answer.status, 404, "{topic}: {}", answer.text);
    }
    assert_eq!(stranger.get("/projects").await.ok()["items"], json!([]));
    assert_eq!(owner.get(&format!("/projects/{project}")).await.ok()["name"], "shop");
    assert_eq!(app.version().await, "one");
    node.finish().await;
}

#[tokio::test]
async fn a_key_can_do_no_more_than_it_was_given() {
    let node = Node::start().await;
    let owner = node.user("owner").await;
    let project = owner.create_project("shop").await;
    let key = owner.post("/auth/api-keys", json!({ "name": "reader", "scopes": ["project:read"] })).await.ok();
    let reader = owner.with_token(key["secret"].as_str().unwrap());
    reader.get(&format!("/projects/{project}")).await.ok();
    assert_eq!(reader.post("/projects", json!({ "name": "x" })).await.refused(403)["code"], "forbidden");
    let more = json!({ "name": "more", "scopes": ["project:write"] });
    assert!([403, 400].contains(&reader.post("/auth/api-keys", more).await.status.as_u16()));
    // Of every domain, and of what is its owner's own.
    let key_of_reads = owner.post("/auth/api-keys", json!({ "name": "reads", "scopes": ["*:read"] })).await.ok();
    let reads = owner.with_token(key_of_reads["secret"].as_str().unwrap());
    for path in ["/projects", "/organizations", "/auth/sessions", "/auth/api-keys"] {
        reads.get(path).await.ok();
    }
    for (path, permission) in [
        ("/projects", "project:write"),
        ("/organizations", "organization:write"),
        ("/auth/logout-all", "session:write"),
    ] {
        let refused = reads.post(path, json!({ "name": "other" })).await.refused(403);
        assert!(refused["detail"].as_str().unwrap().contains(permission), "{path}: {refused}");
    }
    reader.get("/organizations").await.refused(403);
    reader.get("/auth/sessions").await.refused(403);
    owner.delete(&format!("/auth/api-keys/{}", key["id"].as_str().unwrap())).await.ok();
    reader.get(&format!("/projects/{project}")).await.refused(401);
    node.finish().await;
}

/// Answers what it could get of the node that runs it. Landlock's system call tells whether the kernel can hide it.
const SPY: &str = r#"
import ctypes, json, os
from http.server import BaseHTTPRequestHandler, HTTPServer

def tried(what):
    try:
        return bool(what())
    except OSError:
        return False

def spy(outside, node):
    here = os.getcwd()
    data = here.split("/deploy/")[0]
    return {
        "data": data,
        "user": os.getuid(),
        "landlock": ctypes.CDLL(None).syscall(444, None, 0, 1),
        "key": tried(lambda: open(f"{data}/master.key").read()),
        "client": tried(lambda: open(f"{data}/cli.json").read()),
        "databases": tried(lambda: os.listdir(f"{data}/databases")),
        "others": tried(lambda: os.listdir(os.path.dirname(here))),
        "variables": tried(lambda: open(f"/proc/{node}/environ").read()),
        "memory": tried(lambda: open(f"/proc/{node}/mem", "rb")),
        "descriptors": tried(lambda: os.readlink(f"/proc/{node}/fd/0")),
        "root": tried(lambda: os.listdir(f"/proc/{node}/root{outside}/secrets")),
        "secret": tried(lambda: open(f"{outside}/secrets/token").read()),
        "secrets": tried(lambda: os.listdir(f"{outside}/secrets")),
        "beside": tried(lambda: open(f"{outside}/secrets/other").read()),
        "configuration": tried(lambda: open(f"{outside}/callboard.toml").read()),
        "unrelated": tried(lambda: open(f"{outside}/folder/file").read()),
        "own": tried(lambda: open("own", "w").write("x") and os.listdir(here)),
        "home": tried(lambda: open(os.path.expanduser("~/own"), "w").write("x")),
    }

# The node has started this program's parent, which is its reaper.
node = open(f"/proc/{os.getppid()}/stat").read().rsplit(") ")[1].split()[1]

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(spy(os.environ["OUTSIDE"], node)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// Files outside of the data folder that anybody may read, so that only the kernel can hide them: a secret and one
/// beside it, a configuration with a secret in it, and a file that has nothing to do with the node.
struct Outside(tempfile::TempDir);

impl Outside {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for inner in ["secrets", "folder"] {
            fs::create_dir(folder.path().join(inner)).unwrap();
        }
        let key = "cluster_key = \"0123456789abcdef0123456789abcdef\"";
        let files = [("secrets/token", TOKEN), ("secrets/other", "x"), ("callboard.toml", key), ("folder/file", "x")];
        for (file, text) in files {
            fs::write(folder.path().join(file), text).unwrap();
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().canonicalize().unwrap().join(name).display().to_string()
    }
}

const TOKEN: &str = "a token of thirty characters..";

/// Has a node with these variables run the spy, and checks what it got.
async fn spied(variables: &[(&str, &str)]) -> Value {
    let outside = Outside::make();
    let (token, config) = (outside.path("secrets/token"), outside.path("callboard.toml"));
    let mut told = vec![("CALLBOARD_METRICS_TOKEN_FILE", token.as_str()), ("CALLBOARD_CONFIG", config.as_str())];
    told.extend(variables);
    let node = Node::start_with(&["--no-sample"], &told).await;
    let app = App::new(&node, "spy", &[("app.py", SPY), ("Procfile", "web: exec python3 app.py\n")]);
    node.cli_json(&["create", "spy"]).await;
    let variable = format!("OUTSIDE={}", outside.path("").trim_end_matches('/'));
    node.cli_json(&["env", "set", &variable, "--plain", "--app", "spy"]).await;
    app.deploy().await;
    let got: Value = serde_json::from_str(&app.text("/").await).unwrap();
    // Of several nodes, of the one that runs it.
    let data = Path::new(got["data"].as_str().unwrap());
    assert!(data.join("master.key").exists() && data.join("cli.json").exists(), "{got}");
    for own in ["own", "home", "unrelated"] {
        assert_eq!(got[own], true, "{own}: {got}");
    }
    if got["landlock"].as_i64() < Some(2) {
        eprintln!("this kernel can't hide a folder; nothing more is tested");
    } else {
        let of_node = ["key", "client", "databases", "others", "variables", "memory", "descriptors", "root"];
        let elsewhere = ["secret", "secrets", "beside", "configuration"];
        for hidden in of_node.iter().chain(&elsewhere) {
            assert_eq!(got[hidden], false, "{hidden}: {got}");
        }
    }
    node.finish().await;
    got
}

#[tokio::test]
async fn an_app_gets_nothing_of_its_node_and_keeps_what_is_its_own() {
    spied(&[]).await;
}

/// As in a container, where the node is not root and its apps are nobody else.
#[tokio::test]
async fn an_app_that_runs_as_the_nodes_own_user_gets_nothing_of_it_either() {
    let is_root = nix::unistd::geteuid().is_root();
    let variables: &[_] = if is_root { &[("CALLBOARD_RUN_AS", "0:0")] } else { &[] };
    let got = spied(variables).await;
    assert_eq!(got["user"].as_u64(), Some(nix::unistd::geteuid().as_raw().into()), "{got}");
}
