//! Live updates of one node, as readers on another see them.

use callboard_supervisors::LiveEvent;
use futures_util::StreamExt;
use serde_json::json;

use crate::{proxy::Proxy, stage::*};

#[actix_rt::test]
async fn a_reader_on_another_node_sees_what_is_published_and_resumes_there() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (one, two, three) = (cluster.host(&watch).await, cluster.caller().await, cluster.caller().await);
    let mut reader = two.runtime.live().subscribe("logs:1", None);
    let mut other = three.runtime.live().subscribe("logs:1", None);
    // Until the other node listens, what it is told is lost to it.
    let mut last = 0;
    let first = loop {
        last = one.runtime.live().publish("logs:1", LiveEvent::new("log", json!({ "n": last })));
        let both = futures_util::future::join(reader.next(), other.next());
        if let Ok((event, _)) = tokio::time::timeout(std::time::Duration::from_millis(200), both).await {
            break event.unwrap().unwrap();
        }
    };
    assert_eq!(first.kind, "log");
    let ids: Vec<u64> =
        (0..200).map(|n| one.runtime.live().publish("logs:1", LiveEvent::new("log", json!({ "n": n })))).collect();
    let mut seen = Vec::new();
    while seen.len() < 200 {
        let event = reader.next().await.unwrap().unwrap();
        if event.id > last {
            seen.push(event.id);
        }
    }
    assert_eq!(seen, ids, "in order, with the ids they had");
    // The node the reader was at is gone: another one remembers the same.
    until("the third has heard it all", || {
        let mut resumed = three.runtime.live().subscribe("logs:1", Some(ids[100]));
        let mut count = 0;
        while let Some(Some(Ok(_))) = futures_util::FutureExt::now_or_never(resumed.next()) {
            count += 1;
        }
        count == 99
    })
    .await;
    let sent = one.metric("callboard_bridge_sent_total", "live");
    assert!(sent < 150.0, "{sent} messages for more than 200 updates");
}

#[actix_rt::test]
async fn whoever_publishes_does_not_wait_for_the_broker() {
    let cluster = Cluster::new();
    let proxy = Proxy::to(&url()).await;
    let node = cluster.caller_with(callboard_supervisors::Bulkhead::default(), &proxy.url(&url())).await;
    proxy.swallow(true);
    let began = std::time::Instant::now();
    let words = "x".repeat(200_000);
    for _ in 0..200 {
        node.runtime.live().publish("logs:1", LiveEvent::new("log", json!(words)));
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(10));
    assert!(node.metric("callboard_bridge_dropped_total", "live") > 0.0);
    proxy.swallow(false);
}
