//! Several nodes over one database: each app and each build is one node's, and another's when that is gone.

use std::{cell::Cell, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use callboard_messages::{Caller, Code, OrganizationId, ProjectId, deploy::*};
use callboard_platform::cluster::{Members, NodeState};
use callboard_supervisors::{
    Runtime,
    db::Databases,
    remote::{CallFailure, Request, Target, Transport},
    testing::on_both_engines,
};
use futures_util::{FutureExt, future::BoxFuture};
use object_store::{ObjectStore, local::LocalFileSystem};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::fixture::{App, Bench, member, on_sqlite, server, until};
use super::projects::Projects;
use crate::{DeploySettings, MIGRATIONS};

type Call = (Request, oneshot::Sender<Bytes>);

/// Brings calls to the thread of the test, which hands them to the node that they are for.
struct Wire(mpsc::UnboundedSender<Call>);

impl Transport for Wire {
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Bytes, CallFailure>> {
        let (reply, replied) = oneshot::channel();
        let sent = self.0.send((request, reply)).is_ok();
        async move {
            let unavailable = CallFailure::Unavailable { retry_after: Duration::from_secs(1) };
            if sent { replied.await.map_err(|_| unavailable) } else { Err(unavailable) }
        }
        .boxed()
    }

    fn is_connected(&self) -> bool {
        true
    }
}

/// Two nodes, `a` and `b`, that share the database and the object store, and can ask each other.
pub(super) struct Pair<'a> {
    pub(super) databases: &'a Databases,
    pub(super) folder: &'a Path,
    pub(super) objects: Arc<dyn ObjectStore>,
    /// Of both nodes' settings.
    pub(super) change: fn(&mut DeploySettings),
    projects: Projects,
    pub(super) ids: [Uuid; 2],
    calls: [mpsc::UnboundedSender<Call>; 2],
    received: [Cell<Option<mpsc::UnboundedReceiver<Call>>>; 2],
}

impl<'a> Pair<'a> {
    pub(super) fn new(databases: &'a Databases, folder: &'a Path) -> Self {
        let store = folder.join("objects");
        std::fs::create_dir_all(&store).unwrap();
        let (to_a, at_a) = mpsc::unbounded_channel();
        let (to_b, at_b) = mpsc::unbounded_channel();
        Self {
            databases,
            folder,
            objects: Arc::new(LocalFileSystem::new_with_prefix(store).unwrap()),
            change: |_| (),
            projects: Projects::default(),
            ids: [Uuid::now_v7(), Uuid::now_v7()],
            calls: [to_a, to_b],
            received: [Cell::new(Some(at_a)), Cell::new(Some(at_b))],
        }
    }

    /// What a node knows of both.
    pub(super) fn tell(&self, members: &Members, states: [NodeState; 2]) {
        let both = [("a", 0), ("b", 1)].map(|(name, at)| {
            let mut member = member(self.ids[at], name);
            member.state = states[at];
            member
        });
        members.publish(members.incarnation(), both.to_vec());
    }

    pub(super) async fn start(&self, at: usize, builders: usize) -> Bench {
        let members = Members::alone(member(self.ids[at], ["a", "b"][at]));
        self.tell(&members, [NodeState::Up, NodeState::Up]);
        let folder = self.folder.join(["a", "b"][at]);
        std::fs::create_dir_all(&folder).unwrap();
        let wire = Wire(self.calls[1 - at].clone());
        let builder = Runtime::builder().node(self.ids[at]).transport(Arc::new(wire));
        let (objects, projects) = (self.objects.clone(), self.projects.clone());
        let bench = Bench::among(self.databases, &folder, objects, projects, members, builder, |settings| {
            settings.builders = builders;
            (self.change)(settings);
        })
        .await;
        if let Some(mut received) = self.received[at].take() {
            let (bus, me) = (bench.node.bus().clone(), self.ids[at]);
            actix_rt::spawn(async move {
                while let Some((request, reply)) = received.recv().await {
                    assert_eq!(request.target, Target::Node(me));
                    let answer = bus.serve(request.operation, request.caller, &request.body).await;
                    drop(reply.send(answer.into()));
                }
            });
        }
        bench
    }

    pub(super) async fn both(&self) -> (Bench, Bench) {
        (self.start(0, 1).await, self.start(1, 1).await)
    }

    pub(super) fn create(&self, name: &str) -> App {
        self.projects.add(ProjectId::new(), OrganizationId::new(), name)
    }
}

pub(super) const UP: NodeState = NodeState::Up;
pub(super) const GONE: NodeState = NodeState::Gone;

pub(super) async fn owner(bench: &Bench, app: &App) -> Option<Uuid> {
    let routes = bench.ask(&Caller::system(), ListRoutes { known: None }).await.unwrap();
    routes.items.unwrap().into_iter().find(|route| route.app == app.name).unwrap().node
}

pub(super) async fn running_here(bench: &Bench, app: &App) -> Vec<Instance> {
    bench.ask(&Caller::system(), RunningInstances { project_id: app.id }).await.unwrap()
}

pub(super) async fn log(bench: &Bench, app: &App) -> Vec<String> {
    let log = GetLogs { project_id: app.id, after: Some(0), limit: Some(10_000) };
    bench.ask(&app.owner, log).await.unwrap().items.into_iter().map(|line| line.text).collect()
}

pub(super) async fn with_pair(body: impl AsyncFnOnce(&mut Pair<'_>)) {
    on_sqlite(async |databases, folder| body(&mut Pair::new(databases, folder)).await).await;
}

/// The node that runs the app, and the other one.
pub(super) async fn by_owner<'b>(
    app: &App,
    pair: &Pair<'_>,
    a: &'b Bench,
    b: &'b Bench,
) -> (usize, &'b Bench, &'b Bench) {
    let owner = owner(a, app).await.unwrap();
    if owner == pair.ids[0] { (0, a, b) } else { (1, b, a) }
}

#[actix_rt::test]
async fn an_app_whose_node_is_gone_is_taken_over_and_a_fenced_node_ends_its_own() {
    on_both_engines(&[("deploy", &MIGRATIONS)], async |databases| {
        let folder = tempfile::tempdir().unwrap();
        let pair = Pair::new(&databases, folder.path());
        let (a, b) = pair.both().await;
        let app = pair.create("shop");
        a.release(&app, "one").await;
        a.scale(&app, &[("web", 2), ("worker", 1)]).await.unwrap();
        a.healthy(&app, "web", 2).await;
        let (at, first, second) = by_owner(&app, &pair, &a, &b).await;
        assert!(running_here(second, &app).await.is_empty(), "one node runs it");

        // The first one goes silent: it does not know that it counts as gone.
        let mut states = [UP, UP];
        states[at] = GONE;
        pair.tell(&second.members, states);
        second
            .until("the other one runs it", async || {
                (owner(second, &app).await == Some(pair.ids[1 - at])).then_some(())
            })
            .await;
        second.healthy(&app, "web", 2).await;
        second.healthy(&app, "worker", 1).await;
        assert_eq!(second.get(&app, "/").await.unwrap(), "one");
        let names = ["a", "b"];
        let told = format!("taken over by node {} because node {} is gone", names[1 - at], names[at]);
        // The last lines of the first one come into the object store a moment after they were written.
        second
            .until("it says so, after what the first one wrote", async || {
                let lines = log(second, &app).await;
                let place = lines.iter().position(|line| *line == told)?;
                lines[..place].iter().any(|line| line == "hello from one").then_some(())
            })
            .await;

        // It finds out by itself that the app is no longer its own, and changes nothing of it.
        first
            .until("its instances have ended", async || running_here(first, &app).await.is_empty().then_some(()))
            .await;
        second.release(&app, "two").await;
        assert_eq!(second.get(&app, "/").await.unwrap(), "two");
        assert_eq!(owner(first, &app).await, Some(pair.ids[1 - at]));
        a.stop().await;
        b.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn builders_of_two_nodes_take_each_deployment_once() {
    on_both_engines(&[("deploy", &MIGRATIONS)], async |databases| {
        let folder = tempfile::tempdir().unwrap();
        let pair = Pair::new(&databases, folder.path());
        let (a, b) = pair.both().await;
        let apps: Vec<App> = (0..6).map(|n| pair.create(&format!("app-{n}"))).collect();
        let mut begun = Vec::new();
        for (app, bench) in apps.iter().zip([&a, &b].into_iter().cycle()) {
            let files = [("Procfile", "worker: sleep 1000\n"), ("VERSION", app.name.as_str())];
            begun.push(bench.begin(app, &files).await.unwrap());
        }
        for (app, deployment) in apps.iter().zip(&begun) {
            let ended = a.ended(app, deployment.id).await;
            assert_eq!(
                (ended.status, ended.release_version),
                (DeploymentStatus::Completed, Some(1)),
                "{:?}",
                ended.error
            );
            let here = running_here(&a, app).await.len() + running_here(&b, app).await.len();
            assert_eq!(here, 1, "one instance on one of the nodes");
            // Whoever is asked knows what runs on the other.
            assert_eq!((a.instances(app).await.len(), b.instances(app).await.len()), (1, 1));
        }
        let database = databases.open("deploy").await.unwrap();
        let attempts: i64 =
            database.query("SELECT CAST(SUM(attempts) AS BIGINT) FROM deployments").fetch_scalar().await.unwrap();
        assert_eq!(attempts, 6);
        a.stop().await;
        b.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_node_that_starts_leaves_the_builds_of_a_living_one_alone() {
    with_pair(async |pair| {
        let a = pair.start(0, 1).await;
        let app = pair.create("shop");
        let go = pair.folder.join("go").display().to_string();
        a.configure(&app, |kept| {
            kept.build.build_command = Some(format!("echo begun; while [ ! -e {go} ]; do sleep 0.05; done"));
        });
        let deployment = a.begin(&app, &server("one")).await.unwrap();
        a.until("it builds", async || a.build_log(&app, deployment.id).await.contains("begun").then_some(())).await;
        let b = pair.start(1, 1).await;
        // The one who starts has looked at everything once it has built something itself.
        let other = pair.create("other");
        b.release(&other, "one").await;
        assert!(b.build_log(&app, deployment.id).await.contains("begun"), "a log is readable on every node");
        std::fs::write(pair.folder.join("go"), "").unwrap();
        assert_eq!(b.ended(&app, deployment.id).await.status, DeploymentStatus::Completed);
        let database = pair.databases.open("deploy").await.unwrap();
        let attempts: i64 = database
            .query("SELECT attempts FROM deployments WHERE id = $1")
            .bind(deployment.id)
            .fetch_scalar()
            .await
            .unwrap();
        assert_eq!(attempts, 1);
        a.stop().await;
        b.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_build_whose_node_is_gone_is_built_again_elsewhere() {
    with_pair(async |pair| {
        let a = pair.start(0, 1).await;
        let (app, burnt) = (pair.create("shop"), pair.create("burnt"));
        a.configure(&app, |kept| kept.build.build_command = Some("echo begun; sleep 1000".to_owned()));
        let deployment = a.begin(&app, &server("one")).await.unwrap();
        a.until("it builds", async || a.build_log(&app, deployment.id).await.contains("begun").then_some(())).await;
        let twice = a.begin(&burnt, &server("one")).await.unwrap();
        let database = pair.databases.open("deploy").await.unwrap();
        let statement =
            "UPDATE deployments SET status = 'building', attempts = 2, crashes = 1, builder_node = $2 WHERE id = $1";
        database.query(statement).bind(twice.id).bind(pair.ids[0]).execute().await.unwrap();

        // Nodes that stopped as they should have had it before: that is no reason to give it up.
        let drained = "UPDATE deployments SET attempts = 4 WHERE id = $1";
        database.query(drained).bind(deployment.id).execute().await.unwrap();

        a.configure(&app, |kept| kept.build.build_command = None);
        let b = pair.start(1, 1).await;
        pair.tell(&b.members, [GONE, UP]);
        let ended = b.ended(&app, deployment.id).await;
        assert_eq!(ended.status, DeploymentStatus::Completed, "{:?}", ended.error);
        let log = b.build_log(&app, deployment.id).await;
        assert!(log.contains("-----> The node a is gone; building again"), "{log}");
        let failed = b.ended(&burnt, twice.id).await;
        assert!(failed.error.unwrap().contains("went down twice"));
        a.until("the first builder has let go", async || {
            let left = std::fs::read_dir(pair.folder.join("a/deploy/work")).unwrap().count();
            (left == 0).then_some(())
        })
        .await;
        assert_eq!(b.ended(&app, deployment.id).await.status, DeploymentStatus::Completed);
        a.stop().await;
        b.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_node_that_stops_hands_its_apps_over_without_a_gap() {
    with_pair(async |pair| {
        let (a, b) = pair.both().await;
        let app = pair.create("shop");
        a.release(&app, "one").await;
        a.healthy(&app, "web", 1).await;
        let (at, _, second) = by_owner(&app, pair, &a, &b).await;
        let (first_routes, second_routes) = if at == 0 { (&a.routes, &b.routes) } else { (&b.routes, &a.routes) };
        let (first_routes, second_routes) = (first_routes.clone(), second_routes.clone());
        let serves = |routes: &callboard_platform::routing::RoutingTable| {
            routes.get("shop").is_some_and(|route| !route.backends().is_empty())
        };
        let mut states = [UP, UP];
        states[at] = NodeState::Draining;
        pair.tell(&a.members, states);
        pair.tell(&b.members, states);
        let handed_over = until("the other one serves", async || {
            assert!(serves(&first_routes) || serves(&second_routes), "somebody serves at any time");
            let now = owner(second, &app).await == Some(pair.ids[1 - at]);
            (now && serves(&second_routes)).then_some(())
        });
        handed_over.await;
        let names = ["a", "b"];
        let told = format!("taken over by node {} because node {} stops", names[1 - at], names[at]);
        // It is written beside the work.
        until("the log tells of it", async || log(second, &app).await.contains(&told).then_some(())).await;
        let (first, second) = if at == 0 { (a, b) } else { (b, a) };
        first.stop().await;
        assert_eq!(second.get(&app, "/").await.unwrap(), "one");
        assert_eq!(second.healthy(&app, "web", 1).await[0].restarts, 0);
        second.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn what_only_the_owner_knows_is_asked_of_it_or_refused_clearly() {
    with_pair(async |pair| {
        let (a, b) = pair.both().await;
        let app = pair.create("shop");
        a.release(&app, "one").await;
        let (_, first, second) = by_owner(&app, pair, &a, &b).await;
        let there = second.instances(&app).await;
        assert_eq!(there.iter().map(|it| it.id).collect::<Vec<_>>(), [first.instances(&app).await[0].id]);
        second.ask(&app.owner, Scale { project_id: app.id, processes: [("web".to_owned(), 2)].into() }).await.unwrap();
        second.healthy(&app, "web", 2).await;
        assert!(running_here(second, &app).await.is_empty());
        // Nobody there takes the call.
        let stranger = Uuid::now_v7();
        std::fs::create_dir_all(pair.folder.join("c")).unwrap();
        let c = Bench::among(
            pair.databases,
            &pair.folder.join("c"),
            pair.objects.clone(),
            pair.projects.clone(),
            Members::alone(member(stranger, "c")),
            Runtime::builder().node(stranger),
            |_| (),
        )
        .await;
        pair.tell(&c.members, [UP, UP]);
        let list = ListInstances { project_id: app.id };
        assert_eq!(c.ask(&app.owner, list).await.unwrap_err().code(), Code::Unavailable);
        let logs = GetLogs { project_id: app.id, after: None, limit: Some(0) };
        assert_eq!(c.ask(&app.owner, logs).await.unwrap_err().code(), Code::Invalid);
        c.until("what is stored is read", async || {
            log(&c, &app).await.contains(&"hello from one".to_owned()).then_some(())
        })
        .await;
        c.stop().await;
        a.stop().await;
        b.stop().await;
    })
    .await;
}
