//! The HTTP client of the command line: one node, one credential, every answer either the view or an [`Error`].

pub mod contexts;
pub mod live;
pub mod pack;
pub mod target;

use std::{path::PathBuf, time::Duration};

use callboard_deploy::logs::terminal::one_line;
use callboard_messages::{Secret, auth::Tokens};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::RwLock;
use url::Url;
use uuid::Uuid;

use crate::error::{Error, Result, Status};
use contexts::SavedContext;

/// How long a node may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may be silent while an answer is under way. The live stream sends a comment more often than that.
const SILENCE: Duration = Duration::from_secs(60);
/// How often the file of the node on this machine is read again when its key is refused.
const LOCAL_KEY_TRIES: u32 = 10;
const LOCAL_KEY_PAUSE: Duration = Duration::from_millis(50);

/// Who the command line is to the node.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Nobody.
    None,
    /// An API key from `CALLBOARD_TOKEN`.
    Key(Secret),
    /// The API key of the node on this machine, which each of its starts replaces.
    Local(Secret, PathBuf),
    /// A session of a saved context, renewed by itself.
    Session(SavedContext),
}

/// A node as the command line talks to it.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    credential: RwLock<Credential>,
}

/// Problem details, RFC 9457: what a node answers when it does not do what it was asked.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: Option<String>,
    code: Option<String>,
    request_id: Option<String>,
}

/// What a node says at `/ready`.
#[derive(Debug, Deserialize)]
pub struct Ready {
    /// Each domain.
    pub domains: Vec<ReadyDomain>,
}

/// What a request to a domain would meet.
#[derive(Debug, Deserialize)]
pub struct ReadyDomain {
    /// The domain.
    pub domain: String,
    /// Whether it would be taken.
    pub ready: bool,
    /// If not, which part is away.
    pub part: Option<String>,
    /// If not, why not.
    pub reason: Option<String>,
}

impl Client {
    /// A client of the node at `base`.
    pub fn new(base: Url, credential: Credential) -> Result<Self> {
        install_crypto_provider();
        let http = reqwest::Client::builder()
            .user_agent(concat!("callboard/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()
            .map_err(|error| Error::failure(format!("could not set up the HTTP client: {error}")))?;
        Ok(Self { http, base, credential: RwLock::new(credential) })
    }

    /// Where the node is.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Reads.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::GET, path, None::<&()>).await
    }

    /// Creates or starts something. A key makes the request safe to repeat.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Replaces.
    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.ask(Method::PUT, path, Some(body)).await
    }

    /// Removes.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::DELETE, path, None::<&()>).await
    }

    /// What the node says of its domains. One that may be sent no traffic says it too.
    pub async fn ready(&self) -> Result<Ready> {
        let url = format!("{}/ready", self.base.as_str().trim_end_matches('/'));
        let response = self.http.get(url).send().await.map_err(|error| self.unreachable(&error))?;
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body).map_err(|error| Error::failure(format!("/ready can't be read: {error}")))
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<T> {
        let url = self.url(path)?;
        let key = Uuid::now_v7().to_string();
        let response = self
            .send(|http| {
                let mut request = http.request(method.clone(), url.clone());
                if method == Method::POST {
                    request = request.header("Idempotency-Key", &key);
                }
                match body {
                    Some(body) => request.json(body),
                    None => request,
                }
            })
            .await?;
        self.read(response).await
    }

    /// Sends a file as it is.
    pub async fn upload<T: DeserializeOwned>(&self, path: &str, archive: &std::path::Path, size: u64) -> Result<T> {
        let url = self.url(path)?;
        // A session that is about to expire is renewed before, because a body can't be sent twice.
        drop(self.get::<serde_json::Value>("/auth/whoami").await?);
        let file = tokio::fs::File::open(archive)
            .await
            .map_err(|error| Error::failure(format!("could not read the packed source: {error}")))?;
        let request = self
            .http
            .post(url)
            .header("Content-Type", "application/gzip")
            .header("Content-Length", size)
            .body(reqwest::Body::from(file));
        let response = self.authorized(request).await.send().await.map_err(|error| self.unreachable(&error))?;
        self.read(response).await
    }

    /// Opens the live stream of a topic.
    async fn open_stream(&self, topic: &str, after: Option<&str>) -> Result<Response> {
        let mut url = self.url("/live")?;
        url.query_pairs_mut().append_pair("topics", topic);
        let response = self
            .send(|http| {
                let mut request = http.get(url.clone()).header("Accept", "text/event-stream");
                if let Some(id) = after {
                    request = request.header("Last-Event-ID", id);
                }
                request
            })
            .await?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    fn url(&self, path: &str) -> Result<Url> {
        let joined = format!("{}/api/v1{path}", self.base.as_str().trim_end_matches('/'));
        Url::parse(&joined).map_err(|error| Error::usage(format!("{joined} is no URL: {error}")))
    }

    /// Sends once, and once more with a renewed session when the first was refused for its age.
    async fn send(&self, request: impl Fn(&reqwest::Client) -> RequestBuilder) -> Result<Response> {
        self.renew_if(SavedContext::expires_soon).await?;
        let send = async || self.authorized(request(&self.http)).await.send().await;
        let response = send().await.map_err(|error| self.unreachable(&error))?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let renewed = self.read_local_again().await? || self.renew_if(|_| true).await?;
        if !renewed {
            return Ok(response);
        }
        send().await.map_err(|error| self.unreachable(&error))
    }

    async fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &*self.credential.read().await {
            Credential::None => request,
            Credential::Key(key) | Credential::Local(key, _) => request.bearer_auth(key.expose()),
            Credential::Session(saved) => request.bearer_auth(saved.access_token.expose()),
        }
    }

    /// The key that a new start of the node on this machine has left. It stops the old key a moment before that.
    async fn read_local_again(&self) -> Result<bool> {
        let mut credential = self.credential.write().await;
        let Credential::Local(key, path) = &mut *credential else { return Ok(false) };
        for _ in 0..LOCAL_KEY_TRIES {
            match target::read_local(path)? {
                Some(local) if local.key != *key => {
                    *key = local.key;
                    return Ok(true);
                }
                _ => tokio::time::sleep(LOCAL_KEY_PAUSE).await,
            }
        }
        Ok(false)
    }

    /// Exchanges the refresh token, and saves its successor before anything else is done with it.
    async fn renew_if(&self, due: impl Fn(&SavedContext) -> bool) -> Result<bool> {
        let mut credential = self.credential.write().await;
        let Credential::Session(saved) = &mut *credential else { return Ok(false) };
        let Some(refresh_token) = saved.refresh_token.clone().filter(|_| due(saved)) else { return Ok(false) };
        let body = serde_json::json!({ "refresh_token": refresh_token });
        let request = self.http.post(self.url("/auth/refresh")?).json(&body);
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let tokens: Tokens = self.read(response).await?;
        saved.take(&tokens);
        contexts::store(saved)?;
        Ok(true)
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T> {
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let body: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(body).map_err(|error| {
            Error::failure(format!("{} answered something this version does not understand: {error}", self.base))
                .hint("use the same version of callboard on both sides")
        })
    }

    async fn refusal(&self, response: Response) -> Error {
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
        let sentence = match problem.detail.filter(|detail| !detail.is_empty()) {
            Some(detail) => one_line(&detail),
            None if problem.title.is_empty() => format!("{} answered {status}", self.base),
            None => one_line(&problem.title),
        };
        if status == StatusCode::UNAUTHORIZED {
            let hint = format!("sign in with: callboard login {}", self.base.as_str().trim_end_matches('/'));
            let error = Error::new(Status::NotSignedIn, sentence).hint(hint);
            return Error { code: problem.code, request_id: problem.request_id, ..error };
        }
        let error = Error::failure(sentence);
        let error = match (problem.code.as_deref(), &problem.request_id) {
            (Some("internal"), Some(id)) => error.hint(format!("the node's log tells more; request id {id}")),
            (Some("too_large"), _) => error.hint("list files the app does not need in .callboardignore"),
            _ => error,
        };
        Error { code: problem.code, request_id: problem.request_id, ..error }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        if error.is_connect() {
            return Error::new(Status::Unreachable, format!("no node answers at {}: {cause}", self.base))
                .hint("start one with: callboard dev");
        }
        Error::new(Status::Unreachable, format!("the connection to {} broke: {cause}", self.base))
    }
}

/// The one provider of cryptography of the process; a second installation is refused and changes nothing.
pub fn install_crypto_provider() {
    drop(rustls::crypto::ring::default_provider().install_default());
}
