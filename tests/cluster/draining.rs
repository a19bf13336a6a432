//! A node that is told to stop is gone in time, whatever does not answer.

use crate::harness::{App, Node, member::STOP, servers::Postgres};

#[tokio::test]
async fn nodes_stop_in_time_while_their_database_is_silent() {
    let mut database = Postgres::start().await;
    let url = database.url();
    let mut node = Node::start_cluster_with(&["--no-sample"], &[("CALLBOARD_DATABASE_URL", &url)]).await;
    App::web(&node, "shop", "one").deploy().await;
    let owner = super::failover::owner_of(&node, "shop");
    database.pause();
    // With others that can't take its app over, and then without any.
    let (status, took) = node.member_mut(owner).stop().await;
    assert!(status.success() && took < STOP, "it ended with {status} after {took:?}");
    let (status, took) = node.stop().await;
    assert!(status.success() && took < STOP, "they ended with {status} after {took:?}");
    database.resume();
    node.finish().await;
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
