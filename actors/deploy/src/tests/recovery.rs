//! The node stops, or is killed, and starts again on the same data.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use callboard_messages::{DeploymentId, OrganizationId, ProjectId, deploy::*, project::BuildConfig};
use callboard_supervisors::db::{DatabaseSettings, Databases};
use sqlx::types::Json;

use super::fixture::{App, Bench, on_sqlite, server, until};
use super::projects::Projects;
use crate::{MIGRATIONS, store::steps};

#[actix_rt::test]
async fn a_stopped_node_ends_its_instances_and_starts_them_again() {
    on_sqlite(async |databases, folder| {
        let bench = Bench::start(databases, folder).await;
        let (app, idle) = (bench.create("shop"), bench.create("idle"));
        bench.release(&app, "one").await;
        bench.release(&idle, "one").await;
        bench.ask(&idle.owner, Stop { project_id: idle.id }).await.unwrap();
        let pid = bench.healthy(&app, "web", 1).await[0].pid.unwrap();
        bench.configure(&idle, |kept| kept.build.build_command = Some("sleep 1000".to_owned()));
        let building = bench.begin(&idle, &server("two")).await.unwrap();
        until("it builds", async || {
            let now = bench.ask(&idle.owner, GetDeployment { deployment_id: building.id }).await.unwrap();
            (now.status == DeploymentStatus::Building).then_some(())
        })
        .await;
        let projects = bench.projects.clone();
        bench.stop().await;
        assert!(!is_alive(pid), "its instances ended with the node");
        let started = told(databases, "instance.started").await;
        assert_eq!(told(databases, "instance.stopped").await, started, "none took the place of one that ended");

        let bench = Bench::start_with(databases, folder, projects, |_| ()).await;
        bench.configure(&idle, |kept| kept.build.build_command = None);
        bench.healthy(&app, "web", 1).await;
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
        assert_eq!(bench.ended(&idle, building.id).await.status, DeploymentStatus::Completed, "built anew");
        assert_eq!(bench.get(&idle, "/").await.unwrap(), "two");
        bench.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_build_that_nobody_works_at_is_built_again() {
    on_sqlite(async |databases, folder| {
        let bench = Bench::start_with(databases, folder, Projects::default(), |settings| settings.builders = 1).await;
        let (busy, lost) = (bench.create("busy"), bench.create("lost"));
        bench.configure(&busy, |kept| kept.build.build_command = Some("sleep 1000".to_owned()));
        let first = bench.begin(&busy, &server("one")).await.unwrap();
        let status =
            async |app: &App, id| bench.ask(&app.owner, GetDeployment { deployment_id: id }).await.unwrap().status;
        until("it builds", async || (status(&busy, first.id).await == DeploymentStatus::Building).then_some(())).await;
        let second = bench.begin(&lost, &server("two")).await.unwrap();
        // As after a claim that took effect, but whose reply was lost.
        let database = databases.open(crate::DOMAIN).await.unwrap();
        let statement = "UPDATE deployments SET status = 'building', attempts = 1, builder_node = $2 WHERE id = $1";
        let me = bench.members.me().0;
        database.query(statement).bind(second.id).bind(me).execute().await.unwrap();
        bench.ask(&busy.owner, CancelDeployment { deployment_id: first.id }).await.unwrap();
        assert_eq!(bench.ended(&lost, second.id).await.status, DeploymentStatus::Completed);
        assert_eq!(status(&busy, first.id).await, DeploymentStatus::Cancelled);
        bench.stop().await;
    })
    .await;
}

/// How many events of this type were told.
async fn told(databases: &Databases, kind: &str) -> i64 {
    let database = databases.open(crate::DOMAIN).await.unwrap();
    let counted = database.query("SELECT COUNT(*) FROM outbox WHERE type = $1").bind(kind.to_owned());
    counted.fetch_scalar().await.unwrap()
}

/// A zombie has ended, whether or not somebody reaps it.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

/// The files that the node to be killed leaves for its parent.
const READY: &str = "ready.json";
const FOLDER: &str = "CALLBOARD_TEST_NODE_TO_KILL";

/// Killed when it is dropped, also when its test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[actix_rt::test]
async fn after_a_kill_orphans_end_apps_run_and_no_deployment_stays_in_progress() {
    let folder = tempfile::tempdir().unwrap();
    let node = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::recovery::node_to_be_killed", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let left = until("the other node has deployed", async || {
        serde_json::from_slice::<Left>(&std::fs::read(folder.path().join(READY)).ok()?).ok()
    })
    .await;
    drop(node);

    let databases = open(folder.path()).await;
    let projects = Projects::default();
    let [serves, rolls, builds, burnt] =
        left.apps.each_ref().map(|app| projects.add(app.project_id, app.organization_id, &app.name));
    let [serves, rolls, builds, burnt] = [&serves, &rolls, &builds, &burnt];
    let [_, rolling, building, twice] = left.apps.each_ref().map(|app| DeploymentId(app.deployment));
    let soon = BuildConfig { health_check_grace_seconds: Some(3), ..BuildConfig::default() };
    let database = databases.open("deploy").await.unwrap();
    let patience = database.query("UPDATE releases SET build = $1 WHERE deployment_id = $2").bind(Json(soon));
    assert_eq!(patience.bind(rolling).execute().await.unwrap(), 1);
    let bench = Bench::start_with(&databases, folder.path(), projects, |_| ()).await;

    bench.healthy(serves, "web", 2).await;
    assert_eq!(bench.get(serves, "/").await.unwrap(), "one");
    assert!(!is_alive(left.pid), "the orphan was ended");
    // Its new release never listens; the old one came back first and serves again after the time is up.
    let rolled = bench.ended(rolls, rolling).await;
    assert_eq!(rolled.status, DeploymentStatus::Failed);
    bench.healthy(rolls, "web", 1).await;
    assert_eq!(bench.get(rolls, "/").await.unwrap(), "one");
    assert_eq!(bench.ended(builds, building).await.status, DeploymentStatus::Completed);
    assert_eq!(bench.get(builds, "/").await.unwrap(), "two");
    let failed = bench.ended(burnt, twice).await;
    assert_eq!(failed.status, DeploymentStatus::Failed);
    assert!(failed.error.unwrap().contains("went down twice"));
    bench.stop().await;
    databases.close().await;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Left {
    pid: u32,
    apps: [LeftApp; 4],
}

#[derive(serde::Serialize, serde::Deserialize)]
struct LeftApp {
    project_id: ProjectId,
    organization_id: OrganizationId,
    name: String,
    deployment: uuid::Uuid,
}

impl LeftApp {
    fn of(app: &App, deployment: &Deployment) -> Self {
        let organization_id = app.owner.organization_id.unwrap();
        Self { project_id: app.id, organization_id, name: app.name.clone(), deployment: deployment.id.0 }
    }
}

async fn open(folder: &Path) -> Databases {
    let databases = Databases::new(DatabaseSettings::Sqlite { folder: folder.join("databases") });
    databases.migrate("deploy", &MIGRATIONS).await.unwrap();
    databases
}

/// Not a test of its own: the node that the test above kills.
#[actix_rt::test]
async fn node_to_be_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let databases = open(&folder).await;
    let bench = Bench::start(&databases, &folder).await;
    let [serves, rolls, builds, burnt] = ["serves", "rolls", "builds", "burnt"].map(|name| bench.create(name));
    let served = bench.release(&serves, "one").await;
    bench.scale(&serves, &[("web", 2)]).await.unwrap();
    let pid = bench.healthy(&serves, "web", 2).await[1].pid.unwrap();

    bench.release(&rolls, "one").await;
    // Whatever else takes long, this one is still under way when the node is killed.
    bench.configure(&rolls, |kept| kept.build.health_check_grace_seconds = Some(600));
    let rolling = bench.begin(&rolls, &[("Procfile", "web: sleep 1000\n")]).await.unwrap();
    for app in [&builds, &burnt] {
        bench.configure(app, |kept| kept.build.build_command = Some("sleep 1000".to_owned()));
    }
    let building = bench.begin(&builds, &server("two")).await.unwrap();
    let twice = bench.begin(&burnt, &server("two")).await.unwrap();
    for (app, id, status) in [
        (&rolls, rolling.id, DeploymentStatus::Rolling),
        (&builds, building.id, DeploymentStatus::Building),
        (&burnt, twice.id, DeploymentStatus::Building),
    ] {
        until("it is under way", async || {
            let now = bench.ask(&app.owner, GetDeployment { deployment_id: id }).await.unwrap();
            (now.status == status).then_some(())
        })
        .await;
    }
    // As if the node had gone down during this one before.
    let database = databases.open("deploy").await.unwrap();
    database.query("UPDATE deployments SET crashes = 1 WHERE id = $1").bind(twice.id).execute().await.unwrap();
    assert_eq!(steps::builds(&database).await.unwrap().len(), 2);
    let left = Left {
        pid,
        apps: [
            LeftApp::of(&serves, &served),
            LeftApp::of(&rolls, &rolling),
            LeftApp::of(&builds, &building),
            LeftApp::of(&burnt, &twice),
        ],
    };
    let text = serde_json::to_vec(&left).unwrap();
    std::fs::write(folder.join("ready.part"), text).unwrap();
    std::fs::rename(folder.join("ready.part"), folder.join(READY)).unwrap();
    std::future::pending::<()>().await;
}
