//! Tests of the endpoints for operators.

use serde_json::Value;

use super::fixture::{TestGateway, refused};

#[actix_rt::test]
async fn a_node_tells_how_it_is() {
    let gateway = TestGateway::new().await;
    assert_eq!(gateway.get("/health").send().await.unwrap().status(), 200);
    let ready: Value = gateway.get("/ready").send().await.unwrap().json().await.unwrap();
    assert_eq!(ready["status"], "ready");
    assert!(ready["domains"].as_array().unwrap().len() >= 4);
    let metrics = gateway.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("callboard_http_requests_total{operation=\"system.health\",status=\"2xx\"} 1"),
        "{metrics}"
    );
    let document: Value = gateway.get("/api/v1/openapi.json").send().await.unwrap().json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document, crate::openapi_document());
    gateway.end().await;
}

#[actix_rt::test]
async fn metrics_are_for_this_machine() {
    let gateway = TestGateway::with(|settings| settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()]).await;
    for (name, value) in
        [("x-forwarded-for", "203.0.113.7"), ("x-forwarded-for", "127.0.0.1"), ("host", "rebound.example.com")]
    {
        assert_eq!(refused(gateway.get("/metrics").header(name, value)).await.0, 401, "{name}: {value}");
    }
    gateway.end().await;
}

#[actix_rt::test]
async fn other_programs_find_the_signing_keys() {
    let gateway = TestGateway::new().await;
    let base = format!("http://{}", gateway.address);
    let discovery: Value = gateway.get("/.well-known/openid-configuration").send().await.unwrap().json().await.unwrap();
    assert_eq!(discovery["jwks_uri"], format!("{base}/.well-known/jwks.json"));
    let keys: Value = gateway.get("/.well-known/jwks.json").send().await.unwrap().json().await.unwrap();
    assert_eq!(keys["keys"][0]["alg"], "RS256");
    gateway.end().await;
}

#[test]
fn every_parameter_of_a_path_is_a_field_of_its_message() {
    let document = crate::openapi_document();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let in_path: Vec<_> = in_path.collect();
        for (method, operation) in methods.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().unwrap();
            for name in &in_path {
                assert!(parameters.iter().any(|p| p["name"] == *name && p["in"] == "path"), "{method} {path}: {name}");
            }
        }
    }
}

#[actix_rt::test]
async fn discovery_names_the_platform_as_configured_whatever_the_request_says() {
    let told = async |gateway: &TestGateway| {
        let request = gateway.get("/.well-known/openid-configuration");
        let forged = request.header("host", "evil.example.com").header("x-forwarded-host", "evil.example.com");
        let answer = forged.header("forwarded", "host=evil.example.com;proto=https").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()
    };
    let gateway = TestGateway::new().await;
    let document = told(&gateway).await;
    assert_eq!(document["jwks_uri"], format!("http://{}/.well-known/jwks.json", gateway.address));
    assert!(!document.to_string().contains("evil"), "{document}");
    gateway.end().await;

    let public = "https://callboard.example.com";
    let gateway = TestGateway::with(|settings| settings.public_url = Some(public.parse().unwrap())).await;
    let document = told(&gateway).await;
    assert_eq!(document["issuer"], public);
    assert_eq!(document["token_endpoint"], format!("{public}/api/v1/auth/login"));
    assert!(!document.to_string().contains("evil"), "{document}");
    gateway.end().await;
}
