//! Sources, releases and logs in a bucket: a real deployment through an S3 server, and what is said and done when that
//! server can't be used.

use std::time::{Duration, Instant};

use futures_util::stream;
use reqwest::{Body, Method};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::harness::{Answer, Api, App, Node, answered, eventually, get, proxy::Proxy, servers::Moto, visit, within};

const BUCKET: &str = "callboard";
/// How soon a store that answers again takes uploads, and what a busy machine needs beside it.
const BACK: Duration = Duration::from_secs(4);
/// How soon an upload is refused that can't be kept.
const PROMPT: Duration = Duration::from_secs(3);

/// The settings of a node with this server and these keys.
fn environment<'a>(endpoint: &'a str, bucket_url: &'a str, secret: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("CALLBOARD_OBJECTS_URL", bucket_url),
        ("CALLBOARD_OBJECTS_ENDPOINT", endpoint),
        ("CALLBOARD_OBJECTS_ACCESS_KEY", "key-of-the-tests"),
        ("CALLBOARD_OBJECTS_SECRET_KEY", secret),
    ]
}

fn endpoint(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// What is in the bucket, beside the mark by which nodes know their common store.
async fn objects(moto: &Moto) -> Vec<String> {
    let mut objects = moto.objects(BUCKET).await;
    objects.retain(|name| !name.ends_with("store.id"));
    objects
}

#[tokio::test]
async fn an_app_is_deployed_through_a_bucket() {
    let moto = Moto::start().await;
    moto.make_bucket(BUCKET).await;
    let endpoint = endpoint(moto.port());
    let mut node = Node::start_with(&["--no-sample"], &environment(&endpoint, "s3://callboard/team/a", "secret")).await;
    let before = objects(&moto).await;
    assert!(before.is_empty(), "the check at the start is cleared away: {before:?}");
    {
        let app = App::example(&node, "static");
        app.deploy().await;
        app.settle("web", 1).await;
        assert!(app.text("/").await.contains("Callboard"));
    }
    let objects = objects(&moto).await;
    for kind in ["team/a/sources/", "team/a/releases/"] {
        assert!(objects.iter().any(|name| name.starts_with(kind)), "{kind}: {objects:?}");
    }
    assert!(!node.data().join("objects").exists(), "nothing of it is on the node's own disk");
    assert_eq!(moto.unfinished_uploads(BUCKET).await, 0);

    // The release comes from the bucket again.
    node.kill().await;
    node.start_again().await;
    let app = App::example(&node, "static");
    eventually("the app answers after a crash", || async {
        let answer = crate::harness::visit(node.port, &app.name, "/").await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    let log = node.log();
    assert!(!log.contains("key-of-the-tests") && !log.contains("=secret"), "{log}");
    node.finish().await;
}

/// What a node that does not start says, and its exit status.
async fn refused(settings: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = crate::harness::cli::program(folder.path());
    command.args(["dev", "--no-sample", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path().join("node"));
    command.envs(settings.iter().copied());
    let ran = crate::harness::cli::finish(command, "").await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(!ran.err.contains("wrong-secret"), "{ran:?}");
    ran.err
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_named() {
    let moto = Moto::start().await;
    let endpoint = endpoint(moto.port());
    let said = refused(&environment(&endpoint, "s3://nowhere/x", "wrong-secret")).await;
    assert!(said.contains(&format!("{endpoint} has no bucket \"nowhere\"")), "{said}");
    assert!(said.contains("hint: make the bucket"), "{said}");
}

#[tokio::test]
async fn wrong_credentials_are_refused_at_the_start() {
    // After so many requests everybody must have a key that it knows, and it knows none.
    let moto = Moto::start_with(&[("INITIAL_NO_AUTH_ACTION_COUNT", "1")]).await;
    moto.make_bucket(BUCKET).await;
    let endpoint = endpoint(moto.port());
    let said = refused(&environment(&endpoint, "s3://callboard", "wrong-secret")).await;
    assert!(said.contains("does not know these credentials"), "{said}");
    assert!(said.contains("CALLBOARD_OBJECTS_ACCESS_KEY"), "{said}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = endpoint(listener.local_addr().unwrap().port());
    drop(listener);
    let began = Instant::now();
    let said = refused(&environment(&endpoint, "s3://callboard", "wrong-secret")).await;
    assert!(said.contains(&endpoint) && said.contains("must name an S3-compatible server"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_upload_whose_store_goes_away_fails_whole_and_leaves_nothing() {
    let moto = Moto::start().await;
    moto.make_bucket(BUCKET).await;
    let proxy = Proxy::before(moto.port()).await;
    let endpoint = endpoint(proxy.port);
    let node = Node::start_with(&["--no-sample"], &environment(&endpoint, "s3://callboard", "secret")).await;
    let admin = node.admin().await;
    let project = admin.create_project("uploads").await;

    // The first parts arrive; the rest of the body comes when the store has gone.
    let (gone, wait) = oneshot::channel::<()>();
    let part = || Ok::<_, std::io::Error>(vec![7_u8; 6 * 1024 * 1024]);
    let body = stream::unfold((0, Some(wait)), move |(sent, mut wait)| async move {
        if sent == 2 {
            wait.take()?.await.ok()?;
        }
        (sent < 8).then(|| (part(), (sent + 1, wait)))
    });
    let upload = admin
        .request(Method::POST, &format!("/projects/{project}/sources"))
        .header("Content-Type", "application/gzip")
        .timeout(Duration::from_secs(120))
        .body(Body::wrap_stream(body));
    let sending = tokio::spawn({
        let admin = admin.clone();
        async move { admin.send(upload).await }
    });
    eventually("the upload has begun", || async { (moto.unfinished_uploads(BUCKET).await == 1).then_some(()) }).await;
    proxy.cut();
    gone.send(()).unwrap();
    let answer = sending.await.unwrap();
    let problem = answer.refused(503);
    assert!(!problem.to_string().contains("127.0.0.1"), "the client is not told how we are built: {problem}");

    // The node lives, and its next upload, once the store is back, is whole.
    proxy.heal();
    let source =
        within(BACK, "an upload is taken", || async { Some(upload_by(&admin, &project).await.ok()?.ok()) }).await;
    let objects = objects(&moto).await;
    assert_eq!(objects, [format!("sources/{}", source["id"].as_str().unwrap())]);
    node.finish().await;
}

/// A small upload; what refused it.
async fn upload_by(by: &Api, project: &str) -> Result<Answer, Answer> {
    let request = by.request(Method::POST, &format!("/projects/{project}/sources")).body(vec![1_u8; 1024]);
    let answer = by.send(request.header("Content-Type", "application/gzip")).await;
    if answer.status.is_success() { Ok(answer) } else { Err(answer) }
}

/// What `/ready` says: the whole, and of the gateway the part that is away and why.
async fn ready(node: &Node) -> (String, String, String) {
    let ready: Value = get(format!("http://127.0.0.1:{}/ready", node.port)).await.unwrap().json().await.unwrap();
    let all = ready["domains"].as_array().unwrap();
    let gateway = all.iter().find(|of| of["domain"] == "gateway").unwrap_or_else(|| panic!("{ready}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&ready["status"]), text(&gateway["part"]), text(&gateway["reason"]))
}

#[tokio::test]
async fn a_node_whose_store_is_away_says_so_and_takes_no_uploads_until_it_is_back() {
    let moto = Moto::start().await;
    moto.make_bucket(BUCKET).await;
    let proxy = Proxy::before(moto.port()).await;
    let endpoint = endpoint(proxy.port);
    let node = Node::start_with(&["--no-sample"], &environment(&endpoint, "s3://callboard", "secret")).await;
    let admin = node.admin().await;
    let project = admin.create_project("uploads").await;
    eventually("everything is there", || async { (ready(&node).await.0 == "ready").then_some(()) }).await;
    for (fault, sentence) in [(Proxy::cut as fn(&Proxy), "can't be used"), (Proxy::black_hole, "there is no answer")] {
        fault(&proxy);
        let (status, _, reason) = within(Duration::from_secs(15), "the store is missed", || async {
            let said = ready(&node).await;
            (said.1 == "objects").then_some(said)
        })
        .await;
        assert!(reason.contains(&format!("the object store at {endpoint} (bucket \"{BUCKET}\")")), "{reason}");
        assert!(status == "impaired" && reason.contains(sentence), "{status} {reason}");
        let asked = Instant::now();
        let refused = upload_by(&admin, &project).await.unwrap_err();
        let problem = refused.refused(503);
        assert!(problem["code"] == "unavailable" && asked.elapsed() < PROMPT, "{:?}: {problem}", asked.elapsed());
        // Whatever needs no store goes on.
        admin.get(&format!("/projects/{project}/releases")).await.ok();
        let metrics = get(format!("http://127.0.0.1:{}/metrics", node.port)).await.unwrap().text().await.unwrap();
        assert!(metrics.contains("callboard_domain_away{domain=\"gateway\",part=\"objects\"} 1"), "{metrics}");
        let nodes = node.cli(&["nodes"]).await;
        assert!(
            nodes.out.contains("impaired") && nodes.out.contains("the gateway lacks a part: the object store"),
            "{nodes:?}"
        );
        let doctor = node.cli(&["doctor"]).await;
        assert!(!doctor.success() && doctor.out.contains("lacks a part: the object store"), "{doctor:?}");
        proxy.heal();
        within(BACK, "an upload is taken", || async { upload_by(&admin, &project).await.ok() }).await;
        eventually("everything is there", || async { (ready(&node).await.0 == "ready").then_some(()) }).await;
    }
    let log = node.member(0).log();
    let lines =
        |what: &str| log.lines().filter(|line| line.contains("the object store at") && line.contains(what)).count();
    let said = [lines("does not answer; what needs it"), lines("answers again")];
    assert_eq!(said, [2, 2], "an outage is one line when it begins and one when it is over\n{log}");
    node.finish().await;
}

#[tokio::test]
async fn a_store_that_goes_away_is_one_line_of_the_log_whatever_waits_for_it() {
    let moto = Moto::start().await;
    moto.make_bucket(BUCKET).await;
    let proxy = Proxy::before(moto.port()).await;
    let endpoint = endpoint(proxy.port);
    let node = Node::start_with(&["--no-sample"], &environment(&endpoint, "s3://callboard", "secret")).await;
    let apps = ["one", "two", "three"].map(|name| App::web(&node, name, name));
    for app in &apps {
        app.deploy().await;
    }
    let nodes = if node.shared().is_some() { 3 } else { 1 };
    // Of each node, what it says of the store.
    let said = |what: &str| -> Vec<Vec<String>> {
        let is_said = |line: &&str| line.contains("the object store") && line.contains(what);
        (0..nodes).map(|at| node.member(at).log().lines().filter(is_said).map(str::to_owned).collect()).collect()
    };
    proxy.cut();
    // What each of them says is to be stored, and tried again and again.
    for app in &apps {
        drop(visit(node.port, &app.name, "/exit").await);
        answered("it runs again", || async {
            Ok(app.healthy("web").await?.iter().any(|instance| instance["restarts"] == 1).then_some(()))
        })
        .await;
    }
    // Who asks for a log is shown what is on the disk of a node, and by no node's log that this is not all.
    for app in &apps {
        node.cli(&["logs", "--app", &app.name]).await;
    }
    eventually("the store is said to be away", || async { said("is away").concat().first().map(drop) }).await;
    proxy.heal();
    let back = eventually("the store is said to be back", || async {
        let (away, back) = (said("is away"), said("is back"));
        away.iter().zip(&back).all(|(away, back)| away.len() == back.len()).then_some(back.concat())
    })
    .await;
    let failures = |line: &String| -> usize {
        let digits = line.split("failures").nth(1).unwrap().trim_start_matches(|letter: char| !letter.is_ascii_digit());
        digits.split(|letter: char| !letter.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    let failed: usize = back.iter().map(failures).sum();
    assert!(failed >= apps.len(), "{back:?}");
    assert!(said("is away").iter().all(|lines| lines.len() <= 1), "{}", node.log());
    for each in ["storing lines of a log failed", "reading a log from the object store failed"] {
        assert!(!node.log().contains(each), "{}", node.log());
    }
    node.finish().await;
}

#[tokio::test]
async fn an_upload_that_its_client_breaks_off_is_aborted() {
    let moto = Moto::start().await;
    moto.make_bucket(BUCKET).await;
    let endpoint = endpoint(moto.port());
    let node = Node::start_with(&["--no-sample"], &environment(&endpoint, "s3://callboard", "secret")).await;
    let admin = node.admin().await;
    let project = admin.create_project("uploads").await;
    let part = Ok::<_, std::io::Error>(vec![7_u8; 12 * 1024 * 1024]);
    let body = Body::wrap_stream(stream::select(stream::iter([part]), stream::pending()));
    let upload = admin.request(Method::POST, &format!("/projects/{project}/sources")).body(body);
    let upload = upload.header("Content-Type", "application/gzip");
    let sending = tokio::spawn(async move { upload.send().await.map(drop) });
    eventually("the upload has begun", || async { (moto.unfinished_uploads(BUCKET).await == 1).then_some(()) }).await;
    sending.abort();
    eventually("it is aborted", || async { (moto.unfinished_uploads(BUCKET).await == 0).then_some(()) }).await;
    assert!(objects(&moto).await.is_empty());
    node.finish().await;
}
