//! A client of the broker without the cluster's key changes nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callboard_messages::{Caller, Failure};
use hmac::{Hmac, KeyInit, Mac};
use lapin::{
    BasicProperties, Channel,
    options::BasicPublishOptions,
    types::{AMQPValue, ByteArray, FieldTable},
};
use sha2::Sha256;
use uuid::Uuid;

use crate::fixture::*;

pub const KEY: &[u8] = b"a key that the tests know: 0123456789";

pub fn known() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.key = callboard_bridge::ClusterKey::new(KEY).unwrap();
    // Its tests send messages of many megabytes.
    cluster.silence = Duration::from_secs(15);
    cluster
}

pub fn sign(key: &[u8], kind: u8, to: &str, body: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(&[kind]);
    mac.update(&(to.len() as u64).to_be_bytes());
    mac.update(to.as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().to_vec()
}

pub fn properties(version: AMQPValue, signature: Option<Vec<u8>>) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("v".into(), version);
    if let Some(signature) = signature {
        headers.insert("signature".into(), AMQPValue::ByteArray(ByteArray::from(signature)));
    }
    BasicProperties::default().with_headers(headers)
}

pub async fn put(channel: &Channel, queue: &str, body: &[u8], properties: BasicProperties) {
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), queue.into(), options, body, properties).await.unwrap();
}

pub fn version(version: u8) -> AMQPValue {
    AMQPValue::ShortShortUInt(version)
}

fn opening(number: u64) -> Vec<u8> {
    opening_at(number, SystemTime::now())
}

/// The opening of an unknown sender, sent at this time of day.
fn opening_at(number: u64, at: SystemTime) -> Vec<u8> {
    let mut body = Uuid::now_v7().as_bytes().to_vec();
    let at = at.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    for word in [number, 1, 1, at] {
        body.extend_from_slice(&u64::to_be_bytes(word));
    }
    body
}

/// A request as the bridge writes it, whose caller claims to be the platform itself.
fn request(operation: &str) -> Vec<u8> {
    request_at(operation, SystemTime::now())
}

fn request_at(operation: &str, at: SystemTime) -> Vec<u8> {
    let caller = serde_json::to_vec(&Caller::system()).unwrap();
    let mut entry = 1_u64.to_be_bytes().to_vec();
    entry.extend_from_slice(&10_000_u32.to_be_bytes());
    entry.push(0);
    entry.push(operation.len() as u8);
    entry.extend_from_slice(operation.as_bytes());
    entry.push(0);
    entry.extend_from_slice(&(caller.len() as u32).to_be_bytes());
    entry.extend_from_slice(&caller);
    entry.extend_from_slice(&serde_json::to_vec(&perform(Act::Count(Uuid::nil()))).unwrap());
    let mut body = opening_at(1, at);
    body.extend_from_slice(&(entry.len() as u32).to_be_bytes());
    body.extend_from_slice(&entry);
    body
}

#[actix_rt::test]
async fn what_is_not_signed_not_whole_or_not_of_this_version_is_refused_and_counted() {
    let (cluster, watch) = (known(), Watch::default());
    let (host, asking) = (cluster.host(&watch).await, cluster.caller().await);
    asking.reach().await;
    let (_connection, channel) = channel().await;
    let prefix = &cluster.prefix;
    let queues = [
        (1, format!("{prefix}.operations.sample"), &host),
        (1, format!("{prefix}.node.{}", host.id()), &host),
        (2, format!("{prefix}.replies.{}", asking.id()), &asking),
        (3, format!("{prefix}.live.{}", asking.id()), &asking),
    ];
    for (kind, queue, node) in queues {
        let signed_for = if kind == 3 { "" } else { queue.as_str() };
        let good = request("sample.perform");
        let signed = |body: &[u8]| Some(sign(KEY, kind, signed_for, body));
        let before = ["signature", "version", "malformed", "oversized"].map(|reason| node.refused(reason));
        let cut = &good[..40];
        let lengths = [opening(2), vec![255; 9]].concat();
        let forged = Some(sign(b"another key of thirty-two bytes!", kind, signed_for, &good));
        let other_queue = Some(sign(KEY, kind, "elsewhere", &good));
        let messages = [
            (b"garbage".to_vec(), BasicProperties::default()),
            (good.clone(), properties(version(1), None)),
            (good.clone(), properties(version(1), forged)),
            (good.clone(), properties(version(1), other_queue)),
            (good.clone(), properties(version(1), Some(vec![0; 4]))),
            (good.clone(), properties(version(9), signed(&good))),
            (good.clone(), properties(AMQPValue::Boolean(true), signed(&good))),
            (cut.to_vec(), properties(version(1), signed(cut))),
            (lengths.clone(), properties(version(1), signed(&lengths))),
            (vec![0; 34 * 1024 * 1024], BasicProperties::default()),
        ];
        for (body, properties) in messages {
            put(&channel, &queue, &body, properties).await;
        }
        until(&format!("all were refused on {queue}"), || {
            let after = ["signature", "version", "malformed", "oversized"].map(|reason| node.refused(reason));
            let [signature, version, malformed, oversized] = [0, 1, 2, 3].map(|place| after[place] - before[place]);
            (signature, version, malformed, oversized) == (5.0, 2.0, 2.0, 1.0)
        })
        .await;
        assert_eq!(asking.ask(perform(Act::Reply(1))).await, Ok(1), "after {queue}");
    }
    assert_eq!(watch.count(Uuid::nil()), 0);
}

#[actix_rt::test]
async fn a_message_that_somebody_recorded_is_not_carried_out_again() {
    let (cluster, watch) = (known(), Watch::default());
    let (host, asking) = (cluster.host(&watch).await, cluster.caller().await);
    asking.reach().await;
    let (_connection, channel) = channel().await;
    let queue = format!("{}.operations.sample", cluster.prefix);
    let recorded = request("sample.perform");
    for _ in 0..5 {
        let signature = sign(KEY, 1, &queue, &recorded);
        put(&channel, &queue, &recorded, properties(version(1), Some(signature))).await;
    }
    until("the others were refused", || host.refused("duplicate") == 4.0).await;
    assert_eq!(watch.count(Uuid::nil()), 1);
}

#[actix_rt::test]
async fn a_message_that_somebody_recorded_long_ago_is_not_carried_out_by_a_node_that_never_saw_it() {
    let (cluster, watch) = (known(), Watch::default());
    let host = cluster.host(&watch).await;
    // Its queue exists.
    cluster.caller().await.reach_at(host.id()).await;
    let (_connection, channel) = channel().await;
    let queue = format!("{}.node.{}", cluster.prefix, host.id());
    let sent = async |at: SystemTime| {
        let message = request_at("sample.perform", at);
        let signature = sign(KEY, 1, &queue, &message);
        put(&channel, &queue, &message, properties(version(1), Some(signature))).await;
    };
    let (now, second) = (SystemTime::now(), Duration::from_secs(1));
    // Beyond its ten seconds and the allowed skew, in either direction.
    for at in [now - 120 * second, now + 120 * second] {
        sent(at).await;
    }
    until("both were too late", || host.metric("callboard_bridge_expired_total", "") == 2.0).await;
    assert_eq!(host.metric("callboard_bridge_beyond_skew_total", ""), 2.0);
    assert_eq!(watch.count(Uuid::nil()), 0);

    // Within the skew it is carried out.
    for at in [now - 25 * second, now + 25 * second] {
        sent(at).await;
    }
    until("both were carried out", || watch.count(Uuid::nil()) == 2).await;
}

#[actix_rt::test]
async fn operations_that_are_not_there_and_bodies_that_are_none_are_answered() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (_host, asking) = (cluster.host(&watch).await, cluster.caller().await);
    asking.reach().await;
    let transport = asking.bridge.transport();
    for (operation, body) in [("sample.perform", "{"), ("sample.perform", "{\"act\":7}"), ("sample.vanish", "{}")] {
        let request = callboard_supervisors::remote::Request {
            operation,
            domain: "sample",
            target: callboard_supervisors::remote::Target::Domain,
            idempotent: false,
            caller: caller(),
            deadline: std::time::Instant::now() + Duration::from_secs(10),
            body: body.into(),
            traceparent: None,
            idempotency_key: None,
        };
        let answer = transport.call(request).await.unwrap();
        let answer: callboard_supervisors::Outcome<Perform> = serde_json::from_slice(&answer).unwrap();
        // Nothing was executed, a node of another version may know it, and no breaker counts it.
        let failure = failed(answer).unwrap();
        assert!(matches!(failure, Failure::Overloaded { .. }) && failure.is_certain(), "{failure:?}");
    }
    assert_eq!(asking.ask(perform(Act::Reply(1))).await, Ok(1));
}

#[actix_rt::test]
async fn a_request_that_somebody_had_before_and_that_is_too_late_now_has_an_unknown_outcome() {
    let (cluster, watch) = (known(), Watch::default());
    let asking = cluster.caller().await;
    let _ = asking.ask_within(Duration::from_millis(500), perform(Act::Reply(1))).await;
    let (connection, channel) = channel().await;
    let queue = format!("{}.operations.sample", cluster.prefix);
    let late = request_at("sample.perform", SystemTime::now() - Duration::from_secs(120));
    put(&channel, &queue, &late, properties(version(1), Some(sign(KEY, 1, &queue, &late)))).await;
    // The frozen node may have carried it out.
    let patience = std::time::Instant::now() + Duration::from_secs(30);
    while channel.basic_get(queue.as_str().into(), Default::default()).await.unwrap().is_none() {
        assert!(std::time::Instant::now() < patience, "the message is not there");
    }
    connection.close(200, "gone".into()).await.unwrap();
    let host = cluster.host(&watch).await;
    until("it is told", || host.metric("callboard_bridge_unknown_total", "") == 1.0).await;
    assert_eq!(host.metric("callboard_bridge_expired_total", ""), 0.0);
    assert_eq!(watch.count(Uuid::nil()), 0);
}

#[actix_rt::test]
async fn replies_nobody_waits_for_are_counted_and_forgotten() {
    let (cluster, watch) = (known(), Watch::default());
    let (_host, asking) = (cluster.host(&watch).await, cluster.caller().await);
    asking.reach().await;
    let (_connection, channel) = channel().await;
    let queue = format!("{}.replies.{}", cluster.prefix, asking.id());
    let mut body = opening(3);
    for call in [0_u64, u64::MAX] {
        body.extend_from_slice(&13_u32.to_be_bytes());
        body.extend_from_slice(&call.to_be_bytes());
        body.extend_from_slice(&[0]);
        body.extend_from_slice(b"null");
    }
    put(&channel, &queue, &body, properties(version(1), Some(sign(KEY, 2, &queue, &body)))).await;
    until("both were counted", || asking.refused("unexpected") >= 2.0).await;
    assert_eq!(asking.ask(perform(Act::Reply(1))).await, Ok(1));
}
