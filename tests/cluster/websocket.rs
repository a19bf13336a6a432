//! A WebSocket tells on one node what happens on another, and its reader goes on at a third when that node is lost.

use std::{collections::BTreeSet, time::Duration};

use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use super::failover::owner_of;
use crate::harness::{Api, App, Node, eventually, visit, within};

/// Writes into its log what it is asked to.
const SAYER: &str = r#"
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/say/"):
            print(f"said {self.path[5:]}.", flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

#[derive(Debug, Clone, Deserialize)]
struct Event {
    topic: String,
    id: u64,
    kind: String,
    data: Value,
}

impl Event {
    fn says(&self, number: u32) -> bool {
        self.kind == "log" && self.data["text"] == format!("said {number}.")
    }
}

/// A WebSocket and everything that it has told.
struct Reader {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    seen: Vec<Event>,
}

impl Reader {
    /// Follows topics: from now on, or after an id of each.
    async fn open(api: &Api, topics: &[String], after: Option<&[u64]>) -> Result<Self, tungstenite::Error> {
        let after = after.map(|ids| ids.iter().map(u64::to_string).collect::<Vec<_>>().join(";")).unwrap_or_default();
        let url = format!("ws://127.0.0.1:{}/api/v1/live?topics={}&after={after}", api.port(), topics.join(","));
        let mut request = url.into_client_request()?;
        let credential = format!("Bearer {}", api.token.as_deref().unwrap_or_default());
        request.headers_mut().insert("authorization", credential.parse().unwrap());
        let (socket, _) = connect_async(request).await?;
        Ok(Self { socket, seen: Vec::new() })
    }

    /// Reads until it has told of something like this.
    async fn until(&mut self, what: &str, is_it: impl Fn(&Event) -> bool) -> &Event {
        while !self.seen.iter().any(&is_it) {
            let told = tokio::time::timeout(Duration::from_secs(60), self.socket.next()).await;
            match told.unwrap_or_else(|_| panic!("{what}: not told; {:?}", self.seen)) {
                Some(Ok(Message::Text(text))) => self.seen.push(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Ping(_))) => {}
                other => panic!("{what}: {other:?}; {:?}", self.seen),
            }
        }
        self.seen.iter().find(|event| is_it(event)).unwrap()
    }

    /// Reads until all of this was told, by it or before.
    async fn until_all(&mut self, events: &[Event], before: &[Event]) {
        let is = |event: &Event, other: &Event| (event.id, &event.topic) == (other.id, &other.topic);
        for event in events.iter().filter(|event| !before.iter().any(|told| is(told, event))) {
            self.until(&format!("{event:?}"), |told| is(told, event)).await;
        }
    }

    /// Reads until it has told that so many instances are gone.
    async fn until_gone(&mut self, count: usize) {
        for _ in 0..count {
            let known: BTreeSet<u64> = self.gone().collect();
            if known.len() >= count {
                return;
            }
            let is_new = |event: &Event| event.kind == "instance_gone" && !known.contains(&event.id);
            self.until("an instance is gone", is_new).await;
        }
    }

    fn gone(&self) -> impl Iterator<Item = u64> {
        self.seen.iter().filter(|event| event.kind == "instance_gone").map(|event| event.id)
    }
}

/// The ids of a topic in the order in which they came.
fn ids(events: &[Event], topic: &str) -> Vec<u64> {
    events.iter().filter(|event| event.topic == topic).map(|event| event.id).collect()
}

#[tokio::test]
async fn a_reader_whose_gateway_dies_goes_on_at_another_and_misses_nothing() {
    let mut node = Node::start_cluster().await;
    App::new(&node, "shop", &[("Procfile", "web: python3 app.py\n"), ("app.py", SAYER)]).deploy().await;
    // The first node hosts neither the app nor its domain; the third is not the owner either.
    let owner = owner_of(&node, "shop");
    let third = 3 - owner;
    let token = node.operator().token.clone();
    let on = |number: usize| Api::new(node.member(number).port, token.clone());
    let (first, owners, third) = (on(0), on(owner), on(third));
    let project = first.project("shop").await;
    let topics = [format!("logs:{project}"), format!("project:{project}")];
    let say = async |number: u32| {
        let answer = visit(owners.port(), "shop", &format!("/say/{number}")).await.unwrap();
        assert_eq!(answer.status(), 200);
    };
    let scale = async |count: u32| {
        owners.post(&format!("/projects/{project}/scale"), json!({ "processes": { "web": count } })).await.ok();
    };

    // What is told where the app runs, without a break, is what there was to tell.
    let mut whole = Reader::open(&owners, &topics, None).await.unwrap();
    let mut reader = Reader::open(&first, &topics, None).await.unwrap();
    say(1).await;
    scale(2).await;
    let is_second = |event: &Event| event.kind == "instance" && event.data["index"] != 1;
    whole.until("a second instance", |event| is_second(event) && event.data["status"] == "healthy").await;
    say(2).await;
    whole.until("a line", |event| event.says(2)).await;
    reader.until_all(&whole.seen, &[]).await;

    node.member_mut(0).kill().await;
    let lost = tokio::time::timeout(Duration::from_secs(5), reader.socket.next()).await.expect("an end");
    assert!(!matches!(lost, Some(Ok(Message::Text(_)))), "{lost:?}");
    let before = reader.seen;
    within(Duration::from_secs(10), "the others serve without it", || async {
        owners.get(&format!("/projects/{project}")).await.status.is_success().then_some(())
    })
    .await;
    say(3).await;
    let restarted = owners.post(&format!("/projects/{project}/restart"), json!({})).await.ok();
    let is_done = |event: &Event| {
        event.kind == "deployment" && event.data["id"] == restarted["id"] && event.data["status"] == "completed"
    };
    whole.until("the restart", is_done).await;
    whole.until_gone(2).await;
    say(4).await;

    let after = topics.each_ref().map(|topic| {
        let last = before.iter().rfind(|event| event.topic == *topic);
        last.unwrap_or_else(|| panic!("nothing was told of {topic}")).id
    });
    let mut reader = eventually("the third node takes the reader", || async {
        Reader::open(&third, &topics, Some(&after)).await.ok()
    })
    .await;
    say(5).await;
    scale(1).await;
    whole.until_gone(3).await;
    say(6).await;
    whole.until("the last line", |event| event.says(6)).await;
    reader.until_all(&whole.seen, &before).await;

    let told = [before, reader.seen].concat();
    let lines: Vec<u32> = (1..=6).filter(|number| told.iter().any(|event| event.says(*number))).collect();
    assert_eq!(lines, [1, 2, 3, 4, 5, 6]);
    let [logs, status] = &topics;
    assert_eq!(ids(&told, logs), ids(&whole.seen, logs), "every line once, in its place");
    let sorted = |mut ids: Vec<u64>| {
        ids.sort_unstable();
        ids
    };
    assert_eq!(sorted(ids(&told, status)), sorted(ids(&whole.seen, status)), "every event once");
    assert!(told.iter().all(|event| event.kind != "gap"));
    node.finish().await;
}
