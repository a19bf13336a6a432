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

/// A form, as a browser sends it.
pub(super) fn form(gateway: &TestGateway, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    gateway
        .request("POST", path)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "text/html")
        .body(body)
}

/// A page, as a browser asks for it.
pub(super) fn browse(gateway: &TestGateway, path: &str) -> RequestBuilder {
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

    let home = browse(&gateway, "/").header("cookie", &cookies).send().await.unwrap();
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
    let text = browse(&gateway, "/").header("cookie", &cookies).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("href=\"/apps/shop\"") && text.contains("/apps/shop/deploy"), "{text}");

    let out =
        form(&gateway, "/sign-out", &[]).header("origin", &origin).header("cookie", &cookies).send().await.unwrap();
    assert_eq!(out.headers()["location"], "/sign-in");
    let home = browse(&gateway, "/").header("cookie", &cookies).send().await.unwrap();
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
    let response = browse(&gateway, "/").header("cookie", &refresh).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let renewed = cookies(&response);
    assert!(renewed.contains("callboard_access=") && renewed.contains("callboard_refresh="), "{renewed}");
    let api = gateway.get("/api/v1/projects").header("cookie", &renewed).send().await.unwrap();
    assert_eq!(api.status(), 200);
    assert_eq!(browse(&gateway, "/").send().await.unwrap().headers()["location"], "/sign-in");
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
        async |cookies: &str| browse(&gateway, "/").header("cookie", cookies).send().await.unwrap().status().as_u16();
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

#[actix_rt::test]
async fn whoever_is_not_signed_in_comes_back_to_the_page_and_to_what_was_typed() {
    let gateway = TestGateway::new().await;
    gateway.administrator().await;
    let away = browse(&gateway, "/apps/shop/variables?a=b").send().await.unwrap();
    assert_eq!(
        (away.status().as_u16(), away.headers()["location"].to_str().unwrap()),
        (303, "/sign-in?next=%2Fapps%2Fshop%2Fvariables%3Fa%3Db")
    );
    assert_eq!(gateway.get("/apps/shop").send().await.unwrap().status(), 401, "a program is told so");
    let fields = [("email", "admin@example.com"), ("password", PASSWORD), ("next", "/apps/shop?a=b")];
    let signed_in = form(&gateway, "/sign-in", &fields).header("sec-fetch-site", "same-origin").send().await.unwrap();
    assert_eq!(signed_in.headers()["location"], "/apps/shop?a=b");

    let typed = [("name", "shop"), ("description", "<typed>\nin two lines")];
    let told = form(&gateway, "/apps/new", &typed).header("sec-fetch-site", "same-origin");
    let told = told.header("cookie", "callboard_device=x").send().await.unwrap();
    assert_eq!(told.status(), 401);
    let text = told.text().await.unwrap();
    assert!(text.contains("Send again") && text.contains("name=\"description\""), "{text}");
    assert!(text.contains("&lt;typed&gt;\nin two lines"), "{text}");
    let foreign = form(&gateway, "/apps/new", &typed).header("sec-fetch-site", "cross-site").send().await.unwrap();
    assert!(!foreign.text().await.unwrap().contains("typed"), "another site's form is not handed back");
    gateway.end().await;
}

#[actix_rt::test]
async fn the_pages_act_for_the_organization_that_was_chosen_until_it_is_gone() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    gateway.project(&user, "shop").await;
    let session = format!("callboard_access={}", user.token());
    let send = |path: &'static str, cookies: &str, fields: &[(&str, &str)]| {
        form(&gateway, path, fields).header("sec-fetch-site", "same-origin").header("cookie", cookies).send()
    };
    let made = send("/organization", &session, &[("name", "team"), ("display_name", "The team")]).await.unwrap();
    assert_eq!(made.status(), 303);
    let chosen = format!("{session}; {}", cookies(&made));
    let text = browse(&gateway, "/").header("cookie", &chosen).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("The team") && text.contains("Start here") && !text.contains("/apps/shop"), "{text}");
    assert!(text.contains("You act for The team now."), "what was done is told: {text}");
    let api: serde_json::Value =
        gateway.get("/api/v1/projects").header("cookie", &chosen).send().await.unwrap().json().await.unwrap();
    assert_eq!(api["items"], json!([]), "what a script asks for is of the same organization");

    let gone = format!("{session}; callboard_organization={}", uuid::Uuid::now_v7());
    let home = browse(&gateway, "/").header("cookie", &gone).send().await.unwrap();
    let cleared = home.headers().get_all("set-cookie").iter().any(|cookie| {
        let text = cookie.to_str().unwrap();
        text.starts_with("callboard_organization=;") && text.contains("Max-Age=0")
    });
    assert!(cleared, "{:?}", home.headers());
    assert!(home.text().await.unwrap().contains("/apps/shop"), "the session's own organization takes its place");
    gateway.end().await;
}

#[actix_rt::test]
async fn what_is_refused_is_told_at_its_field_and_what_was_typed_stays() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let session = format!("callboard_access={}", user.token());
    let fields = [("from", "example"), ("example", "static"), ("name", "No Name"), ("attempt", "x")];
    let again = form(&gateway, "/apps/new", &fields).header("sec-fetch-site", "same-origin").header("cookie", &session);
    let again = again.send().await.unwrap();
    assert_eq!(again.status(), 400);
    let text = again.text().await.unwrap();
    assert!(text.contains("value=\"No Name\"") && text.contains("aria-invalid=\"true\""), "{text}");
    assert!(text.contains("may hold only a-z, 0-9 and -"), "{text}");
    gateway.end().await;
}

#[actix_rt::test]
async fn another_tenant_s_app_is_on_no_page() {
    let gateway = TestGateway::new().await;
    let owner = gateway.administrator().await;
    let stranger = gateway.user("stranger@example.com").await;
    gateway.project(&owner, "shop").await;
    let of_apps = crate::route_table().into_iter().filter(|route| route.path.starts_with("/apps/{name}"));
    let mut walked = 0;
    for route in of_apps {
        let path = route.path.replace("{name}", "shop").replace("{version}", "1");
        let path = path.replace("{deployment_id}", &uuid::Uuid::now_v7().to_string());
        let request = match route.method.as_str() {
            "GET" => browse(&gateway, &path),
            _ if path.ends_with("/upload") => {
                gateway.request(&route.method, &path).header("content-type", "multipart/form-data; boundary=x").body(
                    "--x\r\nContent-Disposition: form-data; name=\"archive\"; filename=\"a\"\r\n\r\nabc\r\n--x--\r\n",
                )
            }
            _ => form(&gateway, &path, &[("typed", "shop")]),
        };
        let response = request.by(&stranger).header("sec-fetch-site", "same-origin").send().await.unwrap();
        assert_eq!(response.status(), 404, "{} {path}", route.method);
        let text = response.text().await.unwrap();
        assert!(!text.contains("shop.localhost"), "{text}");
        walked += 1;
    }
    assert!(walked > 20, "{walked}");
    gateway.end().await;
}

#[actix_rt::test]
async fn every_component_is_shown_where_pages_are_developed() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let shown = browse(&gateway, "/dashboard/components").by(&user).send().await.unwrap();
    assert_eq!(shown.status(), 200);
    let text = shown.text().await.unwrap();
    for part in [
        "class=\"status",
        "class=\"tabs",
        "aria-sort",
        "class=\"chart",
        "class=\"toast",
        "class=\"empty",
        "data-dialog",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("style=") && !text.contains("<script>"), "inline code");
    gateway.end().await;
}
