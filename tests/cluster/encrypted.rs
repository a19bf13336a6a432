//! Redis behind TLS. Whom a node trusts is told as every program of the machine is told: by SSL_CERT_FILE.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    Api, Node, PASSWORD, eventually,
    servers::{Authority, Redis},
};

#[tokio::test]
async fn nodes_use_a_redis_behind_tls_and_refuse_one_that_they_do_not_trust() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let redis = Redis::start_with_tls(&authority).await;
    let (url, trusted) = (redis.tls_url("127.0.0.1"), authority.certificate());
    let settings = [("CALLBOARD_REDIS_URL", url.as_str()), ("SSL_CERT_FILE", trusted.to_str().unwrap())];
    let node = Node::start_cluster_with(&["--no-sample"], &settings).await;
    let person = node.user("person").await;
    let login = json!({ "email": "person@example.com", "password": PASSWORD });
    let tokens = person.post("/auth/login", login).await.ok();
    let on = |number: usize| Api::new(node.member(number).port, Some(tokens["access_token"].as_str().unwrap().into()));
    for number in 0..3 {
        on(number).get("/auth/whoami").await.ok();
    }
    eventually("the limits are counted there", || async { (redis.ask("DBSIZE").await != ":0").then_some(()) }).await;
    let metrics = node.anonymous();
    let metrics = metrics.send(metrics.raw(reqwest::Method::GET, "/metrics")).await.text;
    assert!(!metrics.contains("outcome=\"unreachable\""), "{metrics}");

    let refused = async |url: &str, authority: &Authority| {
        let data = node.scratch("other");
        let (key, trusted) = (node.data().join("master.key"), authority.certificate());
        let mut environment = node.environment();
        environment.extend([
            ("CALLBOARD_MASTER_KEY_FILE", key.to_str().unwrap()),
            ("CALLBOARD_REDIS_URL", url),
            ("SSL_CERT_FILE", trusted.to_str().unwrap()),
        ]);
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
        let began = Instant::now();
        let ran = node.cli_with(&arguments, &environment).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(began.elapsed() < Duration::from_secs(10), "nobody waits for what can't come to be trusted");
        for part in ["Redis shows a certificate that this node does not trust", "CALLBOARD_REDIS_URL", "SSL_CERT_FILE"]
        {
            assert!(ran.err.contains(part), "{part}: {ran:?}");
        }
        ran.err
    };
    let said = refused(&url, &stranger).await;
    assert!(said.contains("UnknownIssuer"), "{said}");
    let said = refused(&redis.tls_url("localhost"), &authority).await;
    assert!(said.contains("not valid for name \"localhost\""), "{said}");
    node.finish().await;
}
