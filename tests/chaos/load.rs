//! A steady load: people sign in, create projects, deploy them and delete some. Whoever gets no answer, or one that says
//! "not now", asks another node with the same Idempotency-Key, until it is told.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use parking_lot::Mutex;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{cluster::Cluster, readiness::Watchers};
use crate::harness::{PASSWORD, http, random::Random};

/// No answer takes longer; a node's own deadlines are far below.
const ANSWER: Duration = Duration::from_secs(45);
/// How long an acknowledgement is waited for at the end, when all is well again.
const PATIENCE: Duration = Duration::from_secs(90);

/// What was acknowledged.
#[derive(Debug, Default, Clone)]
pub struct Done {
    /// Tokens of sign-ins.
    pub tokens: Vec<String>,
    /// Accounts, by address.
    pub accounts: Vec<String>,
    /// Projects that stay: name and id.
    pub projects: Vec<(String, Uuid)>,
    /// Projects that were deleted.
    pub deleted: Vec<Uuid>,
    /// Deployments, in their order: the id, the source it was made from, and what the page says.
    pub deployments: Vec<(Uuid, Uuid, String)>,
    /// Names of projects that were asked for, acknowledged or not.
    pub asked: Vec<String>,
    /// Answers that nobody should get.
    pub wrong: Vec<String>,
    pub requests: usize,
    /// Why somebody asked again, and how often.
    pub again: BTreeMap<String, usize>,
    pub slowest: Duration,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, of which again {:?}; acknowledged: {} sign-ins, {} accounts, {} projects, {} deletions, \
             {} deployments; the slowest answer took {:.1} s",
            self.requests,
            self.again,
            self.tokens.len(),
            self.accounts.len(),
            self.projects.len(),
            self.deleted.len(),
            self.deployments.len(),
            self.slowest.as_secs_f64()
        )
    }
}

/// Whose requests are never waited for.
pub const LEAVER: &str = "emil";
/// How many clients a storm has.
const STORM: usize = 24;

/// People at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<Mutex<Done>>,
    tasks: Vec<JoinHandle<()>>,
    ports: Vec<u16>,
    /// Of somebody who may create projects.
    token: String,
    storms: AtomicUsize,
    watchers: Option<Watchers>,
}

/// One of them.
pub struct Person {
    http: Client,
    ports: Vec<u16>,
    pub token: String,
    pub random: Random,
    stop: Arc<AtomicBool>,
    done: Arc<Mutex<Done>>,
    /// Unique in this campaign.
    pub name: String,
}

impl Load {
    /// An account for each, and off they go.
    pub async fn begin(cluster: &Cluster, random: &mut Random) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            done: Arc::default(),
            tasks: Vec::new(),
            ports: cluster.nodes.iter().map(|node| node.port).collect(),
            token: String::new(),
            storms: AtomicUsize::new(0),
            watchers: None,
        };
        for name in ["anna", "bert", "cora", "dirk", LEAVER] {
            let mut person = load.person(name, random.next());
            person.register(name).await;
            load.token.clone_from(&person.token);
            load.tasks.push(match name {
                "anna" => tokio::spawn(async move { person.sign_in_again_and_again().await }),
                "bert" | "cora" => tokio::spawn(async move { person.create_projects().await }),
                LEAVER => tokio::spawn(async move { person.leave_again_and_again().await }),
                _ => tokio::spawn(async move { person.deploy_again_and_again().await }),
            });
        }
        let mut owner = load.person("watched", random.next());
        let project = owner.project_that_stays("watched").await.expect("a project, while nothing breaks");
        load.watchers = Some(Watchers::begin(&load.ports, &load.token, project));
        load
    }

    fn person(&self, name: &str, seed: u64) -> Person {
        Person {
            // Whoever was not answered asks on a new connection.
            http: http().pool_max_idle_per_host(1).timeout(ANSWER).build().unwrap(),
            ports: self.ports.clone(),
            token: self.token.clone(),
            random: Random::new(seed),
            stop: self.stop.clone(),
            done: self.done.clone(),
            name: name.to_owned(),
        }
    }

    /// Clients that create a project and delete it, so many times each, all at once.
    pub async fn storm(&self, random: &mut Random, pairs: usize) {
        let storm = self.storms.fetch_add(1, Ordering::Relaxed);
        let clients = (0..STORM).map(|client| {
            let mut person = self.person(&format!("storm-{storm}-{client}"), random.next());
            async move { person.create_and_delete(pairs).await }
        });
        futures_util::future::join_all(clients).await;
    }

    /// They finish what they have begun, and tell.
    pub async fn end(&mut self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
        let mut done = self.done.lock().clone();
        done.wrong.extend(self.watchers.take().iter().flat_map(Watchers::lies));
        done
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Person {
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    async fn register(&mut self, name: &str) {
        let email = format!("{name}@example.com");
        let body = json!({ "email": email, "password": PASSWORD });
        // No key protects what answers with tokens: whose answer was lost finds the address taken, and signs in.
        let registered = self.until_told(Method::POST, "/api/v1/auth/register", |it| it.json(&body)).await;
        let tokens = match registered {
            Some((status, tokens)) if status.is_success() => tokens,
            _ => self.insist("/auth/login", |it| it.json(&body)).await.expect("an account"),
        };
        self.token = tokens["access_token"].as_str().expect("a token").to_owned();
        self.done.lock().accounts.push(email);
    }

    async fn sign_in_again_and_again(&mut self) {
        let body = json!({ "email": format!("{}@example.com", self.name), "password": PASSWORD });
        let mut number = 0;
        while self.goes_on() {
            if let Some(tokens) = self.insist("/auth/login", |it| it.json(&body)).await {
                let token = tokens["access_token"].as_str().expect("a token").to_owned();
                self.done.lock().tokens.push(token);
            }
            // A new person now and then: their organization is made by an event.
            number += 1;
            if number % 5 == 0 {
                let kept = self.token.clone();
                self.register(&format!("{}-{number}", self.name)).await;
                self.token = kept;
            }
            self.rest(300, 900).await;
        }
    }

    async fn create_projects(&mut self) {
        let mut number = 0;
        while self.goes_on() {
            number += 1;
            let name = format!("{}-{number}", self.name);
            self.done.lock().asked.push(name.clone());
            let Some(id) = self.create_project(&name).await else { continue };
            if self.random.chance(0.2) {
                if self.delete_project(id).await {
                    self.done.lock().deleted.push(id);
                }
            } else {
                self.done.lock().projects.push((name, id));
            }
            self.rest(200, 700).await;
        }
    }

    async fn create_and_delete(&mut self, pairs: usize) {
        for number in 0..pairs {
            let name = format!("{}-{number}", self.name);
            self.done.lock().asked.push(name.clone());
            let Some(id) = self.create_project(&name).await else { continue };
            if self.delete_project(id).await {
                self.done.lock().deleted.push(id);
            }
        }
    }

    async fn create_project(&mut self, name: &str) -> Option<Uuid> {
        let body = json!({ "name": name, "description": "made while things break" });
        let project = self.insist("/projects", |it| it.json(&body)).await?;
        Some(id_of(&project))
    }

    async fn delete_project(&mut self, id: Uuid) -> bool {
        let path = format!("/api/v1/projects/{id}");
        // A repeated deletion finds nothing, which says the same.
        let answer = self.until_told(Method::DELETE, &path, |it| it).await;
        answer.is_some_and(|(status, _)| status.is_success() || status == StatusCode::NOT_FOUND)
    }

    async fn deploy_again_and_again(&mut self) {
        let name = format!("{}-app", self.name);
        let Some(project) = self.project_that_stays(&name).await else { return };
        let mut number = 0;
        while self.goes_on() {
            number += 1;
            let text = format!("version {number}");
            let Some((source, deployment)) = self.deploy(project, &page(&text)).await else { continue };
            self.done.lock().deployments.push((deployment, source, text));
            self.until_ended(deployment).await;
            self.rest(100, 500).await;
        }
    }

    /// A project of its own, in which an archive was deployed.
    pub async fn deployed(&mut self, name: &str, archive: &[u8]) -> Option<Uuid> {
        let project = self.project_that_stays(name).await?;
        let (_, deployment) = self.deploy(project, archive).await?;
        self.until_ended(deployment).await;
        Some(project)
    }

    async fn project_that_stays(&mut self, name: &str) -> Option<Uuid> {
        self.done.lock().asked.push(name.to_owned());
        let project = self.create_project(name).await?;
        self.done.lock().projects.push((name.to_owned(), project));
        Some(project)
    }

    /// Uploads an archive and begins a deployment of it: the source and the deployment.
    async fn deploy(&mut self, project: Uuid, archive: &[u8]) -> Option<(Uuid, Uuid)> {
        let upload = |it: RequestBuilder| it.header("Content-Type", "application/gzip").body(archive.to_vec());
        let source = self.insist(&format!("/projects/{project}/sources"), upload).await?;
        let source = id_of(&source);
        let body = json!({ "source": { "archive": { "source_id": source } } });
        let begun = self.insist(&format!("/projects/{project}/deployments"), |it| it.json(&body)).await?;
        Some((source, id_of(&begun)))
    }

    /// Follows a deployment to its end, for as long as it takes when things are well.
    async fn until_ended(&mut self, deployment: Uuid) {
        let path = format!("/api/v1/deployments/{deployment}");
        let mut since = Instant::now();
        while since.elapsed() < PATIENCE {
            let answer = self.until_told(Method::GET, &path, |it| it).await;
            let Some((status, body)) = answer else { return };
            if !status.is_success() {
                return self.complain(&path, status, &body);
            }
            if ["completed", "failed", "cancelled"].iter().any(|end| body["status"] == *end) {
                return;
            }
            if self.goes_on() {
                since = Instant::now();
            }
            self.rest(200, 400).await;
        }
        self.done.lock().wrong.push(format!("deployment {deployment} did not end within {PATIENCE:?} of healing"));
    }

    /// A POST with an Idempotency-Key, until it is acknowledged. Nothing when it could not be, which is told as wrong.
    async fn insist(&mut self, path: &str, fill: impl Fn(RequestBuilder) -> RequestBuilder) -> Option<Value> {
        let key = Uuid::now_v7().to_string();
        let path = format!("/api/v1{path}");
        let keyed = |request: RequestBuilder| fill(request).header("Idempotency-Key", &key);
        let (status, body) = self.until_told(Method::POST, &path, keyed).await?;
        if status.is_success() {
            return Some(body);
        }
        self.complain(&path, status, &body);
        None
    }

    fn complain(&self, path: &str, status: StatusCode, body: &Value) {
        self.done.lock().wrong.push(format!("{} got {status} at {path}: {body}", self.name));
    }

    /// Asks one node or another until one of them decides. Nothing when none does within the time.
    async fn until_told(
        &mut self,
        method: Method,
        path: &str,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Option<(StatusCode, Value)> {
        let mut since = Instant::now();
        let mut last = String::new();
        while since.elapsed() < PATIENCE {
            let url = self.url(path);
            let mut request = fill(self.http.request(method.clone(), url));
            if !self.token.is_empty() {
                request = request.bearer_auth(&self.token);
            }
            let began = Instant::now();
            let answer = async {
                let response = request.send().await.map_err(|error| format!("{error:?}"))?;
                let status = response.status();
                let text = response.text().await.map_err(|error| format!("{error:?}"))?;
                Ok::<_, String>((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
            };
            let answer = answer.await;
            {
                let mut done = self.done.lock();
                done.requests += 1;
                done.slowest = done.slowest.max(began.elapsed());
            }
            let reason = match answer {
                Ok((status, body)) if is_decided(status, &body) => return Some((status, body)),
                Ok((status, body)) => {
                    // Whatever breaks, the platform knows what it is and says so.
                    if status == StatusCode::INTERNAL_SERVER_ERROR {
                        self.complain(path, status, &body);
                    }
                    last = format!("{status} {body}");
                    format!("{} {}", status.as_u16(), body["code"].as_str().unwrap_or_default())
                }
                Err(error) => {
                    last = error;
                    "no answer".to_owned()
                }
            };
            *self.done.lock().again.entry(reason).or_default() += 1;
            if self.goes_on() {
                // Things break now; patience counts from when they no longer do.
                since = Instant::now();
            }
            self.rest(100, 400).await;
        }
        self.done.lock().wrong.push(format!("{} was not told within {PATIENCE:?} of healing: {last}", self.name));
        None
    }

    fn url(&mut self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    /// One node or another.
    pub fn port(&mut self) -> u16 {
        self.ports[usize::try_from(self.random.below(self.ports.len() as u64)).unwrap()]
    }

    pub async fn rest(&mut self, from: u64, to: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.between(from, to))).await;
    }
}

/// Whether an answer says how it ended. A request that is still under way elsewhere, or that nobody could take, is asked
/// again.
fn is_decided(status: StatusCode, body: &Value) -> bool {
    let under_way = status == StatusCode::CONFLICT
        && ["idempotency", "still", "in progress"].iter().any(|word| body.to_string().contains(word));
    !(status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || under_way)
}

fn id_of(view: &Value) -> Uuid {
    view["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("an id in {view}"))
}

/// A static site of one page.
fn page(text: &str) -> Vec<u8> {
    archive(&[("index.html", text)])
}

/// A compressed archive of these files: name and text.
pub fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}
