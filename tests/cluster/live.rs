//! What happens on one node is seen on the others while it happens.

use std::time::Duration;

use reqwest::{Method, Response};

use crate::harness::{Api, App, Node};

/// An event of a stream: its id and its data.
#[derive(Debug)]
struct Seen {
    id: String,
    data: String,
}

/// A stream of server-sent events.
struct Stream {
    response: Response,
    read: String,
}

impl Stream {
    async fn open(api: &Api, topic: &str, after: Option<&str>) -> Self {
        let mut request =
            api.request(Method::GET, &format!("/live?topics={topic}")).header("Accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, read: String::new() }
    }

    async fn next(&mut self) -> Seen {
        loop {
            if let Some((block, rest)) = self.read.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let seen = field("id: ").zip(field("data: "));
                self.read = rest.to_owned();
                match seen {
                    Some((id, data)) => return Seen { id, data },
                    None => continue,
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(60), self.response.chunk()).await;
            let chunk = chunk.expect("an event in time").unwrap().expect("the stream goes on");
            self.read.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Reads until an event's data holds this text.
    async fn until(&mut self, text: &str) -> Seen {
        loop {
            let seen = self.next().await;
            if seen.data.contains(text) {
                return seen;
            }
        }
    }
}

/// Says a number each time it is asked.
const COUNTER: &str = r#"
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

count = 0

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        global count
        if self.path == "/count":
            count += 1
            print(f"count {count}.", flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

pub(super) async fn logs_are_followed_on_any_node_and_resumed_on_another(node: &Node) {
    let app = App::new(node, "counter", &[("Procfile", "web: python3 app.py\n"), ("app.py", COUNTER)]);
    app.deploy().await;
    let token = node.operator().token.clone().unwrap();
    let on = |number: usize| Api::new(node.member(number).port, Some(token.clone()));
    let topic = format!("logs:{}", node.operator().project("counter").await);

    // The node that is asked does not host deploy.
    let mut first = Stream::open(&on(0), &topic, None).await;
    app.text("/count").await;
    app.text("/count").await;
    let seen = first.until("count 2.").await;
    drop(first);
    for _ in 0..3 {
        app.text("/count").await;
    }
    let mut second = Stream::open(&on(2), &topic, Some(&seen.id)).await;
    for number in 3..=5 {
        let next = second.until("count").await;
        assert!(next.data.contains(&format!("count {number}.")), "none is missed and none comes twice: {next:?}");
    }
}
