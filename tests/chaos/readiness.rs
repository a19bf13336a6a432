//! Whether `/ready` says what a request meets. At each node a watcher asks both, side by side, for as long as the
//! campaign goes on: before a request, the request of each domain, and after it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use reqwest::{Client, StatusCode};
use serde_json::Value;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::harness::http;

/// How long `/ready` and the requests may contradict each other: what has just broken or healed must be found first.
const FOUND_WITHIN: Duration = Duration::from_secs(6);
const EVERY: Duration = Duration::from_millis(500);

/// The watchers of all nodes. They end when it is dropped.
pub struct Watchers {
    tasks: Vec<JoinHandle<()>>,
    lies: Arc<Mutex<Vec<String>>>,
}

impl Watchers {
    /// Begins to watch the nodes at these ports with the token of somebody who owns the project.
    pub fn begin(ports: &[u16], token: &str, project: Uuid) -> Self {
        let lies = Arc::new(Mutex::default());
        let watch = |port: &u16| {
            let watcher = Watcher {
                http: http().timeout(Duration::from_secs(20)).build().unwrap(),
                port: *port,
                token: token.to_owned(),
                reads: [
                    ("auth", "/auth/sessions".to_owned()),
                    ("organization", "/organizations".to_owned()),
                    ("project", format!("/projects/{project}")),
                    ("deploy", format!("/projects/{project}/releases")),
                ],
                since: BTreeMap::new(),
                lies: Arc::clone(&lies),
            };
            tokio::spawn(watcher.watch())
        };
        Self { tasks: ports.iter().map(watch).collect(), lies: Arc::clone(&lies) }
    }

    /// What they found.
    pub fn lies(&self) -> Vec<String> {
        self.lies.lock().clone()
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct Watcher {
    http: Client,
    port: u16,
    token: String,
    /// A request of each domain that reads from its database.
    reads: [(&'static str, String); 4],
    /// Since when `/ready` has said of a domain what its requests contradict.
    since: BTreeMap<&'static str, Instant>,
    lies: Arc<Mutex<Vec<String>>>,
}

impl Watcher {
    async fn watch(mut self) {
        loop {
            tokio::time::sleep(EVERY).await;
            for (domain, path) in self.reads.clone() {
                self.compare(domain, &path).await;
            }
        }
    }

    /// Only what `/ready` says before and after a request is held against it, and only when it goes on being wrong.
    async fn compare(&mut self, domain: &'static str, path: &str) {
        let before = self.said().await;
        let asked = Instant::now();
        let met = self.met(path).await;
        let after = self.said().await;
        // A node that does not answer says nothing.
        let (Some(before), Some(met), Some(after)) = (before, met, after) else {
            self.since.remove(domain);
            return;
        };
        let all = |said: &BTreeMap<String, bool>| said.values().all(|ready| *ready);
        let says_ready = all(&before) && all(&after);
        let says_away = before.get(domain) == Some(&false) && after.get(domain) == Some(&false);
        let contradicts = if met { says_away } else { says_ready };
        if !contradicts {
            self.since.remove(domain);
            return;
        }
        let since = *self.since.entry(domain).or_insert(asked);
        if since.elapsed() > FOUND_WITHIN {
            let said = if met { "not to be ready, and it answered" } else { "to be ready, and it did not answer" };
            self.lies.lock().push(format!("for {:?} /ready at {} said {domain} {said}", since.elapsed(), self.port));
            self.since.remove(domain);
        }
    }

    /// What `/ready` says of each domain.
    async fn said(&self) -> Option<BTreeMap<String, bool>> {
        let response = self.http.get(format!("http://127.0.0.1:{}/ready", self.port)).send().await.ok()?;
        let body: Value = response.json().await.ok()?;
        if !["ready", "impaired", "unavailable"].iter().any(|status| body["status"] == *status) {
            // It begins or ends, and takes no requests.
            return None;
        }
        let domains = body["domains"].as_array()?;
        Some(
            domains.iter().filter_map(|of| Some((of["domain"].as_str()?.to_owned(), of["ready"].as_bool()?))).collect(),
        )
    }

    /// Whether a request was answered by its domain.
    async fn met(&self, path: &str) -> Option<bool> {
        let url = format!("http://127.0.0.1:{}/api/v1{path}", self.port);
        let status = self.http.get(url).bearer_auth(&self.token).send().await.ok()?.status();
        Some(!matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT | StatusCode::BAD_GATEWAY))
    }
}
