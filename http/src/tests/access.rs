//! Tests of credentials, tenancy and rate limits.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use callboard_messages::Access;
use serde_json::{Value, json};
use uuid::Uuid;

use super::fixture::{By, PASSWORD, TestGateway, refused};
use crate::{Rate, route_table, unanswered};

/// A path with every parameter filled in.
fn filled(path: &str, id: &str) -> String {
    let fill = |part: &str| match part {
        "{name}" => "NAME".to_owned(),
        part if part.starts_with('{') => id.to_owned(),
        part => part.to_owned(),
    };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

#[actix_rt::test]
async fn every_route_that_is_not_public_refuses_a_caller_without_a_session() {
    let gateway = TestGateway::new().await;
    let routes = route_table();
    assert!(routes.len() > 45, "{}", routes.len());
    for route in routes.iter().filter(|route| route.access != Access::Public) {
        let path = filled(&route.path, &Uuid::now_v7().to_string());
        for authorization in
            [None, Some("Bearer x.y.z"), Some("Bearer cb_aaaa_bbbb"), Some("Basic YTpi"), Some("Bearer ")]
        {
            let mut request = gateway.request(&route.method, &path);
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"callboard\"");
            assert_eq!(response.status(), 401, "{} {path} {authorization:?}", route.method);
        }
    }
    let public: Vec<_> = routes
        .iter()
        .filter(|route| route.access == Access::Public && route.documented)
        .map(|route| route.operation)
        .collect();
    assert_eq!(public, ["auth.register", "auth.login", "auth.refresh_token"], "what is public is decided here");
    gateway.end().await;
}

#[test]
fn what_routes_ask_for_and_no_domain_answers_is_named() {
    let all = unanswered([]);
    for routed in ["project.create", "deploy.register_source", "auth.jwks", "auth.validate_token"] {
        assert!(all.contains(&routed), "{routed}: {all:?}");
    }
    assert!(!all.contains(&"live.follow"), "what the gateway does by itself needs no domain");
    let answered = all.iter().copied().filter(|operation| *operation != "project.create");
    assert_eq!(unanswered(answered), ["project.create"]);
}

#[actix_rt::test]
async fn another_tenant_finds_nothing() {
    let gateway = TestGateway::new().await;
    let owner = gateway.administrator().await;
    let stranger = gateway.user("stranger@example.com").await;
    let project = gateway.project(&owner, "shop").await;
    let id = project["id"].as_str().unwrap();
    let domains = ["project.", "deploy.get_status", "deploy.build_log", "deploy.logs", "deploy.upload_source"];
    let mut walked = 0;
    for route in route_table()
        .iter()
        .filter(|route| route.path.contains("{project_id}") || route.path.contains("{deployment_id}"))
    {
        if !domains.iter().any(|known| route.operation.starts_with(known)) {
            continue;
        }
        let body = match route.operation {
            "project.set_env" => json!({"variables": [{"name": "A", "value": "b"}]}),
            "project.change_env" => json!({"remove": ["A"]}),
            "project.set_build_config" => json!({"config": {}}),
            _ => json!({}),
        };
        let mut request = gateway.request(&route.method, &filled(&route.path, id)).by(&stranger);
        if route.operation == "deploy.upload_source" {
            request = request.body("archive");
        } else if route.method != "GET" && route.method != "DELETE" {
            request = request.json(&body);
        }
        let (status, code, _) = refused(request).await;
        assert_eq!((status, code.as_str()), (404, "not_found"), "{} {}", route.method, route.path);
        walked += 1;
    }
    assert!(walked >= 12, "{walked}");
    let list: Value = gateway.get("/api/v1/projects").by(&stranger).send().await.unwrap().json().await.unwrap();
    assert_eq!(list["items"], json!([]));
    let organization = project["organization_id"].as_str().unwrap();
    let foreign = gateway.get("/api/v1/projects").by(&stranger).header("callboard-organization", organization);
    assert!(matches!(refused(foreign).await.0, 403 | 404));
    let malformed = gateway.get("/api/v1/projects").by(&stranger).header("callboard-organization", "mine");
    assert_eq!(refused(malformed).await.0, 400);
    gateway.end().await;
}

#[actix_rt::test]
async fn a_forged_or_spent_token_is_refused() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let (head, rest) = user.token().split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = format!("{}.{claims}.", encode(&json!({"alg": "none", "typ": "JWT"})));
    let symmetric = format!("{}.{claims}.{signature}", encode(&json!({"alg": "HS256", "typ": "JWT"})));
    let other_key =
        format!("{}.{claims}.{signature}", encode(&json!({"alg": "RS256", "typ": "JWT", "kid": "../../dev/null"})));
    let mut payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    payload["sub"] = json!(Uuid::now_v7());
    let other_subject = format!("{head}.{}.{signature}", encode(&payload));
    for token in [
        none,
        symmetric,
        other_key,
        other_subject,
        format!("{}x", user.token()),
        user.tokens.refresh_token.expose().to_owned(),
    ] {
        let request = gateway.get("/api/v1/auth/whoami").bearer_auth(&token);
        assert_eq!(refused(request).await.0, 401, "{token}");
    }
    let in_query = gateway.get(&format!("/api/v1/auth/whoami?access_token={}", user.token()));
    assert_eq!(refused(in_query).await.0, 401);

    let whoami = || gateway.get("/api/v1/auth/whoami").by(&user);
    assert_eq!(whoami().send().await.unwrap().status(), 200);
    assert_eq!(whoami().send().await.unwrap().status(), 200);
    let logout = gateway.request("POST", "/api/v1/auth/logout").by(&user).send().await.unwrap();
    assert_eq!(logout.status(), 204);
    assert_eq!(refused(whoami()).await.0, 401, "a remembered token outlived its session");
    gateway.end().await;
}

#[actix_rt::test]
async fn an_api_key_does_what_its_scopes_allow() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let body = json!({"name": "reader", "scopes": ["project:read"]});
    let key: Value = gateway.post("/api/v1/auth/api-keys", &body).by(&user).send().await.unwrap().json().await.unwrap();
    let secret = key["secret"].as_str().unwrap();
    let list = || gateway.get("/api/v1/projects").bearer_auth(secret);
    assert_eq!(list().send().await.unwrap().status(), 200);
    // The body of a forbidden request is not even read.
    let create = gateway.request("POST", "/api/v1/projects").bearer_auth(secret).body("not JSON");
    let (status, code, detail) = refused(create).await;
    assert_eq!((status, code.as_str()), (403, "forbidden"));
    assert!(detail.contains("project:write"));
    let path = format!("/api/v1/auth/api-keys/{}", key["id"].as_str().unwrap());
    assert_eq!(gateway.request("DELETE", &path).by(&user).send().await.unwrap().status(), 204);
    assert_eq!(refused(list()).await.0, 401);
    gateway.end().await;
}

#[actix_rt::test]
async fn too_many_sign_ins_from_one_address_wait() {
    let gateway = TestGateway::with(|settings| {
        settings.rate_limits.enabled = true;
        settings.rate_limits.sign_in = Rate { per_minute: 6, burst: 3 };
    })
    .await;
    let login = json!({"email": "nobody@example.com", "password": PASSWORD});
    let attempt = |spoofed: String| {
        gateway
            .post("/api/v1/auth/login", &login)
            .header("x-forwarded-for", spoofed.clone())
            .header("forwarded", format!("for={spoofed}"))
    };
    for n in 0..3 {
        let response = attempt(format!("10.0.0.{n}")).send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["ratelimit-policy"], "\"sign-in\";q=6;w=60");
        assert_eq!(response.headers()["ratelimit"], format!("\"sign-in\";r={};t=10", 2 - n).as_str());
    }
    let response = attempt("10.0.0.99".to_owned()).send().await.unwrap();
    assert_eq!(response.status(), 429);
    let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait));
    assert_eq!(gateway.get("/health").send().await.unwrap().status(), 200);
    gateway.end().await;
}

#[actix_rt::test]
async fn a_principal_is_told_what_is_left_and_guesses_are_counted_by_address() {
    let gateway = TestGateway::with(|settings| {
        settings.rate_limits.enabled = true;
        settings.rate_limits.principal = Rate { per_minute: 600, burst: 5 };
        settings.rate_limits.address = Rate { per_minute: 60, burst: 4 };
    })
    .await;
    let user = gateway.administrator().await;
    let response = gateway.get("/api/v1/projects").by(&user).send().await.unwrap();
    assert_eq!(response.headers()["ratelimit-policy"], "\"principal\";q=600;w=60");
    assert!(response.headers()["ratelimit"].to_str().unwrap().starts_with("\"principal\";r=4"));
    let mut statuses = Vec::new();
    for n in 0..8 {
        let guess = gateway.get("/api/v1/projects").bearer_auth(format!("cb_guess_{n}"));
        statuses.push(refused(guess).await.0);
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    assert_eq!(
        gateway.get("/api/v1/projects").by(&user).send().await.unwrap().status(),
        200,
        "a known token is not counted so"
    );
    gateway.end().await;
}
