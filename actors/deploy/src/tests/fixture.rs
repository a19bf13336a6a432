//! A node with the domain, a project domain of a few lines, and apps to deploy.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use callboard_messages::{Caller, DeploymentId, NodeId, Operation, OrganizationId, ProjectId, deploy::*};
use callboard_platform::{
    cluster::{Member, Members, NodeState},
    routing::{Address, RoutingTable},
};
use callboard_supervisors::{
    Clock, Outcome, Runtime as Node, RuntimeBuilder,
    db::{DatabaseSettings, Databases},
};
use chrono::DateTime;
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path as ObjectPath};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::projects::{self, Kept, Projects};
use crate::{
    DeploySettings, InstanceSettings, MIGRATIONS,
    build::{executor::BuildSettings, fetch::FetchSettings, package::tests::test_packer},
    folder::trash::Trash,
    logs::output::OutputLimits,
    process::{Launcher, trampoline::tests::test_launcher},
    runtime::process::{ProcessRuntime, ProcessSettings},
};

/// How long any condition may take to come true.
pub(super) const DEADLINE: Duration = Duration::from_secs(40);

/// Answers with its `VERSION` file and the variable `GREETING`; `/crash` ends it, `/hang` never answers, `/sick` makes
/// it unhealthy.
pub(super) const SERVER: &str = r#"
import http.server, os, sys, time
version = open("VERSION").read().strip()
sick = False
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global sick
        if self.path == "/crash":
            print("crashing on purpose", flush=True)
            os._exit(7)
        if self.path == "/hang":
            time.sleep(60)
        if self.path == "/slow":
            time.sleep(0.5)
        if self.path == "/sick":
            sick = True
        body = (version + os.environ.get("GREETING", "")).encode()
        self.send_response(500 if sick else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
print("hello from " + version, flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// A node under test.
pub(super) struct Bench {
    pub(super) node: Node,
    pub(super) members: Members,
    pub(super) routes: RoutingTable,
    pub(super) projects: Projects,
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) databases: Databases,
    pub(super) folder: PathBuf,
}

/// An app's project, and who may deploy it.
#[derive(Clone)]
pub(super) struct App {
    pub(super) id: ProjectId,
    pub(super) name: String,
    pub(super) owner: Caller,
}

/// A node that hosts the domain.
pub(super) fn member(id: Uuid, name: &str) -> Member {
    Member {
        id: NodeId(id),
        name: name.to_owned(),
        address: "http://127.0.0.1:1".to_owned(),
        domains: vec![crate::DOMAIN.to_owned()],
        version: "0.1.0".to_owned(),
        state: NodeState::Up,
        incarnation: 1,
        joined_at: DateTime::UNIX_EPOCH,
    }
}

pub(super) fn settings(folder: &Path, launcher: &Launcher) -> DeploySettings {
    let (fetch, build) = (FetchSettings::new(launcher.clone()), BuildSettings::new(launcher.clone(), test_packer()));
    let mut settings = DeploySettings::new(folder.join("deploy"), "http://{app}.test", fetch, build);
    settings.instances = InstanceSettings {
        probe_new_every: Duration::from_millis(20),
        probe_every: Duration::from_millis(50),
        // A loaded machine must not make an instance look sick.
        probe_timeout: Duration::from_secs(4),
        grace: Duration::from_secs(20),
        settle: Duration::from_millis(200),
        stop_grace: Duration::from_secs(3),
        drain: Duration::from_secs(5),
        ..InstanceSettings::default()
    };
    settings.build.limits.grace = Duration::from_millis(500);
    settings
}

impl Bench {
    pub(super) async fn start(databases: &Databases, folder: &Path) -> Self {
        Self::start_with(databases, folder, Projects::default(), |_| ()).await
    }

    pub(super) async fn start_with(
        databases: &Databases,
        folder: &Path,
        projects: Projects,
        change: impl FnOnce(&mut DeploySettings),
    ) -> Self {
        let objects_folder = folder.join("objects");
        std::fs::create_dir_all(&objects_folder).unwrap();
        let objects: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(objects_folder).unwrap());
        // As after a restart: a node's id stays with its folder.
        let members = Members::alone(member(Uuid::from_u128(1), "alone"));
        Self::among(databases, folder, objects, projects, members, Node::builder(), change).await
    }

    /// A node among others, with a folder of its own.
    pub(super) async fn among(
        databases: &Databases,
        folder: &Path,
        objects: Arc<dyn ObjectStore>,
        projects: Projects,
        members: Members,
        builder: RuntimeBuilder,
        change: impl FnOnce(&mut DeploySettings),
    ) -> Self {
        let launcher = Launcher::new(test_launcher(), folder.display().to_string());
        let mut settings = settings(folder, &launcher);
        change(&mut settings);
        let processes = ProcessSettings {
            trash: Trash::new(settings.trash_folder(), launcher.pools.clone()),
            launcher,
            state: folder.join("processes"),
            static_server: vec!["false".to_owned()],
            output: OutputLimits::default(),
            run_as: settings.build.run_as,
        };
        // This thread may have the shards of another node by now, and then it may not wait for a disk.
        let made = tokio::task::spawn_blocking(|| ProcessRuntime::new(processes).unwrap());
        let runtime = Arc::new(made.await.unwrap());
        let routes = RoutingTable::new();
        let deploy =
            crate::domain(settings, databases.clone(), objects.clone(), routes.clone(), runtime, members.clone())
                .unwrap();
        let node = builder.clock(Clock::system()).workers(1).build(vec![deploy, projects::domain(&projects)]).unwrap();
        node.attach().await;
        Self { node, members, routes, projects, objects, databases: databases.clone(), folder: folder.to_owned() }
    }

    pub(super) async fn stop(self) {
        self.node.stop(Duration::from_secs(20)).await;
    }

    pub(super) async fn ask<M: Operation>(&self, caller: &Caller, message: M) -> Outcome<M> {
        self.node.bus().ask(caller, message).await
    }

    /// The threads the node shows in its metrics.
    pub(super) fn pools(&self) -> BTreeSet<String> {
        let families = self.node.metrics().gather();
        let labels = families.iter().flat_map(|family| family.get_metric()).flat_map(|metric| metric.get_label());
        labels.map(|label| label.value().to_owned()).collect()
    }

    pub(super) fn live(&self) -> &callboard_supervisors::Live {
        self.node.live()
    }

    /// A project of a new organization.
    pub(super) fn create(&self, name: &str) -> App {
        self.projects.add(ProjectId::new(), OrganizationId::new(), name)
    }

    pub(super) fn configure(&self, app: &App, change: impl FnOnce(&mut Kept)) {
        change(self.projects.0.lock().get_mut(&app.id).unwrap());
    }

    /// A new version of the app's environment.
    pub(super) fn set_env(&self, app: &App, name: &str, value: &str) {
        self.configure(app, |kept| {
            let mut next = kept.environments.last().unwrap().clone();
            next.retain(|(other, _)| other != name);
            next.push((name.to_owned(), value.to_owned()));
            kept.environments.push(next);
        });
    }

    /// Uploads files as an archive.
    pub(super) async fn upload(&self, app: &App, files: &[(&str, &str)]) -> Uuid {
        let compressor = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut archive = tar::Builder::new(compressor);
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            archive.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        let bytes = archive.into_inner().unwrap().finish().unwrap();
        let source = Source { id: Uuid::now_v7(), size: bytes.len() as u64, sha256: "0".repeat(64) };
        self.objects.put(&ObjectPath::from(format!("sources/{}", source.id)), bytes.into()).await.unwrap();
        self.ask(&app.owner, RegisterSource { project_id: app.id, source }).await.unwrap().id
    }

    pub(super) async fn begin(&self, app: &App, files: &[(&str, &str)]) -> Outcome<CreateDeployment> {
        self.begin_with(app, files, false).await
    }

    pub(super) async fn begin_with(
        &self,
        app: &App,
        files: &[(&str, &str)],
        allow_missing: bool,
    ) -> Outcome<CreateDeployment> {
        let source = DeploymentSource::Archive { source_id: self.upload(app, files).await };
        self.ask(
            &app.owner,
            CreateDeployment { project_id: app.id, source, allow_missing, rebuild: false, config: None },
        )
        .await
    }

    /// Deploys and waits for the end, whatever it is.
    pub(super) async fn deploy(&self, app: &App, files: &[(&str, &str)]) -> Deployment {
        let begun = self.begin(app, files).await.unwrap();
        self.ended(app, begun.id).await
    }

    /// Deploys the server with this version.
    pub(super) async fn release(&self, app: &App, version: &str) -> Deployment {
        let deployment = self.deploy(app, &server(version)).await;
        let log = self.build_log(app, deployment.id).await;
        assert_eq!(deployment.status, DeploymentStatus::Completed, "{:?}\n{log}", deployment.error);
        deployment
    }

    pub(super) async fn ended(&self, app: &App, id: DeploymentId) -> Deployment {
        self.until("the deployment ends", async || {
            let deployment = self.ask(&app.owner, GetDeployment { deployment_id: id }).await.unwrap();
            deployment.status.is_final().then_some(deployment)
        })
        .await
    }

    pub(super) async fn build_log(&self, app: &App, id: DeploymentId) -> String {
        let log = GetBuildLog { deployment_id: id, after: None, limit: None };
        let lines = self.ask(&app.owner, log).await.unwrap().items;
        lines.into_iter().map(|line| line.text + "\n").collect()
    }

    pub(super) async fn instances(&self, app: &App) -> Vec<Instance> {
        self.ask(&app.owner, ListInstances { project_id: app.id }).await.unwrap().items
    }

    /// Waits until the app has exactly so many healthy instances of a process type, and no others.
    pub(super) async fn healthy(&self, app: &App, process: &str, count: usize) -> Vec<Instance> {
        self.until("the instances are healthy", async || {
            let mut instances = self.instances(app).await;
            instances.retain(|instance| instance.process == process);
            let all = instances.iter().all(|instance| instance.status == InstanceStatus::Healthy);
            (all && instances.len() == count).then_some(instances)
        })
        .await
    }

    pub(super) async fn scale(&self, app: &App, processes: &[(&str, u32)]) -> Outcome<Scale> {
        let processes: BTreeMap<String, u32> =
            processes.iter().map(|(process, count)| ((*process).to_owned(), *count)).collect();
        self.ask(&app.owner, Scale { project_id: app.id, processes }).await
    }

    /// What a visitor gets from the app; a sentence when nobody answers.
    pub(super) async fn get(&self, app: &App, path: &str) -> Result<String, String> {
        for _ in 0..10 {
            let route = self.routes.get(&app.name).ok_or("no route")?;
            let Some(place) = route.acquire(&[]) else {
                if route.is_outdated() {
                    continue;
                }
                return Err(route.state().reason().to_owned());
            };
            let Address::Instance(address) = *place.address() else { return Err("no instance".to_owned()) };
            let answer = tokio::time::timeout(Duration::from_secs(20), ask(address, path)).await;
            return answer.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string());
        }
        Err("the route is always outdated".to_owned())
    }

    /// Waits until there is an answer to the question.
    pub(super) async fn until<T>(&self, what: &str, question: impl AsyncFn() -> Option<T>) -> T {
        until(what, question).await
    }

    pub(super) async fn object_count(&self, folder: &str) -> usize {
        use futures_util::TryStreamExt;
        self.objects.list(Some(&ObjectPath::from(folder))).try_collect::<Vec<_>>().await.unwrap().len()
    }
}

pub(super) async fn until<T>(what: &str, question: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = question().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ask(address: std::net::SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: app\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no answer"))?;
    Ok(body.to_owned())
}

/// The files of the server with this version.
pub(super) fn server(version: &str) -> [(&str, &str); 3] {
    [
        ("Procfile", "web: python3 server.py\nworker: python3 -c 'import time; time.sleep(1000)'\n"),
        ("server.py", SERVER),
        ("VERSION", version),
    ]
}

/// Runs a test on SQLite in a folder of its own.
pub(super) async fn on_sqlite(body: impl AsyncFnOnce(&Databases, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    let databases = Databases::new(DatabaseSettings::Sqlite { folder: folder.path().join("databases") });
    databases.migrate("deploy", &MIGRATIONS).await.unwrap();
    body(&databases, folder.path()).await;
    databases.close().await;
}

/// Runs a test on a node of its own.
pub(super) async fn on_node(body: impl AsyncFnOnce(&Bench)) {
    on_sqlite(async |databases, folder| {
        let bench = Bench::start(databases, folder).await;
        body(&bench).await;
        bench.stop().await;
    })
    .await;
}
