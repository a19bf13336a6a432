//! A gateway with its node in a temporary folder, and its clients.

use std::{
    cell::Cell,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Once},
    time::Duration,
};

use callboard_auth::{AuthSettings, Registration};
use callboard_cache::Cache;
use callboard_messages::{
    Caller, DeploymentId, Failure, OrganizationId, ProjectId,
    auth::{IssueSetupToken, Tokens},
    deploy::{
        CleanupEnvironment, DeployError, Deployment, DeploymentKind, DeploymentStatus, DeploymentTopic, GetBuildLog,
        GetDeployment, GetLogs, ListReleases, LogLine, LogLines, LogTopic, ProjectTopic, RegisterSource, Restart,
        SetupEnvironment,
    },
    project::{GetProject, Project},
};
use callboard_platform::{revocations::Revocations, routing::RoutingTable};
use callboard_supervisors::{
    Clock, Domain, Handle, Outcome, Runtime, ShardContext, StartError,
    db::{DatabaseSettings, Databases},
    seal::MasterKey,
};
use chrono::{DateTime, Utc};
use object_store::{ObjectStore, local::LocalFileSystem};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{Gateway, GatewaySettings, Serving, Stop, router, serve};

pub(super) const PASSWORD: &str = "four plain words here";
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

pub(super) struct TestGateway {
    pub(super) address: SocketAddr,
    pub(super) runtime: Runtime,
    pub(super) revocations: Revocations,
    pub(super) databases: Databases,
    pub(super) folder: TempDir,
    client: Client,
    pub(super) stop: Stop,
}

/// The tokens of an account.
pub(super) struct User {
    pub(super) tokens: Tokens,
}

impl TestGateway {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut GatewaySettings)) -> Self {
        Self::start(tempfile::tempdir().unwrap(), change).await
    }

    pub(super) async fn start(folder: TempDir, change: impl FnOnce(&mut GatewaySettings)) -> Self {
        let objects = objects_in(&folder);
        Self::start_with_objects(folder, change, objects).await
    }

    /// With a manual clock.
    pub(super) async fn with_clock(clock: &Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let objects = objects_in(&folder);
        Self::start_at(clock.clone(), folder, |_| {}, objects).await
    }

    pub(super) async fn start_with_objects(
        folder: TempDir,
        change: impl FnOnce(&mut GatewaySettings),
        objects: Arc<dyn ObjectStore>,
    ) -> Self {
        Self::start_at(Clock::system(), folder, change, objects).await
    }

    async fn start_at(
        clock: Clock,
        folder: TempDir,
        change: impl FnOnce(&mut GatewaySettings),
        objects: Arc<dyn ObjectStore>,
    ) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let databases = Databases::new(DatabaseSettings::Sqlite { folder: folder.path().join("data") });
        databases.migrate(callboard_auth::DOMAIN, &callboard_auth::MIGRATIONS).await.unwrap();
        databases.migrate(callboard_organization::DOMAIN, &callboard_organization::MIGRATIONS).await.unwrap();
        databases.migrate(callboard_project::DOMAIN, &callboard_project::MIGRATIONS).await.unwrap();
        let revocations = Revocations::default();
        let key = || MasterKey::from_base64(MASTER_KEY).unwrap();
        let mut auth = AuthSettings::new("http://callboard.test", key());
        auth.bcrypt_cost = 4;
        auth.registration = Registration::Open;
        let runtime = Runtime::builder()
            .workers(1)
            .clock(clock)
            .build(vec![
                callboard_organization::domain(databases.clone()),
                callboard_auth::domain(auth, databases.clone(), revocations.clone(), Cache::none()),
                callboard_project::domain(databases.clone(), key()),
                deploy(),
            ])
            .unwrap();
        let mut settings = GatewaySettings {
            listen: ([127, 0, 0, 1], 0).into(),
            workers: 1,
            shutdown_seconds: 1,
            ..Default::default()
        };
        settings.rate_limits.enabled = false;
        change(&mut settings);
        let Serving { server, addresses, stop, mut ready } = serve(Gateway {
            settings,
            runtime: runtime.clone(),
            databases: databases.clone(),
            revocations: revocations.clone(),
            objects,
            router: router::Router::new(RoutingTable::new(), router::Settings::default()),
            address: None,
            issuer: None,
            rate_limits: None,
            development: true,
        })
        .await
        .unwrap();
        actix_rt::spawn(server);
        assert!(ready.wait().await);
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        Self { address: addresses[0], runtime, revocations, databases, folder, client, stop }
    }

    /// Stops the node. Returns its folder.
    pub(super) async fn end(self) -> TempDir {
        self.stop.abort().await;
        self.runtime.stop(Duration::from_secs(1)).await;
        self.databases.close().await;
        self.folder
    }

    /// The files in the object store.
    pub(super) fn objects(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("objects/sources");
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// A request without credentials.
    pub(super) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// Sends a request that was built otherwise.
    pub(super) async fn execute(&self, request: reqwest::Request) -> Response {
        self.client.execute(request).await.unwrap()
    }

    pub(super) fn get(&self, path: &str) -> RequestBuilder {
        self.request("GET", path)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.request("POST", path).json(body)
    }

    /// Registers the first account of the platform, by its set-up token.
    pub(super) async fn administrator(&self) -> User {
        let token = self.runtime.bus().ask(&Caller::system(), IssueSetupToken::default()).await.unwrap().unwrap();
        self.register("admin@example.com", Some(token.expose())).await
    }

    /// Registers another account. There must be an administrator.
    pub(super) async fn user(&self, email: &str) -> User {
        self.register(email, None).await
    }

    async fn register(&self, email: &str, invitation: Option<&str>) -> User {
        let body = json!({"email": email, "password": PASSWORD, "invitation": invitation});
        let response = self.post("/api/v1/auth/register", &body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED, "{}", response.text().await.unwrap());
        User { tokens: response.json().await.unwrap() }
    }

    pub(super) async fn project(&self, user: &User, name: &str) -> Value {
        let response = self.post("/api/v1/projects", &json!({"name": name})).by(user).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        response.json().await.unwrap()
    }
}

impl User {
    pub(super) fn token(&self) -> &str {
        self.tokens.access_token.expose()
    }
}

pub(super) trait By {
    /// Adds a user's token.
    fn by(self, user: &User) -> Self;
}

impl By for RequestBuilder {
    fn by(self, user: &User) -> Self {
        self.bearer_auth(user.token())
    }
}

/// Status, code and detail of a response, which must be a problem.
pub(super) async fn problem(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let request_id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    assert_eq!(content_type, "application/problem+json", "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["status"], status);
    assert_eq!(body["request_id"], request_id);
    (status, body["code"].as_str().unwrap().to_owned(), body["detail"].as_str().unwrap().to_owned())
}

pub(super) async fn refused(request: RequestBuilder) -> (u16, String, String) {
    problem(request.send().await.unwrap()).await
}

fn objects_in(folder: &TempDir) -> Arc<LocalFileSystem> {
    let objects = folder.path().join("objects");
    std::fs::create_dir_all(&objects).unwrap();
    Arc::new(LocalFileSystem::new_with_prefix(&objects).unwrap())
}

/// The lines of a project's log when the project is called `long`.
pub(super) const LONG: u64 = 25_000;

/// Stands in for the deploy domain: every deployment is of the project with the same id, and a log has ten lines.
fn deploy() -> Domain {
    Domain::new("deploy")
        .answering()
        .on::<GetDeployment>()
        .on::<GetLogs>()
        .on::<GetBuildLog>()
        .on::<RegisterSource>()
        .on::<ListReleases>()
        // replays.rs
        .on::<Restart>()
        .on::<SetupEnvironment>()
        .on::<CleanupEnvironment>()
        .topic::<ProjectTopic>()
        .log::<DeploymentTopic>()
        .log::<LogTopic>()
        .shared(
            |context: ShardContext| async move { Ok::<_, StartError>(Deploy { context, restarts: Cell::default() }) },
        )
        .build()
}

pub(super) struct Deploy {
    context: ShardContext,
    /// Number of restarts.
    pub(super) restarts: Cell<u32>,
}

impl Deploy {
    async fn check(&self, caller: &Caller, project_id: ProjectId) -> Result<Project, DeployError> {
        let asked = self.context.bus.ask(caller, GetProject { project_id }).await;
        asked.map_err(|_| DeployError::NotFound("project".to_owned()))
    }
}

fn lines(project: &Project, after: Option<u64>, limit: Option<u32>) -> LogLines {
    let (after, limit) = (after.unwrap_or(0), limit.unwrap_or(100) as usize);
    let last = if project.name == "long" { LONG } else { 10 };
    let line = |id| LogLine { id, at: DateTime::UNIX_EPOCH, from: "web.1".to_owned(), text: format!("line {id}") };
    LogLines { items: (after + 1..=last).take(limit).map(line).collect() }
}

/// A deployment in progress.
pub(super) fn deployment(id: DeploymentId, project_id: ProjectId) -> Deployment {
    Deployment {
        id,
        project_id,
        organization_id: OrganizationId(Uuid::nil()),
        kind: DeploymentKind::Deploy,
        status: DeploymentStatus::Building,
        error: None,
        release_id: None,
        release_version: None,
        commit: None,
        url: "http://app.localhost".to_owned(),
        created_at: Utc::now(),
        finished_at: None,
    }
}

impl Handle<GetDeployment> for Deploy {
    async fn handle(&self, caller: &Caller, message: GetDeployment) -> Outcome<GetDeployment> {
        let project_id = ProjectId(message.deployment_id.0);
        self.check(caller, project_id).await?;
        Ok(deployment(DeploymentId(project_id.0), project_id))
    }
}

impl Handle<GetLogs> for Deploy {
    async fn handle(&self, caller: &Caller, message: GetLogs) -> Outcome<GetLogs> {
        let project = self.check(caller, message.project_id).await?;
        Ok(lines(&project, message.after, message.limit))
    }
}

impl Handle<GetBuildLog> for Deploy {
    async fn handle(&self, caller: &Caller, message: GetBuildLog) -> Outcome<GetBuildLog> {
        let project = self.check(caller, ProjectId(message.deployment_id.0)).await?;
        Ok(lines(&project, message.after, message.limit))
    }
}

impl Handle<RegisterSource> for Deploy {
    async fn handle(&self, caller: &Caller, message: RegisterSource) -> Outcome<RegisterSource> {
        self.check(caller, message.project_id).await?;
        if message.source.size == 13 {
            return Err(DeployError::Invalid("that is no archive".to_owned()).into());
        }
        Ok(message.source)
    }
}

impl Handle<SetupEnvironment> for Deploy {
    async fn handle(&self, _: &Caller, _: SetupEnvironment) -> Outcome<SetupEnvironment> {
        Ok(())
    }
}

impl Handle<CleanupEnvironment> for Deploy {
    /// The app of a project that is called `slow` never ends.
    async fn handle(&self, caller: &Caller, message: CleanupEnvironment) -> Outcome<CleanupEnvironment> {
        let project = self.check(caller, message.project_id).await;
        if project.is_ok_and(|project| project.name == "slow") { Err(Failure::Timeout.into()) } else { Ok(()) }
    }
}

impl Handle<ListReleases> for Deploy {
    async fn handle(&self, _: &Caller, _: ListReleases) -> Outcome<ListReleases> {
        panic!("password=hunter2");
    }
}
