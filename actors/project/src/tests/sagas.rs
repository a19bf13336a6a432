//! The creation of a project under every fault, and what the domain tells of its projects.

use std::{marker::PhantomData, time::Duration};

use callboard_messages::{
    CallError, Caller, Code, Event, Limit, ProjectId, SagaError, SagaStatus,
    project::*,
    saga::{ListSagasOf, RetrySagaOf},
};
use callboard_supervisors::{
    Bus, Runtime,
    db::Database,
    events::CloudEvent,
    saga::{Saga, testing},
    seal::MasterKey,
    testing::on_both_engines,
};
use chrono::DateTime;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Deploys, MIGRATIONS, Node, member, on_both, refusal, set};
use crate::{
    DOMAIN,
    creation::{self, Creation},
};

struct World {
    database: Database,
    deploys: Deploys,
    runtime: Runtime,
}

impl World {
    async fn projects(&self, sql: &'static str, id: Uuid) -> i64 {
        self.database.query(sql).bind(id).fetch_scalar().await.unwrap()
    }
}

impl testing::World for World {
    type State = Creation;

    fn saga(&self) -> Saga<Creation> {
        creation::saga()
    }

    fn domain(&self) -> &'static str {
        crate::DOMAIN
    }

    fn bus(&self) -> Bus {
        self.runtime.bus().clone()
    }

    fn begin(&self) -> (Caller, Uuid, Creation) {
        let id = ProjectId::new();
        let caller = member();
        let created_at = DateTime::UNIX_EPOCH;
        let project = Project {
            id,
            organization_id: caller.organization_id.unwrap(),
            name: format!("app-{}", id.0.simple()),
            description: String::new(),
            version: 1,
            created_at,
            updated_at: created_at,
            deleting_at: None,
        };
        (caller, id.0, Creation { project })
    }

    async fn assert_whole(&self, id: Uuid) {
        assert_eq!(self.projects("SELECT COUNT(*) FROM projects WHERE id = $1 AND NOT creating", id).await, 1);
        assert!(self.deploys.places.lock().unwrap().contains(&ProjectId(id)));
        assert_eq!(told(&self.database, ProjectId(id)).await, [ProjectCreated::NAME], "once");
    }

    async fn assert_gone(&self, id: Uuid) {
        assert_eq!(self.projects("SELECT COUNT(*) FROM projects WHERE id = $1", id).await, 0);
        assert!(!self.deploys.places.lock().unwrap().contains(&ProjectId(id)));
        assert_eq!(told(&self.database, ProjectId(id)).await, Vec::<String>::new());
    }
}

/// What was told of a project, in order.
async fn told(database: &Database, project_id: ProjectId) -> Vec<String> {
    events(database, project_id).await.into_iter().map(|event| event.kind).collect()
}

async fn events(database: &Database, project_id: ProjectId) -> Vec<CloudEvent> {
    let rows: Vec<(Json<CloudEvent>,)> = database
        .query("SELECT event FROM outbox WHERE aggregate = $1 ORDER BY position")
        .bind(project_id.0)
        .fetch_all()
        .await
        .unwrap();
    rows.into_iter().map(|(Json(event),)| event).collect()
}

#[actix_rt::test]
async fn whatever_befalls_the_creation_of_a_project_it_is_whole_in_the_end_or_gone() {
    on_both_engines(&[("project", &MIGRATIONS)], async |databases| {
        let deploys = Deploys::default();
        let runtime = Runtime::builder().workers(1).build(vec![deploys.domain()]).unwrap();
        runtime.attach().await;
        let world = World { database: databases.open("project").await.unwrap(), deploys, runtime };
        testing::prove(&databases, &world).await;
        world.runtime.stop(Duration::from_secs(5)).await;
    })
    .await;
}

#[actix_rt::test]
async fn a_project_that_deploy_refuses_is_not_made_and_its_name_is_free() {
    on_both(async |node| {
        let owner = member();
        node.deploys.refuses.store(true, std::sync::atomic::Ordering::SeqCst);
        let create = || CreateProject { name: "shop".to_owned(), description: None };
        assert_eq!(refusal(node.ask(&owner, create()).await), ProjectError::SetupFailed("not now".to_owned()));
        let nothing =
            node.ask(&owner, ListProjects { name: None, limit: Limit::default(), cursor: None }).await.unwrap();
        assert!(nothing.items.is_empty());
        node.deploys.refuses.store(false, std::sync::atomic::Ordering::SeqCst);
        let project = node.ask(&owner, create()).await.unwrap();
        assert!(node.deploys.places.lock().unwrap().contains(&project.id));
    })
    .await;
}

#[actix_rt::test]
async fn a_project_that_is_being_created_holds_its_name_and_is_there_for_nobody() {
    on_both(async |node| {
        let owner = member();
        let project = node.create(&owner, "shop").await;
        let database = node.database(DOMAIN).await;
        database.query("UPDATE projects SET creating = TRUE").execute().await.unwrap();
        let project_id = project.id;
        assert_eq!(refusal(node.ask(&owner, GetProject { project_id }).await), ProjectError::NotFound);
        let update = UpdateProject { project_id, description: None, if_match: None };
        assert_eq!(refusal(node.ask(&owner, update).await), ProjectError::NotFound);
        let delete = DeleteProject { project_id, if_match: None };
        assert_eq!(refusal(node.ask(&owner, delete).await), ProjectError::NotFound);
        assert_eq!(refusal(node.ask(&owner, set(project_id, &[("A", "1", false)])).await), ProjectError::NotFound);
        assert_eq!(refusal(node.ask(&owner, ListEnv { project_id, version: None }).await), ProjectError::NotFound);
        assert_eq!(refusal(node.ask(&owner, GetBuildConfig { project_id }).await), ProjectError::NotFound);
        let config = SetBuildConfig { project_id, config: BuildConfig::default() };
        assert_eq!(refusal(node.ask(&owner, config).await), ProjectError::NotFound);
        let config = GetConfig { project_id, environment_version: None };
        assert_eq!(refusal(node.ask(&owner, config).await), ProjectError::NotFound);
        for name in [None, Some("shop".to_owned())] {
            let list = ListProjects { name, limit: Limit::default(), cursor: None };
            assert!(node.ask(&owner, list).await.unwrap().items.is_empty());
        }
        let again = CreateProject { name: "shop".to_owned(), description: None };
        assert_eq!(refusal(node.ask(&owner, again).await), ProjectError::NameTaken("shop".to_owned()));
    })
    .await;
}

#[actix_rt::test]
async fn each_change_of_a_project_is_told_once_and_a_refused_one_is_not() {
    on_both(async |node| {
        let owner = member();
        let project_id = node.create(&owner, "shop").await.id;
        let update = |if_match| UpdateProject { project_id, description: Some("new".to_owned()), if_match };
        node.ask(&owner, update(None)).await.unwrap();
        refusal(node.ask(&owner, update(Some(1))).await);
        node.ask(&owner, set(project_id, &[("A", "1", true)])).await.unwrap();
        refusal(node.ask(&owner, UnsetEnv { project_id, name: "B".to_owned() }).await);
        node.ask(&owner, UnsetEnv { project_id, name: "A".to_owned() }).await.unwrap();
        node.ask(&owner, SetBuildConfig { project_id, config: BuildConfig::default() }).await.unwrap();
        node.ask(&owner, DeleteProject { project_id, if_match: None }).await.unwrap();

        let database = node.database(DOMAIN).await;
        let events = events(&database, project_id).await;
        let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
        let (updated, changed) = (ProjectUpdated::NAME, ProjectEnvChanged::NAME);
        assert_eq!(kinds, [ProjectCreated::NAME, updated, changed, changed, updated, ProjectDeleted::NAME]);
        let set: ProjectEnvChanged = events[2].read().unwrap();
        assert_eq!((set.environment_version, set.names), (1, vec!["A".to_owned()]));
        for event in events {
            assert_eq!((event.source.as_str(), event.organizationid), ("project", owner.organization_id));
            assert_eq!(event.correlationid, owner.correlation_id);
        }
    })
    .await;
}

#[actix_rt::test]
async fn an_operator_sees_and_retries_what_is_stuck() {
    on_both(async |node| {
        let system = Caller::system();
        let (owner, other) = (member(), Caller { administrator: false, ..member() });
        let id = node.create(&owner, "shop").await.id.0;
        let list =
            |status| ListSagasOf::<ProjectSagas> { status, limit: Limit::default(), cursor: None, of: PhantomData };
        assert!(node.ask(&system, list(None)).await.unwrap().items.is_empty(), "it has ended");
        let done = node.ask(&system, list(Some(SagaStatus::Done))).await.unwrap().items;
        assert_eq!((done[0].id, done[0].name.as_str(), done[0].step.as_deref()), (id, "project.create", None));
        let retry = |saga_id| RetrySagaOf::<ProjectSagas> { saga_id, of: PhantomData };
        assert_eq!(refusal(node.ask(&system, retry(id)).await), SagaError::NotStuck(SagaStatus::Done));
        assert_eq!(refusal(node.ask(&system, retry(Uuid::now_v7())).await), SagaError::NoSuchSaga);
        assert_eq!(node.ask(&other, list(None)).await.unwrap_err().code(), Code::Forbidden);

        // As if its last step had been impossible until somebody mended it.
        let database = node.database(DOMAIN).await;
        database
            .query("UPDATE sagas SET status = 'stuck', position = 2, trouble = 'out of order' WHERE id = $1")
            .bind(id)
            .execute()
            .await
            .unwrap();
        database.query("UPDATE projects SET creating = TRUE").execute().await.unwrap();
        let stuck = node.ask(&system, list(None)).await.unwrap().items;
        assert_eq!((stuck[0].status, stuck[0].step.as_deref()), (SagaStatus::Stuck, Some("open")));
        assert_eq!(stuck[0].trouble.as_deref(), Some("out of order"));
        assert_eq!(node.ask(&system, retry(id)).await.unwrap().status, SagaStatus::Running);
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while node.ask(&owner, GetProject { project_id: ProjectId(id) }).await.is_err() {
            assert!(std::time::Instant::now() < deadline, "nobody goes on with it");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[actix_rt::test]
async fn a_creation_that_its_node_left_behind_is_finished_by_the_next() {
    on_both_engines(&[("project", &MIGRATIONS)], async |databases| {
        let (owner, deploys, key) = (member(), Deploys::default(), MasterKey::generate().unwrap());
        let node = Node::start_with(&databases, deploys.clone(), key.clone()).await;
        let id = node.create(&owner, "shop").await.id;
        node.stop().await;
        // The node was gone right before the last step.
        let database = databases.open("project").await.unwrap();
        database
            .query("UPDATE sagas SET status = 'running', position = 1, holder = $1")
            .bind(Uuid::now_v7())
            .execute()
            .await
            .unwrap();
        database.query("UPDATE projects SET creating = TRUE").execute().await.unwrap();
        deploys.places.lock().unwrap().clear();

        let node = Node::start_with(&databases, deploys.clone(), key).await;
        assert_eq!(
            node.ask(&owner, GetProject { project_id: id }).await.unwrap_err(),
            CallError::Refused(ProjectError::NotFound)
        );
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while node.ask(&owner, GetProject { project_id: id }).await.is_err() {
            assert!(std::time::Instant::now() < deadline, "nobody goes on with it");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(deploys.places.lock().unwrap().contains(&id));
        node.stop().await;
    })
    .await;
}
