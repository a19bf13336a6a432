//! A node that is told to stop is gone in time, whatever does not answer.

use reqwest::Method;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use crate::harness::{Api, App, Node, eventually, member::STOP, servers::Postgres};

/// A request whose body never ends.
async fn endless(node: &Node, number: usize, project: &str) -> TcpStream {
    let member = node.member(number);
    let mut stream = TcpStream::connect(("127.0.0.1", member.port)).await.unwrap();
    let token = node.operator().token.clone().unwrap();
    let head = format!(
        "POST /api/v1/projects/{project}/sources HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/gzip\r\nContent-Length: 1000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn nodes_stop_in_time_while_nobody_says_anything_and_while_they_wait_for_others() {
    let mut database = Postgres::start().await;
    let url = database.url();
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector_url = format!("http://{}", collector.local_addr().unwrap());
    let environment = [("CALLBOARD_DATABASE_URL", url.as_str()), ("CALLBOARD_OTLP_ENDPOINT", &collector_url)];
    let mut node = Node::start_cluster_with(&["--no-sample"], &environment).await;
    App::web(&node, "shop", "one").deploy().await;
    let owner = super::failover::owner_of(&node, "shop");
    let project = node.operator().project("shop").await;
    let mut clients = Vec::new();
    for number in 0..3 {
        clients.push(endless(&node, number, &project).await);
    }
    database.pause();
    // Requests that wait for the database, of this node and of another.
    let asked: Vec<_> = (0..12)
        .map(|number| {
            let api = Api::new(node.member(number % 3).port, node.operator().token.clone());
            tokio::spawn(async move { api.request(Method::GET, "/projects").send().await.is_ok() })
        })
        .collect();
    // With others that can't take its app over, and then without any.
    let (status, took) = node.member_mut(owner).stop().await;
    assert!(status.success() && took < STOP, "it ended with {status} after {took:?}");
    let (status, took) = node.stop().await;
    assert!(status.success() && took < STOP, "they ended with {status} after {took:?}");
    asked.iter().for_each(tokio::task::JoinHandle::abort);
    database.resume();
    a_node_that_waits_for_others_stops(&mut node).await;
    node.finish().await;
}

/// Nobody hosts what this one can't do without, and it waits for a while that somebody might.
async fn a_node_that_waits_for_others_stops(node: &mut Node) {
    let before = node.member(0).log().len();
    node.member_mut(0).domains = Some("none");
    node.spawn_member(0);
    eventually("it has come as far as waiting", || async {
        node.member(0).log()[before..].contains("has joined the cluster").then_some(())
    })
    .await;
    let (status, took) = node.member_mut(0).stop().await;
    let said = node.member(0).log().split_off(before);
    assert!(status.success() && took < STOP, "it ended with {status} after {took:?}\n{said}");
    assert!(said.contains("stopped before it was ready"), "{said}");
}

#[tokio::test]
async fn a_node_alone_stops_in_time_while_its_database_is_silent() {
    let mut database = Postgres::start().await;
    let url = database.url();
    let mut node = Node::start_with(&["--no-sample"], &[("CALLBOARD_DATABASE_URL", &url)]).await;
    App::web(&node, "shop", "one").deploy().await;
    database.pause();
    let (status, took) = node.stop().await;
    assert!(status.success() && took < STOP, "it ended with {status} after {took:?}");
    database.resume();
    node.finish().await;
}
