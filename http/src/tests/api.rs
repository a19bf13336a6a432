//! Tests of the API with a well-behaved client.

use serde_json::{Value, json};

use super::fixture::{By, TestGateway, problem, refused};

#[actix_rt::test]
async fn a_resource_lives_from_its_creation_to_its_removal() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let created = gateway.post("/api/v1/projects", &json!({"name": "shop"})).by(&user).send().await.unwrap();
    assert_eq!(created.status(), 201);
    let location = created.headers()["location"].to_str().unwrap().to_owned();
    let project: Value = created.json().await.unwrap();
    assert_eq!(location, format!("/api/v1/projects/{}", project["id"].as_str().unwrap()));

    let read = gateway.get(&location).by(&user).send().await.unwrap();
    assert_eq!(read.headers()["content-type"], "application/json");
    let etag = read.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(read.json::<Value>().await.unwrap(), project);
    let known = gateway.get(&location).by(&user).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!((known.status().as_u16(), known.bytes().await.unwrap().len()), (304, 0));
    let head = gateway.request("HEAD", &location).by(&user).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.bytes().await.unwrap().len()), (200, 0));

    let update = |etag: &str| {
        gateway.request("PATCH", &location).by(&user).header("if-match", etag).json(&json!({"description": "new"}))
    };
    let updated = update(&etag).send().await.unwrap();
    assert_eq!(updated.status(), 200);
    assert_ne!(updated.headers()["etag"].to_str().unwrap(), etag);
    assert_eq!(refused(update(&etag)).await.1, "precondition_failed");
    assert_eq!(refused(update("W/\"1\"")).await.0, 400);

    let removed = gateway.request("DELETE", &location).by(&user).send().await.unwrap();
    assert_eq!((removed.status().as_u16(), removed.bytes().await.unwrap().len()), (204, 0));
    let gone = refused(gateway.get(&location).by(&user)).await;
    assert_eq!((gone.0, gone.1.as_str()), (404, "not_found"));
    gateway.end().await;
}

#[actix_rt::test]
async fn a_removal_that_takes_long_is_accepted_and_says_where_to_look() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let project = gateway.project(&user, "slow").await;
    let location = format!("/api/v1/projects/{}", project["id"].as_str().unwrap());
    // The second changes nothing: the first is in progress.
    let mut since = Vec::new();
    for _ in 0..2 {
        let accepted = gateway.request("DELETE", &location).by(&user).send().await.unwrap();
        assert_eq!(accepted.status(), 202);
        assert_eq!(accepted.headers()["location"].to_str().unwrap(), location);
        let told: Value = accepted.json().await.unwrap();
        assert_eq!(told["id"], project["id"]);
        let shown: Value = gateway.get(&location).by(&user).send().await.unwrap().json().await.unwrap();
        assert_eq!(shown, told, "what was told is what is there");
        since.push(told["deleting_at"].as_str().expect("it is on its way out").to_owned());
    }
    assert_eq!(since[0], since[1]);
    let change = gateway.request("PATCH", &location).by(&user).json(&json!({"description": "new"}));
    assert_eq!(refused(change).await.0, 409, "it takes no change any more");
    gateway.end().await;
}

#[actix_rt::test]
async fn a_list_leads_from_page_to_page() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    for name in ["one", "two", "three"] {
        gateway.project(&user, name).await;
    }
    let mut path = "/api/v1/projects?limit=2".to_owned();
    let mut names = Vec::new();
    loop {
        let response = gateway.get(&path).by(&user).send().await.unwrap();
        let link = response.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        let page: Value = response.json().await.unwrap();
        names.extend(page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        let Some(link) = link else { break };
        path = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    }
    assert_eq!(names, ["three", "two", "one"]);
    let found: Value = gateway.get("/api/v1/projects?name=two").by(&user).send().await.unwrap().json().await.unwrap();
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    gateway.end().await;
}

#[actix_rt::test]
async fn a_panic_is_answered_and_tells_nothing() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let project = gateway.project(&user, "shop").await;
    let path = format!("/api/v1/projects/{}/releases", project["id"].as_str().unwrap());
    let (status, code, detail) = refused(gateway.get(&path).by(&user)).await;
    assert_eq!((status, code.as_str()), (500, "internal"));
    assert!(!detail.contains("hunter2"));
    let (status, _, detail) = refused(gateway.get("/test/panic")).await;
    assert!(status == 500 && !detail.contains("hunter2"), "a panic of the gateway itself");
    let after = gateway.get("/api/v1/projects").by(&user).send().await.unwrap();
    assert_eq!(after.status(), 200);
    gateway.end().await;
}

#[actix_rt::test]
async fn every_answer_is_safe_to_open_and_named() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let response = gateway.get("/api/v1/projects").by(&user).header("x-request-id", "not-mine").send().await.unwrap();
    let headers = response.headers();
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
    assert!(!headers.contains_key("strict-transport-security") && !headers.contains_key("server"));
    assert_ne!(headers["x-request-id"], "not-mine");
    let missing = problem(gateway.get("/api/v1/nothing").send().await.unwrap()).await;
    assert_eq!((missing.0, missing.1.as_str()), (404, "not_found"));
    let wrong = gateway.request("PUT", "/api/v1/projects").by(&user).send().await.unwrap();
    assert_eq!(wrong.headers()["allow"], "GET, POST, HEAD");
    assert_eq!(problem(wrong).await.0, 405);
    for method in ["TRACE", "OPTIONS"] {
        assert_eq!(gateway.request(method, "/api/v1/projects").send().await.unwrap().status(), 405, "{method}");
    }
    gateway.end().await;
}

#[actix_rt::test]
async fn only_named_origins_may_read() {
    let allowed = "https://console.example.com";
    let gateway = TestGateway::with(|settings| settings.cors_origins = vec![allowed.to_owned()]).await;
    let asked = |origin: &'static str| gateway.get("/health").header("origin", origin).send();
    let response = asked(allowed).await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], allowed);
    assert!(!response.headers().contains_key("access-control-allow-credentials"));
    for origin in [
        "null",
        "https://evil-console.example.com",
        "https://console.example.com.evil.com",
        "http://console.example.com",
    ] {
        let response = asked(origin).await.unwrap();
        assert!(!response.headers().contains_key("access-control-allow-origin"), "{origin}");
    }
    let preflight = gateway
        .request("OPTIONS", "/api/v1/projects")
        .header("origin", allowed)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type")
        .send()
        .await
        .unwrap();
    assert!(preflight.status().is_success());
    gateway.end().await;
    let closed = TestGateway::new().await;
    let response = closed.get("/health").header("origin", allowed).send().await.unwrap();
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    closed.end().await;
}
