//! Tests of the pages with a browser's requests.

use callboard_messages::{Caller, auth::IssueSetupToken};
use reqwest::{RequestBuilder, Response};
use serde_json::json;

use super::fixture::{By, PASSWORD, TestGateway};

/// The cookies an answer sets, as a browser sends them back.
fn cookies(response: &Response) -> String {
    let pairs = response.headers().get_all("set-cookie").iter().map(|cookie| {
        let text = cookie.to_str().unwrap();
        assert!(text.contains("HttpOnly") && text.contains("SameSite=Lax") && text.contains("Path=/"), "{text}");
        assert!(!text.contains("Domain"), "{text}");
        text.split(';').next().unwrap().to_owned()
    });
    pairs.collect::<Vec<_>>().join("; ")
}

fn form(gateway: &TestGateway, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    gateway
        .request("POST", path)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "text/html")
        .body(body)
}

/// A page, as a browser asks for it.
fn page(gateway: &TestGateway, path: &str) -> RequestBuilder {
    gateway.get(path).header("accept", "text/html")
}

#[actix_rt::test]
async fn the_one_time_link_leads_to_an_account_and_the_apps() {
    let gateway = TestGateway::new().await;
    let token = gateway.runtime.bus().ask(&Caller::system(), IssueSetupToken::default()).await.unwrap().unwrap();
    let path = format!("/setup?token={}", token.expose());
    let page = gateway.get(&path).send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let text = page.text().await.unwrap();
    assert!(text.contains(&format!("name=\"token\" value=\"{}\"", token.expose())));
    assert!(!text.contains("<script>") && !text.contains("style="), "inline code");

    let fields =
        [("token", token.expose()), ("name", "<b>Ada</b>"), ("email", "ada@example.com"), ("password", "short")];
    let weak = form(&gateway, "/setup", &fields).header("sec-fetch-site", "same-origin").send().await.unwrap();
    assert_eq!(weak.status(), 400);
    let text = weak.text().await.unwrap();
    assert!(text.contains("role=\"alert\"") && text.contains("&lt;b&gt;Ada") && !text.contains("<b>Ada"), "{text}");

    let fields = [fields[0], ("name", "Ada"), fields[2], ("password", PASSWORD)];
    let origin = format!("http://{}", gateway.address);
    let done = form(&gateway, "/setup", &fields).header("origin", &origin).send().await.unwrap();
    assert_eq!((done.status().as_u16(), done.headers()["location"].to_str().unwrap()), (303, "/"));
    let cookies = cookies(&done);

    let home = page(&gateway, "/").header("cookie", &cookies).send().await.unwrap();
    assert_eq!(home.status(), 200);
    let text = home.text().await.unwrap();
    assert!(text.contains("callboard deploy") && text.contains("Ada"), "an empty home says what is next: {text}");
    let created = gateway
        .post("/api/v1/projects", &json!({"name": "shop"}))
        .header("cookie", &cookies)
        .header("sec-fetch-site", "same-origin")
        .send()
        .await
        .unwrap();
    assert_eq!(created.status(), 201);
    let text = page(&gateway, "/").header("cookie", &cookies).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("href=\"/apps/shop\"") && text.contains("/apps/shop/deploy"), "{text}");

    let out =
        form(&gateway, "/sign-out", &[]).header("origin", &origin).header("cookie", &cookies).send().await.unwrap();
    assert_eq!(out.headers()["location"], "/sign-in");
    let home = page(&gateway, "/").header("cookie", &cookies).send().await.unwrap();
    assert_eq!(home.headers()["location"], "/sign-in", "the session ended, not only the cookie");
    gateway.end().await;
}

#[actix_rt::test]
async fn a_page_of_another_origin_can_do_nothing_in_the_user_s_name() {
    let gateway = TestGateway::new().await;
    gateway.administrator().await;
    let fields = [("email", "admin@example.com"), ("password", PASSWORD)];
    let own = format!("http://{}", gateway.address);
    for (name, value) in
        [("origin", "null"), ("origin", "http://evil.example.com"), ("sec-fetch-site", "same-site"), ("x-none", "")]
    {
        let response = form(&gateway, "/sign-in", &fields).header(name, value).send().await.unwrap();
        assert_eq!(response.status(), 403, "{name}: {value}");
        assert!(!response.headers().contains_key("set-cookie"));
    }
    let wrong = [fields[0], ("password", "another password")];
    let response = form(&gateway, "/sign-in", &wrong).header("origin", &own).send().await.unwrap();
    assert_eq!(response.status(), 403);
    assert!(response.text().await.unwrap().contains("password is wrong"));

    let signed_in = form(&gateway, "/sign-in", &fields).header("origin", &own).send().await.unwrap();
    assert_eq!(signed_in.status(), 303);
    let cookies = cookies(&signed_in);
    let body = json!({"name": "stolen"});
    for (name, value) in
        [("origin", "http://app.localhost"), ("origin", "null"), ("sec-fetch-site", "cross-site"), ("x-none", "")]
    {
        let request = gateway.post("/api/v1/projects", &body).header("cookie", &cookies).header(name, value);
        assert_eq!(request.send().await.unwrap().status(), 403, "{name}: {value}");
    }
    let read = gateway.get("/api/v1/projects").header("cookie", &cookies).send().await.unwrap();
    assert_eq!(read.status(), 200);
    gateway.end().await;
}

#[actix_rt::test]
async fn a_browser_stays_signed_in_by_its_refresh_token() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let refresh = format!("callboard_refresh={}", user.tokens.refresh_token.expose());
    let response = page(&gateway, "/").header("cookie", &refresh).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let renewed = cookies(&response);
    assert!(renewed.contains("callboard_access=") && renewed.contains("callboard_refresh="), "{renewed}");
    let api = gateway.get("/api/v1/projects").header("cookie", &renewed).send().await.unwrap();
    assert_eq!(api.status(), 200);
    assert_eq!(page(&gateway, "/").send().await.unwrap().headers()["location"], "/sign-in");
    gateway.end().await;
}

#[actix_rt::test]
async fn with_tls_cookies_are_bound_to_the_host() {
    let gateway =
        TestGateway::with(|settings| settings.public_url = Some("https://callboard.example.com".parse().unwrap()))
            .await;
    gateway.administrator().await;
    let fields = [("email", "admin@example.com"), ("password", PASSWORD)];
    let response =
        form(&gateway, "/sign-in", &fields).header("origin", "https://callboard.example.com").send().await.unwrap();
    assert_eq!(response.status(), 303);
    assert!(response.headers().contains_key("strict-transport-security"));
    for cookie in response.headers().get_all("set-cookie") {
        let text = cookie.to_str().unwrap();
        assert!(text.starts_with("__Host-callboard_") && text.contains("Secure"), "{text}");
    }
    gateway.end().await;
}

#[actix_rt::test]
async fn the_reference_and_its_assets_come_from_the_node_itself() {
    let gateway = TestGateway::new().await;
    let page = gateway.get("/docs").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let text = page.text().await.unwrap();
    assert!(!text.contains("https://") && !text.contains("http://"), "nothing is loaded from elsewhere");
    assert!(!text.contains("<script>") && !text.contains("style="), "inline code");
    let mut names = Vec::new();
    for attribute in ["href=\"/assets/", "src=\"/assets/"] {
        for asset in text.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()) {
            let response = gateway.get(&format!("/assets/{asset}")).send().await.unwrap();
            assert_eq!(response.status(), 200, "{asset}");
            assert!(response.headers()["cache-control"].to_str().unwrap().contains("immutable"));
            let name = asset.split_once('-').unwrap().1.to_owned();
            let is_swagger = name.starts_with("swagger-ui");
            assert!(response.headers().get("content-encoding").is_some_and(|gzip| gzip == "gzip"), "{asset}");
            assert!(response.content_length().unwrap() > if is_swagger { 10_000 } else { 100 }, "{asset}");
            names.push(name);
        }
    }
    names.sort();
    names.dedup();
    assert_eq!(names, ["docs.js", "icon.svg", "style.css", "swagger-ui-bundle.js", "swagger-ui.css"]);
    assert!(gateway.get("/docs/problems").send().await.unwrap().text().await.unwrap().contains("id=\"not_found\""));
    let missing = gateway.get("/nowhere").header("accept", "text/html").send().await.unwrap();
    assert_eq!(missing.status(), 404);
    assert!(missing.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let user = gateway.administrator().await;
    assert_eq!(gateway.get("/api/v1/actors").by(&user).send().await.unwrap().status(), 200);
    gateway.end().await;
}

#[actix_rt::test]
async fn a_new_sign_in_ends_the_session_that_it_replaces() {
    let gateway = TestGateway::new().await;
    gateway.administrator().await;
    let fields = [("email", "admin@example.com"), ("password", PASSWORD)];
    let sign_in = |cookies: &str, fields: &[(&str, &str)]| {
        form(&gateway, "/sign-in", fields).header("sec-fetch-site", "same-origin").header("cookie", cookies).send()
    };
    let first = cookies(&sign_in("", &fields).await.unwrap());
    let home =
        async |cookies: &str| page(&gateway, "/").header("cookie", cookies).send().await.unwrap().status().as_u16();
    assert_eq!(home(&first).await, 200);
    let wrong = sign_in(&first, &[fields[0], ("password", "another password")]).await.unwrap();
    assert_eq!(wrong.status(), 403);
    assert_eq!(home(&first).await, 200);

    let second = sign_in(&first, &fields).await.unwrap();
    assert_eq!(second.status(), 303);
    assert_eq!(home(&cookies(&second)).await, 200);
    assert_eq!(home(&first).await, 303, "the session before has ended, not only its cookie");
    gateway.end().await;
}

#[actix_rt::test]
async fn a_browser_is_known_again_after_its_session() {
    let gateway = TestGateway::new().await;
    gateway.administrator().await;
    let right = [("email", "admin@example.com"), ("password", PASSWORD)];
    let send = |path: &'static str, cookies: &str, fields: &[(&str, &str)]| {
        form(&gateway, path, fields).header("sec-fetch-site", "same-origin").header("cookie", cookies).send()
    };
    let signed_in = cookies(&send("/sign-in", "", &right).await.unwrap());
    let device = signed_in.split("; ").find(|cookie| cookie.starts_with("callboard_device=")).unwrap().to_owned();
    let out = send("/sign-out", &signed_in, &[]).await.unwrap();
    assert!(!cookies(&out).contains("callboard_device"), "it stays known");

    for _ in 0..5 {
        send("/sign-in", "", &[right[0], ("password", "another password")]).await.unwrap();
    }
    let stranger = send("/sign-in", "", &right).await.unwrap();
    assert_eq!(stranger.status(), 429);
    assert!(stranger.headers().contains_key("retry-after"), "a page says when to come again, too");
    assert_eq!(send("/sign-in", &device, &right).await.unwrap().status(), 303);
    gateway.end().await;
}
