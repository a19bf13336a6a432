//! Tests of uploads.

use bytes::Bytes;
use futures_util::stream;
use reqwest::Body;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fixture::{By, TestGateway, refused};

async fn sources_of(gateway: &TestGateway) -> (super::fixture::User, String) {
    let user = gateway.administrator().await;
    let project = gateway.project(&user, "shop").await;
    let path = format!("/api/v1/projects/{}/sources", project["id"].as_str().unwrap());
    (user, path)
}

/// Waits until a failed upload is removed.
async fn nothing_left(gateway: &TestGateway) {
    for _ in 0..200 {
        if gateway.objects().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("left behind: {:?}", gateway.objects());
}

#[actix_rt::test]
async fn an_upload_is_streamed_counted_and_hashed() {
    let gateway = TestGateway::new().await;
    let (user, path) = sources_of(&gateway).await;
    let chunk = Bytes::from(vec![7_u8; 64 * 1024]);
    let chunks = std::iter::repeat_n(chunk.clone(), 200).map(Ok::<_, std::io::Error>);
    let body = Body::wrap_stream(stream::iter(chunks));
    let request = gateway.request("POST", &path).by(&user).header("content-type", "application/gzip").body(body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 201);
    let source: Value = response.json().await.unwrap();
    assert_eq!(source["size"], 200 * 64 * 1024);
    let expected = hex::encode(Sha256::digest(vec![7_u8; 200 * 64 * 1024]));
    assert_eq!(source["sha256"], expected);
    let files = gateway.objects();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].file_name().unwrap().to_str(), source["id"].as_str());
    assert_eq!(files[0].metadata().unwrap().len(), 200 * 64 * 1024);
    gateway.end().await;
}

#[actix_rt::test]
async fn an_upload_that_fails_leaves_nothing() {
    let gateway = TestGateway::with(|settings| settings.upload_limit = 100_000).await;
    let (user, path) = sources_of(&gateway).await;
    let send = |body: Body| gateway.request("POST", &path).by(&user).body(body);
    let declared = refused(send(vec![0_u8; 200_000].into())).await;
    assert_eq!((declared.0, declared.1.as_str()), (413, "too_large"));
    let chunks = std::iter::repeat_n(Bytes::from(vec![0_u8; 10_000]), 20).map(Ok::<_, std::io::Error>);
    assert_eq!(refused(send(Body::wrap_stream(stream::iter(chunks)))).await.0, 413);
    assert_eq!(refused(send(Body::from(""))).await.0, 400);
    // An upload that deploy refuses, and one that breaks off.
    assert_eq!(refused(send(vec![0_u8; 13].into())).await.0, 400);
    let broken = [Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("gone"))];
    assert!(send(Body::wrap_stream(stream::iter(broken))).send().await.is_err());
    let text = gateway.request("POST", &path).by(&user).header("content-type", "text/html").body("x");
    assert_eq!(refused(text).await.0, 415);
    nothing_left(&gateway).await;
    gateway.end().await;
}
