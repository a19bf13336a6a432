//! What must not get through, from outside.

use std::io::Write;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{App, Node, answered};

#[tokio::test]
async fn malformed_requests_are_refused_with_problem_details() {
    let node = Node::start().await;
    let user = node.user("ann").await;
    let project = user.create_project("shop").await;
    let raw = async |method: Method, path: &str, body: String| {
        user.send(user.request(method, path).header("Content-Type", "application/json").body(body)).await
    };
    let post = async |path: &str, body: &str| raw(Method::POST, path, body.to_owned()).await;

    assert_eq!(post("/projects", "{").await.refused(400)["code"], "invalid");
    post("/projects", "[]").await.refused(400);
    post("/projects", r#"{"name": 5}"#).await.refused(400);
    post("/projects", r#"{"name": "a", "administrator": true}"#).await.refused(400);
    post("/projects", r#"{"name": "-a"}"#).await.refused(400);
    post("/projects", r#"{"name": "shop"}"#).await.refused(409);
    assert!(post("/projects", &"[".repeat(100_000)).await.status.is_client_error());
    let large = format!(r#"{{"name": "a", "description": "{}"}}"#, "x".repeat(2 * 1024 * 1024));
    assert_eq!(post("/projects", &large).await.refused(413)["code"], "too_large");
    user.get("/projects/not-a-uuid").await.refused(400);
    user.get("/projects?limit=many").await.refused(400);
    user.get("/projects?cursor=x").await.refused(400);
    user.get("/nothing").await.refused(404);
    let path = format!("/projects/{project}/env");
    let put = async |body: Value| raw(Method::PUT, &path, body.to_string()).await;
    put(json!({ "variables": [{ "name": "1A", "value": "x" }] })).await.refused(400);
    put(json!({ "variables": [{ "name": "PORT", "value": "1" }] })).await.refused(400);
    put(json!({ "variables": [{ "name": "A", "value": "a\u{0}b" }] })).await.refused(400);
    post(&format!("/projects/{project}/scale"), r#"{"processes": {"web": 101}}"#).await.refused(400);
    assert_eq!(user.get(&path).await.ok()["variables"], json!([]));
    node.finish().await;
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let node = Node::start().await;
    let user = node.user("ann").await;
    let token = user.token.clone().unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    let head = |json: &str| base64(json.as_bytes());
    let tampered = format!("{}.{}.{}", parts[0], base64(br#"{"sub":"x"}"#), parts[2]);
    for forged in [
        format!("{}.{}.", head(r#"{"alg":"none"}"#), parts[1]),
        format!("{}.{}.{}", head(r#"{"alg":"None","typ":"JWT"}"#), parts[1], parts[2]),
        format!("{}.{}.{}", head(r#"{"alg":"HS256"}"#), parts[1], parts[2]),
        format!("{}.{}.{}", head(r#"{"alg":"RS256","kid":"../../dev/null"}"#), parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        tampered,
        "cb_unknown_secret".to_owned(),
        "x".repeat(60_000),
        String::new(),
    ] {
        let answer = user.with_token(&forged).get("/auth/whoami").await;
        assert!([401, 431, 400].contains(&answer.status.as_u16()), "{forged:.80}: {}", answer.status);
    }
    user.get("/auth/whoami").await.ok();
    node.finish().await;
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(group >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

fn tar_gz(entries: &[(tar::EntryType, &str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (kind, name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        // Written by hand, because the library refuses such names itself.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        if link {
            header.set_link_name_literal(content).unwrap();
        }
        header.set_size(if link { 0 } else { content.len() as u64 });
        header.set_cksum();
        archive.append(&header, if link { &[][..] } else { content.as_bytes() }).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

#[tokio::test]
async fn archives_that_would_leave_their_folder_fail_and_write_nothing() {
    use tar::EntryType::{Block, Link, Regular, Symlink};
    let node = Node::start().await;
    let user = node.user("ann").await;
    let project = user.create_project("shop").await;
    let outside = node.scratch("outside");
    let mark = outside.join("mark").display().to_string();
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![0_u8; 64 * 1024 * 1024]).unwrap();
    let archives = [
        tar_gz(&[(Regular, "../../../../mark", "x")]),
        tar_gz(&[(Regular, &mark, "x")]),
        tar_gz(&[(Symlink, "out", outside.to_str().unwrap()), (Regular, "out/mark", "x")]),
        tar_gz(&[(Link, "index.html", "/etc/passwd")]),
        tar_gz(&[(Symlink, "index.html", "/etc/passwd")]),
        tar_gz(&[(Block, "index.html", "")]),
        bomb.finish().unwrap(),
        b"this is no archive".to_vec(),
        Vec::new(),
    ];
    for (number, archive) in archives.into_iter().enumerate() {
        let begun = user.deploy_archive(&project, archive).await;
        if begun.status.is_client_error() {
            assert!(begun.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{number}: {}", begun.text);
            continue;
        }
        let failed = ended(&user, &begun.ok()).await;
        assert_eq!(failed["status"], "failed", "{number}: {failed}");
        assert!(failed["error"].as_str().is_some_and(|error| error.len() > 10), "{number}: {failed}");
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(user.get(&format!("/projects/{project}/releases")).await.ok()["items"], json!([]));
    node.finish().await;
}

#[tokio::test]
async fn git_urls_that_lead_inside_are_refused() {
    let node = Node::start().await;
    let user = node.user("ann").await;
    let project = user.create_project("shop").await;
    for url in [
        "ext::sh -c 'touch /tmp/x'",
        "--upload-pack=touch /tmp/x",
        "file:///etc",
        "/etc",
        "https://127.0.0.1/x.git",
        "https://2130706433/x.git",
        "https://0x7f.1/x.git",
        "https://[::ffff:127.0.0.1]/x.git",
        "https://169.254.169.254/x.git",
        "https://10.0.0.1/x.git",
        "https://localhost/x.git",
        "https://user:password@127.0.0.1/x.git",
        "ssh://git@127.0.0.1/x.git",
    ] {
        let body = json!({ "source": { "git": { "url": url } } });
        let begun = user.post(&format!("/projects/{project}/deployments"), body).await;
        if begun.status.is_client_error() {
            continue;
        }
        let failed = ended(&user, &begun.ok()).await;
        assert_eq!(failed["status"], "failed", "{url}: {failed}");
    }
    node.finish().await;
}

async fn ended(api: &crate::harness::Api, deployment: &Value) -> Value {
    let path = format!("/deployments/{}", deployment["id"].as_str().unwrap());
    answered("the deployment has ended", || async {
        let deployment = api.look(&path).await?;
        let has_ended = ["completed", "failed", "cancelled"].contains(&deployment["status"].as_str().unwrap());
        Ok(has_ended.then_some(deployment))
    })
    .await
}

#[tokio::test]
async fn a_dockerfile_is_refused_with_the_reason() {
    let node = Node::start().await;
    let app = App::new(&node, "boxed", &[("Dockerfile", "FROM scratch\n")]);
    let ran = node.cli(&["deploy", app.folder.to_str().unwrap(), "--app", "boxed"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("Dockerfile"), "{ran:?}");
    node.finish().await;
}

#[tokio::test]
async fn an_app_that_writes_without_end_hurts_nobody_else() {
    let node = Node::start().await;
    let calm = App::web(&node, "calm", "one");
    calm.deploy().await;
    let flood = "import os, sys, threading\nfrom http.server import *\n\
        threading.Thread(target=lambda: [sys.stdout.write('x' * 1000 + '\\n') for _ in iter(int, 1)], daemon=True).start()\n\
        HTTPServer(('127.0.0.1', int(os.environ['PORT'])), SimpleHTTPRequestHandler).serve_forever()\n";
    let loud = App::new(&node, "loud", &[("Procfile", "web: python3 app.py\n"), ("app.py", flood)]);
    loud.deploy().await;
    for _ in 0..50 {
        assert_eq!(calm.version().await, "one");
    }
    let logs = node.cli_json(&["logs", "--app", "loud", "-n", "10"]).await;
    assert_eq!(logs["items"].as_array().unwrap().len(), 10);
    assert!(folder_size(&node.data()) < 512 * 1024 * 1024);
    node.finish().await;
}

fn folder_size(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => folder_size(&entry.path()),
            _ => entry.metadata().map_or(0, |metadata| metadata.len()),
        })
        .sum()
}
