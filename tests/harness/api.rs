//! The HTTP API, in a role.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::PASSWORD;

/// Somebody who talks to the node.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    port: u16,
    pub token: Option<String>,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
    pub text: String,
}

impl Answer {
    /// The view; the request must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        self.body
    }

    /// The problem details; the request must have been refused with this status.
    #[track_caller]
    pub fn refused(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.body["status"], status, "problem details: {}", self.text);
        assert!(self.body["code"].is_string() && self.body["request_id"].is_string(), "{}", self.text);
        self.body
    }
}

impl Api {
    pub fn new(port: u16, token: Option<String>) -> Self {
        let http = super::http().build().unwrap();
        Self { http, port, token }
    }

    /// Of the node that it talks to.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The same client with another credential.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// A request to a path below `/api/v1`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.raw(method, &format!("/api/v1{path}"))
    }

    /// A request to any path.
    pub fn raw(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("http://127.0.0.1:{}{path}", self.port));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        Answer { status, body: serde_json::from_str(&text).unwrap_or_default(), text }
    }

    /// Looks once, whatever comes of it: for who asks again.
    pub async fn look(&self, path: &str) -> Result<Value, String> {
        let response = self.request(Method::GET, path).send().await.map_err(|error| error.to_string())?;
        let status = response.status();
        let text = response.text().await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(format!("{status} {text}"));
        }
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Registers, and is that person from then on.
    pub async fn register(&self, email: &str, invitation: Option<&str>) -> Self {
        let body = json!({ "email": email, "password": PASSWORD, "invitation": invitation });
        let tokens = self.post("/auth/register", body).await.ok();
        self.with_token(tokens["access_token"].as_str().unwrap())
    }

    /// Creates a project; its id.
    pub async fn create_project(&self, name: &str) -> String {
        let project = self.post("/projects", json!({ "name": name })).await.ok();
        project["id"].as_str().unwrap().to_owned()
    }

    /// The id of the project with this name.
    pub async fn project(&self, name: &str) -> String {
        let page = self.get(&format!("/projects?name={name}")).await.ok();
        page["items"][0]["id"].as_str().unwrap_or_else(|| panic!("no project {name}: {page}")).to_owned()
    }

    /// Uploads an archive and begins a deployment of it; what the last of the two answered.
    pub async fn deploy_archive(&self, project: &str, archive: Vec<u8>) -> Answer {
        let upload = self.request(Method::POST, &format!("/projects/{project}/sources")).body(archive);
        let source = self.send(upload.header("Content-Type", "application/gzip")).await;
        if !source.status.is_success() {
            return source;
        }
        let source = json!({ "archive": { "source_id": source.body["id"] } });
        self.post(&format!("/projects/{project}/deployments"), json!({ "source": source })).await
    }
}
