//! What stands between clients and apps, judged by curl and by raw sockets.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};

use crate::harness::{App, Node};

/// An app that says nothing for a minute at `/silent`, and after its first event at `/stream`. `/began` and `/left` tell of
/// which of them requests have come, and of which the connection was closed meanwhile.
const SILENT: &str = r#"
import os, select, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

left = []
began = []

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def wait(self):
        began.append(self.path)
        ready, _, _ = select.select([self.connection], [], [], 60)
        if ready:
            left.append(self.path)
        self.close_connection = True

    def do_HEAD(self):
        self.answer("")

    def do_GET(self):
        if self.path == "/silent":
            return self.wait()
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"9\r\ndata: 1\n\n\r\n")
            return self.wait()
        if self.path == "/late":
            time.sleep(1)
        self.answer({"/left": ",".join(left), "/began": ",".join(began)}.get(self.path, f"this is {self.path}"))

    def answer(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

async fn silent(node: &Node) -> App<'_> {
    let app = App::new(node, "silent", &[("Procfile", "web: python3 app.py\n"), ("app.py", SILENT)]);
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
