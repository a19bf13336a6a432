//! What stands between clients and apps, judged by curl and by raw sockets.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};

use crate::harness::{App, Node};

async fn silent(node: &Node) -> App<'_> {
    let app = App::silent(node, "silent");
    app.deploy().await;
    app
}

/// Waits until the app tells of this path at the other one.
async fn tells(app: &App<'_>, at: &str, path: &str, within: Duration) {
    let told = async {
        while !app.text(at).await.split(',').any(|told| told == path) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(within, told).await.unwrap_or_else(|_| panic!("{path} is not told at {at}"));
}

#[tokio::test]
async fn a_curl_that_leaves_ends_its_request_in_a_silent_app() {
    let node = Node::start().await;
    let app = silent(&node).await;
    for path in ["/silent", "/stream"] {
        let curl = Command::new("curl")
            .args(["--silent", "--no-buffer", "--max-time", "1", "--header"])
            .arg(format!("Host: {}.localhost", app.name))
            .arg(format!("http://127.0.0.1:{}{path}", node.port))
            .kill_on_drop(true)
            .output();
        let (ended, ()) = tokio::join!(curl, tells(&app, "/began", path, Duration::from_secs(10)));
        let ended = ended.expect("curl is installed");
        assert_eq!(ended.status.code(), Some(28), "curl left after a second");
        tells(&app, "/left", path, Duration::from_secs(1)).await;
    }
    node.finish().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_whole_and_a_client_that_ended_its_side_is_answered() {
    let node = Node::start().await;
    let app = silent(&node).await;
    let host = format!("Host: {}.localhost\r\n", app.name);
    let requests =
        format!("GET /a HTTP/1.1\r\n{host}\r\nHEAD /b HTTP/1.1\r\n{host}\r\nGET /late HTTP/1.1\r\n{host}\r\n");
    let mut socket = TcpStream::connect(("127.0.0.1", node.port)).await.unwrap();
    socket.write_all(requests.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answers = String::new();
    timeout(Duration::from_secs(20), socket.read_to_string(&mut answers)).await.expect("it closes").unwrap();
    let bodies: Vec<&str> = answers
        .split("HTTP/1.1 200 OK\r\n")
        .skip(1)
        .map(|answer| answer.split_once("\r\n\r\n").unwrap().1)
        .map(|body| body.trim_end_matches("HTTP/1.1 100 Continue\r\n\r\n"))
        .collect();
    assert_eq!(bodies, ["this is /a", "", "this is /late"], "{answers}");
    node.finish().await;
}
