//! The node that runs an app freezes: it keeps its connections, and answers nobody.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use reqwest::Method;

use super::failover::owner_of;
use crate::harness::{App, Node, processes, visit, within};

/// A node that shows no sign of life is declared gone after 4 s, and looked at every second.
const DECLARED: Duration = Duration::from_secs(10);
/// Until an app runs elsewhere; less than what an instance may take to answer, which was waited for otherwise.
const TAKEN_OVER: Duration = Duration::from_secs(30);
/// How soon every gateway leads to who has taken over, once that node itself does.
const KNOWN: Duration = Duration::from_secs(1);
/// How long an answer is waited for before it is asked for again.
const ASKED_AGAIN: Duration = Duration::from_millis(300);

/// The process of the app, by a node's router, if it answers.
async fn answer(port: u16) -> Option<String> {
    let answer = visit(port, "shop", "/pid").await.ok()?;
    if answer.status() == 200 { answer.text().await.ok() } else { None }
}

/// When a node's router first has an answer of another process than this.
async fn leads_elsewhere(port: u16, before: String) -> Instant {
    within(TAKEN_OVER, "the app is answered by another process", || async {
        let process = tokio::time::timeout(ASKED_AGAIN, answer(port)).await.ok()??;
        (process != before).then(Instant::now)
    })
    .await
}

#[tokio::test]
async fn what_is_with_a_frozen_node_is_given_up_when_it_is_declared_gone_and_goes_to_the_heir_if_it_may() {
    let mut node = Node::start_cluster().await;
    // It hosts nothing, and asks others where the apps are.
    let number = node.join("gateway", "none").await;
    let gateway = node.member(number).port;
    let app = App::silent(&node, "shop");
    app.deploy().await;
    let before = answer(gateway).await.unwrap();
    let owner = owner_of(&node, "shop");
    // The other node that runs apps.
    let heir = node.member(if owner == 1 { 2 } else { 1 }).port;

    let frozen = node.member(owner).pid();
    processes::signal(frozen, Signal::SIGSTOP);
    let began = Instant::now();
    let ask = |method: Method, body: &'static str| {
        tokio::spawn(async move {
            let client = crate::harness::http().timeout(Duration::from_secs(90)).build().unwrap();
            let request =
                client.request(method, format!("http://127.0.0.1:{gateway}/pid")).header("Host", "shop.localhost");
            let request = if body.is_empty() { request } else { request.body(body) };
            let answer = request.send().await.unwrap();
            (answer.status(), answer.text().await.unwrap(), began.elapsed())
        })
    };
    let (repeatable, not_repeatable) = (ask(Method::GET, ""), ask(Method::POST, "once"));
    let watched = [heir, gateway, node.port].map(|port| tokio::spawn(leads_elsewhere(port, before.clone())));

    let (status, text, took) = not_repeatable.await.unwrap();
    assert_eq!(status, 502, "{text}");
    assert!(text.contains("is gone") && took < DECLARED, "after {took:?}: {text}");
    let (status, text, took) = repeatable.await.unwrap();
    assert!(status == 200 && text != before, "{status} {text}, and before {before}");
    assert!(took < TAKEN_OVER, "after {took:?}");
    let [heir, gateway, first] = futures_util::future::join_all(watched).await.try_into().unwrap();
    let taken_over = heir.unwrap();
    for leads in [gateway.unwrap(), first.unwrap()] {
        let known = leads.saturating_duration_since(taken_over);
        eprintln!("taken over after {:?}, and known elsewhere {known:?} later", taken_over - began);
        assert!(known < KNOWN, "after {known:?}");
    }

    processes::signal(frozen, Signal::SIGCONT);
    node.finish().await;
}
