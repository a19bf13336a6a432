//! Tests of the pages' forms: what is sent too much of, twice, too late, or for somebody else.

use futures_util::{StreamExt, stream};
use reqwest::{Body, RequestBuilder, Response};
use serde_json::{Value, json};

use super::{
    fixture::{By, TestGateway, User},
    pages::{browse, form},
};

/// A form that one of our own pages sends.
fn own(request: RequestBuilder) -> RequestBuilder {
    request.header("sec-fetch-site", "same-origin")
}

async fn save(gateway: &TestGateway, user: &User, fields: &[(&str, &str)]) -> Response {
    own(form(gateway, "/apps/shop/variables", fields)).by(user).send().await.unwrap()
}

async fn variables(gateway: &TestGateway, user: &User, project: &Value) -> Value {
    let path = format!("/api/v1/projects/{}/env", project["id"].as_str().unwrap());
    gateway.get(&path).by(user).send().await.unwrap().json().await.unwrap()
}

#[actix_rt::test]
async fn countless_fields_of_nobody_are_not_handed_back() {
    let gateway = TestGateway::new().await;
    gateway.administrator().await;
    let fields = "a&".repeat(520_000);
    for cookie in ["", "callboard_device=x", "callboard_access=x"] {
        let request = form(&gateway, "/apps/shop/variables", &[]).body(fields.clone()).header("cookie", cookie);
        let told = own(request).send().await.unwrap();
        assert_eq!(told.status(), 401);
        let text = told.text().await.unwrap();
        assert!(text.len() < 8_192 && !text.contains("<textarea"), "{cookie}: {} bytes", text.len());
    }
    gateway.end().await;
}

#[actix_rt::test]
async fn an_upload_after_the_session_is_chosen_again_on_its_page() {
    let gateway = TestGateway::new().await;
    gateway.administrator().await;
    let body = "--x\r\nContent-Disposition: form-data; name=\"archive\"; filename=\"a\"\r\n\r\nabc\r\n--x--\r\n";
    let request = form(&gateway, "/apps/shop/deploy/upload", &[]).body(body).header("cookie", "callboard_device=x");
    // The later header takes the place of the form's.
    let mut request = own(request).build().unwrap();
    request.headers_mut().insert("content-type", "multipart/form-data; boundary=x".parse().unwrap());
    let told = gateway.execute(request).await;
    assert_eq!(told.status(), 401);
    let text = told.text().await.unwrap();
    assert!(text.contains("choose the archive again") && text.contains("deploy?from=upload"), "{text}");
    assert!(!text.contains("Send again"), "{text}");
    gateway.end().await;
}

#[actix_rt::test]
async fn a_form_acts_for_the_organization_that_its_page_was_shown_for_or_not_at_all() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let page = browse(&gateway, "/apps/new?from=example").by(&user).send().await.unwrap().text().await.unwrap();
    let (_, rest) = page.split_once("name=\"organization\" value=\"").expect("the form names its organization");
    let shown_for = rest.split_once('"').unwrap().0.to_owned();
    let other = uuid::Uuid::now_v7().to_string();
    let make = |organization: &str| {
        let fields = [("from", "example"), ("example", "static"), ("name", "shop"), ("organization", organization)];
        own(form(&gateway, "/apps/new", &fields)).by(&user).send()
    };
    let refused = make(&other).await.unwrap();
    assert_eq!(refused.status(), 409);
    let text = refused.text().await.unwrap();
    assert!(text.contains("opened for another organization") && text.contains("data-detail"), "{text}");
    let body = format!("--x\r\nContent-Disposition: form-data; name=\"organization\"\r\n\r\n{other}\r\n--x--\r\n");
    let upload = gateway.request("POST", "/apps/new/upload").header("content-type", "multipart/form-data; boundary=x");
    assert_eq!(own(upload.body(body)).by(&user).send().await.unwrap().status(), 409);
    let projects: Value = gateway.get("/api/v1/projects").by(&user).send().await.unwrap().json().await.unwrap();
    assert_eq!(projects["items"], json!([]), "nothing was made");
    make(&shown_for).await.unwrap();
    let projects: Value = gateway.get("/api/v1/projects").by(&user).send().await.unwrap().json().await.unwrap();
    assert_eq!(projects["items"][0]["name"], "shop");
    gateway.end().await;
}

#[actix_rt::test]
async fn variables_keep_every_line_and_say_what_stays_plain() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let project = gateway.project(&user, "shop").await;
    let saved = save(&gateway, &user, &[("name.0", "LINES"), ("value.0", "\r\nfirst"), ("version", "0")]).await;
    assert_eq!(saved.status(), 303);
    let page = browse(&gateway, "/apps/shop/variables").by(&user).send().await.unwrap().text().await.unwrap();
    // A browser drops the first newline of a text area.
    assert!(page.contains(">\n\nfirst</textarea>"), "{page}");

    let import = "LINES=\"one\r\ntwo\" # why\r\nNEW= # a comment\r\n";
    let fields = [("name.0", "LINES"), ("known.0", "1"), ("was.0", "\r\nfirst"), ("value.0", "\r\nfirst")];
    let saved = save(&gateway, &user, &[&fields[..], &[("version", "1"), ("import", import)]].concat()).await;
    assert_eq!(saved.status(), 303);
    let toast = saved.headers()["set-cookie"].to_str().unwrap();
    assert!(toast.contains("LINES%20was%20plain"), "{toast}");
    let environment = variables(&gateway, &user, &project).await;
    assert_eq!(environment["variables"][0]["value"], "one\ntwo");
    assert_eq!(environment["variables"][1]["secret"], true);
    gateway.end().await;
}

#[actix_rt::test]
async fn variables_that_are_refused_are_shown_once_as_they_were_typed() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    gateway.project(&user, "shop").await;
    let unnamed = save(&gateway, &user, &[("name.0", "A"), ("value.0", "1"), ("value.1", "typed")]).await;
    assert_eq!(unnamed.status(), 400);
    let text = unnamed.text().await.unwrap();
    assert!(text.contains("give the value in row 2 a name") && text.contains(">\ntyped</textarea>"), "{text}");

    let refused = save(&gateway, &user, &[("import", "PORT=4711")]).await;
    assert_eq!(refused.status(), 400);
    let text = refused.text().await.unwrap();
    assert!(text.contains("set by the platform") && text.contains("\nPORT=4711</textarea>"), "{text}");
    assert!(!text.contains("value=\"PORT\""), "in the import only: {text}");

    let many: String = (0..20_000).map(|number| format!("A{number}=1\n")).collect();
    let text = save(&gateway, &user, &[("import", &many)]).await.text().await.unwrap();
    assert!(text.contains("there are more than 512 variables"), "{}", text.len());
    gateway.end().await;
}

#[actix_rt::test]
async fn who_may_not_save_variables_is_told_so_before_they_are_read() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    gateway.project(&user, "shop").await;
    let key = json!({"name": "reader", "scopes": ["project:read", "deploy:read"]});
    let made = gateway.post("/api/v1/auth/api-keys", &key).by(&user).send().await.unwrap();
    let made: Value = made.json().await.unwrap();
    let key = made["secret"].as_str().unwrap();
    let fields = [("name.0", "A"), ("value.0", "1"), ("import", "nonsense")];
    let refused = own(form(&gateway, "/apps/shop/variables", &fields)).bearer_auth(key).send().await.unwrap();
    assert_eq!(refused.status(), 403);
    let text = refused.text().await.unwrap();
    assert!(text.contains("project:write"), "{text}");
    gateway.end().await;
}

#[actix_rt::test]
async fn another_app_s_deployment_is_not_below_this_one() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let (shop, other) = (gateway.project(&user, "shop").await, gateway.project(&user, "other").await);
    let at = |project: &Value, what: &str| format!("/apps/shop/deployments/{}/{what}", project["id"].as_str().unwrap());
    let log = |project| browse(&gateway, &at(project, "log.txt")).by(&user).send();
    assert_eq!(log(&shop).await.unwrap().status(), 200);
    assert_eq!(log(&other).await.unwrap().status(), 404);
    for what in ["cancel", "redeploy"] {
        let refused = own(form(&gateway, &at(&other, what), &[])).by(&user).send().await.unwrap();
        assert_eq!(refused.status(), 404, "{what}");
    }
    gateway.end().await;
}

#[actix_rt::test]
async fn a_page_says_what_it_does_not_know_and_is_compressed_only_for_who_takes_it() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    gateway.project(&user, "shop").await;
    // Deploy answers nothing about the app here.
    let page = browse(&gateway, "/apps/shop").by(&user).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("It is not known how this app is") && !page.contains("Nothing is deployed yet"), "{page}");
    for (accepts, compressed) in
        [("gzip, br", true), ("br;q=1.0, gzip;q=0.8", true), ("gzip;q=0", false), ("identity", false), ("br", false)]
    {
        let page = browse(&gateway, "/apps/shop").by(&user).header("accept-encoding", accepts).send().await.unwrap();
        assert_eq!(page.headers().contains_key("content-encoding"), compressed, "{accepts}");
    }
    gateway.end().await;
}

#[actix_rt::test]
async fn an_upload_that_stands_still_before_its_file_is_given_up() {
    let gateway = TestGateway::with(|settings| settings.body_timeout_seconds = 1).await;
    let user = gateway.administrator().await;
    let begun = "--x\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nsh";
    let body = stream::iter([Ok::<_, std::io::Error>(begun)]).chain(stream::pending());
    let request = gateway.request("POST", "/apps/new/upload").header("content-type", "multipart/form-data; boundary=x");
    let request = own(request.header("accept", "text/html")).by(&user).body(Body::wrap_stream(body));
    let told = request.send().await.unwrap();
    assert_eq!(told.status(), 408);
    assert!(told.text().await.unwrap().contains("did not arrive in time"));
    gateway.end().await;
}
