//! Tests of every operation, on both engines.

use std::{
    collections::HashSet,
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use callboard_messages::{
    CallError, Caller, Code, Cursor, Failure, Limit, OrganizationId, Page, ProjectId, Secret,
    deploy::{CleanupEnvironment, DeployError, SetupEnvironment},
    organization::OrganizationDeleted,
    project::*,
};
use callboard_supervisors::{
    Clock, Domain, Handle, Outcome, StartError,
    db::Databases,
    events::{CloudEvent, EventTransport},
    seal::MasterKey,
    testing::{TestNode, Warnings, member, on_both_engines, refusal},
};

use futures_util::future::join_all;

use crate::{DOMAIN, MIGRATIONS};

mod sagas;

/// Stands in for the deploy domain: knows which apps exist, and counts or refuses clean-ups.
#[derive(Clone, Default)]
pub(crate) struct Deploys {
    pub(crate) places: Arc<Mutex<HashSet<ProjectId>>>,
    asked: Arc<AtomicUsize>,
    refuses: Arc<AtomicBool>,
    is_away: Arc<AtomicBool>,
}

impl Deploys {
    /// The domain.
    pub(crate) fn domain(&self) -> Domain {
        let deploys = self.clone();
        Domain::new("deploy")
            .answering()
            .on::<SetupEnvironment>()
            .on::<CleanupEnvironment>()
            .shared(move |_| {
                let deploys = deploys.clone();
                async move { Ok::<_, StartError>(deploys) }
            })
            .build()
    }
}

impl Handle<SetupEnvironment> for Deploys {
    async fn handle(&self, _: &Caller, message: SetupEnvironment) -> Outcome<SetupEnvironment> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(DeployError::Invalid("not now".to_owned()).into());
        }
        self.places.lock().unwrap().insert(message.project_id);
        Ok(())
    }
}

impl Handle<CleanupEnvironment> for Deploys {
    async fn handle(&self, _: &Caller, message: CleanupEnvironment) -> Outcome<CleanupEnvironment> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.is_away.load(Ordering::SeqCst) {
            return Err(Failure::Unavailable { retry_after: Duration::from_millis(10) }.into());
        }
        if self.refuses.load(Ordering::SeqCst) {
            return Err(DeployError::Invalid("not now".to_owned()).into());
        }
        self.places.lock().unwrap().remove(&message.project_id);
        Ok(())
    }
}

struct Node {
    node: TestNode,
    deploys: Deploys,
}

impl Deref for Node {
    type Target = TestNode;

    fn deref(&self) -> &TestNode {
        &self.node
    }
}

impl Node {
    async fn start(databases: &Databases) -> Self {
        Self::start_with(databases, Deploys::default(), MasterKey::generate().unwrap()).await
    }

    async fn start_with(databases: &Databases, deploys: Deploys, master_key: MasterKey) -> Self {
        let domains = vec![deploys.domain(), crate::domain(databases.clone(), master_key)];
        Self { node: TestNode::start(databases, Clock::system(), domains).await, deploys }
    }

    async fn create(&self, caller: &Caller, name: &str) -> Project {
        self.ask(caller, CreateProject { name: name.to_owned(), description: None }).await.unwrap()
    }

    async fn stop(self) {
        self.node.stop().await;
    }
}

fn set(project_id: ProjectId, variables: &[(&str, &str, bool)]) -> SetEnv {
    let variables = variables
        .iter()
        .map(|(name, value, secret)| NewVariable {
            name: (*name).to_owned(),
            value: Secret::new(*value),
            secret: *secret,
        })
        .collect();
    SetEnv { project_id, variables }
}

async fn on_both(body: impl AsyncFn(&Node)) {
    on_both_engines(&[("project", &MIGRATIONS)], async |databases| {
        let node = Node::start(&databases).await;
        body(&node).await;
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_created_project_is_there_for_its_organization_only() {
    on_both(async |node| {
        let (owner, stranger) = (member(), member());
        let project = node.create(&owner, "shop").await;
        assert_eq!((project.version, project.description.as_str()), (1, ""));
        let get = || GetProject { project_id: project.id };
        assert_eq!(node.ask(&owner, get()).await.unwrap(), project);
        assert_eq!(refusal(node.ask(&stranger, get()).await), ProjectError::NotFound);
        let update = UpdateProject { project_id: project.id, description: Some("mine".to_owned()), if_match: None };
        assert_eq!(refusal(node.ask(&stranger, update).await), ProjectError::NotFound);
        let delete = DeleteProject { project_id: project.id, if_match: None };
        assert_eq!(refusal(node.ask(&stranger, delete).await), ProjectError::NotFound);
        assert_eq!(refusal(node.ask(&stranger, set(project.id, &[("A", "1", false)])).await), ProjectError::NotFound);
        assert_eq!(
            refusal(node.ask(&stranger, ListEnv { project_id: project.id, version: None }).await),
            ProjectError::NotFound
        );
        let unset = UnsetEnv { project_id: project.id, name: "A".to_owned() };
        assert_eq!(refusal(node.ask(&stranger, unset).await), ProjectError::NotFound);
        let config = GetBuildConfig { project_id: project.id };
        assert_eq!(refusal(node.ask(&stranger, config).await), ProjectError::NotFound);
        let config = SetBuildConfig { project_id: project.id, config: BuildConfig::default() };
        assert_eq!(refusal(node.ask(&stranger, config).await), ProjectError::NotFound);
        let config = GetConfig { project_id: project.id, environment_version: None };
        assert_eq!(refusal(node.ask(&stranger, config).await), ProjectError::NotFound);
        assert!(node.ask(&stranger, list(Limit::default(), None)).await.unwrap().items.is_empty());
    })
    .await;
}

#[actix_rt::test]
async fn a_name_is_taken_once_on_the_platform() {
    on_both(async |node| {
        node.create(&member(), "shop").await;
        let again = CreateProject { name: "shop".to_owned(), description: None };
        assert_eq!(refusal(node.ask(&member(), again).await), ProjectError::NameTaken("shop".to_owned()));
        let reserved = CreateProject { name: "www".to_owned(), description: None };
        assert_eq!(node.ask(&member(), reserved).await.unwrap_err().code(), Code::Invalid);
        let long = CreateProject { name: "a".to_owned(), description: Some("x".repeat(1_001)) };
        assert_eq!(node.ask(&member(), long).await.unwrap_err().code(), Code::Invalid);
    })
    .await;
}

#[actix_rt::test]
async fn a_request_that_comes_again_finds_the_project_that_it_made() {
    on_both(async |node| {
        let member = member();
        let attempt = Caller { request: Some(uuid::Uuid::now_v7()), ..member.clone() };
        let create = || CreateProject { name: "shop".to_owned(), description: Some("once".to_owned()) };
        // Concurrently, as when a message is delivered twice, and once more later.
        let made = join_all((0..12).map(|_| node.ask(&attempt, create()))).await;
        let project = made[0].clone().unwrap();
        assert!(made.iter().all(|made| made.as_ref() == Ok(&project)), "{made:?}");
        assert_eq!(node.ask(&attempt, create()).await.unwrap(), project);
        let update = UpdateProject { project_id: project.id, description: Some("new".to_owned()), if_match: None };
        node.ask(&attempt, update).await.unwrap();
        assert_eq!(node.ask(&attempt, create()).await.unwrap(), project, "as the first attempt was answered");

        let other = Caller { request: Some(uuid::Uuid::now_v7()), ..member.clone() };
        assert_eq!(refusal(node.ask(&other, create()).await), ProjectError::NameTaken("shop".to_owned()));
        let stranger = Caller { organization_id: Some(OrganizationId::new()), ..attempt };
        assert_eq!(refusal(node.ask(&stranger, create()).await), ProjectError::NameTaken("shop".to_owned()));
    })
    .await;
}

#[actix_rt::test]
async fn a_request_of_which_nothing_is_left_may_be_tried_again() {
    on_both(async |node| {
        let attempt = Caller { request: Some(uuid::Uuid::now_v7()), ..member() };
        let create = || CreateProject { name: "shop".to_owned(), description: None };
        node.deploys.refuses.store(true, Ordering::SeqCst);
        for outcome in join_all((0..3).map(|_| node.ask(&attempt, create()))).await {
            assert_eq!(refusal(outcome), ProjectError::SetupFailed("not now".to_owned()));
        }
        node.deploys.refuses.store(false, Ordering::SeqCst);
        let made = join_all((0..12).map(|_| node.ask(&attempt, create()))).await;
        let project = made[0].clone().unwrap();
        assert!(made.iter().all(|made| made.as_ref() == Ok(&project)), "{made:?}");
    })
    .await;
}

fn list(limit: Limit, cursor: Option<Cursor>) -> ListProjects {
    ListProjects { name: None, limit, cursor }
}

#[actix_rt::test]
async fn a_list_is_read_page_by_page_newest_first() {
    on_both(async |node| {
        let owner = member();
        for name in ["one", "two", "three"] {
            node.create(&owner, name).await;
        }
        node.create(&member(), "other").await;
        let names =
            |page: &Page<Project>| -> Vec<String> { page.items.iter().map(|project| project.name.clone()).collect() };
        let first = node.ask(&owner, list(Limit::of(2), None)).await.unwrap();
        assert_eq!(names(&first), ["three", "two"]);
        let second = node.ask(&owner, list(Limit::of(2), first.next)).await.unwrap();
        assert_eq!((names(&second), second.next), (vec!["one".to_owned()], None));
        let by_name = ListProjects { name: Some("two".to_owned()), limit: Limit::default(), cursor: None };
        assert_eq!(names(&node.ask(&owner, by_name.clone()).await.unwrap()), ["two"]);
        assert!(node.ask(&member(), by_name).await.unwrap().items.is_empty());
        assert_eq!(names(&node.ask(&owner, list(Limit::of(100), None)).await.unwrap()).len(), 3);
    })
    .await;
}

#[actix_rt::test]
async fn an_update_of_an_old_version_is_refused() {
    on_both(async |node| {
        let owner = member();
        let project = node.create(&owner, "shop").await;
        let update = |text: &str, if_match| UpdateProject {
            project_id: project.id,
            description: Some(text.to_owned()),
            if_match,
        };
        let updated = node.ask(&owner, update("first", Some(1))).await.unwrap();
        assert_eq!((updated.version, updated.description.as_str()), (2, "first"));
        assert_eq!(refusal(node.ask(&owner, update("second", Some(1))).await), ProjectError::VersionMismatch);
        assert_eq!(node.ask(&owner, update("third", None)).await.unwrap().version, 3);
        let nothing = UpdateProject { project_id: project.id, description: None, if_match: None };
        assert_eq!(node.ask(&owner, nothing).await.unwrap().description, "third");
    })
    .await;
}

async fn opened(node: &Node, caller: &Caller, project_id: ProjectId, version: Option<i64>) -> Vec<(String, String)> {
    let config = node.ask(caller, GetConfig { project_id, environment_version: version }).await.unwrap();
    config.environment.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[actix_rt::test]
async fn every_version_of_the_environment_stays_readable() {
    on_both(async |node| {
        let owner = member();
        let id = node.create(&owner, "shop").await.id;
        assert_eq!(node.ask(&owner, ListEnv { project_id: id, version: None }).await.unwrap().version, 0);
        node.ask(&owner, set(id, &[("A", "1", false), ("TOKEN", "s3cret", true)])).await.unwrap();
        node.ask(&owner, set(id, &[("A", "2", false)])).await.unwrap();
        let last = node.ask(&owner, UnsetEnv { project_id: id, name: "TOKEN".to_owned() }).await.unwrap();
        assert_eq!((last.version, last.variables.len()), (3, 1));
        assert_eq!(opened(node, &owner, id, None).await, pairs(&[("A", "2")]));
        assert_eq!(opened(node, &owner, id, Some(2)).await, pairs(&[("A", "2"), ("TOKEN", "s3cret")]));
        assert_eq!(opened(node, &owner, id, Some(1)).await, pairs(&[("A", "1"), ("TOKEN", "s3cret")]));
        assert_eq!(opened(node, &owner, id, Some(0)).await, []);
        let future = GetConfig { project_id: id, environment_version: Some(4) };
        assert_eq!(node.ask(&owner, future).await.unwrap_err().code(), Code::Invalid);
        let again = UnsetEnv { project_id: id, name: "TOKEN".to_owned() };
        assert_eq!(refusal(node.ask(&owner, again).await), ProjectError::NoSuchVariable("TOKEN".to_owned()));
        assert_eq!(
            node.ask(&owner, ListEnv { project_id: id, version: None }).await.unwrap().version,
            3,
            "a refusal changes nothing"
        );
        assert_eq!(opened(node, &Caller::system(), id, None).await, pairs(&[("A", "2")]));
    })
    .await;
}

#[actix_rt::test]
async fn variables_are_changed_together_and_only_over_the_version_that_was_read() {
    on_both(async |node| {
        let owner = member();
        let id = node.create(&owner, "shop").await.id;
        node.ask(&owner, set(id, &[("A", "1", false), ("B", "2", false)])).await.unwrap();
        let change = |set: &[(&str, &str)], remove: &[&str], if_match| ChangeEnv {
            project_id: id,
            set: set
                .iter()
                .map(|(name, value)| NewVariable {
                    name: (*name).to_owned(),
                    value: Secret::new(*value),
                    secret: false,
                })
                .collect(),
            remove: remove.iter().map(|name| (*name).to_owned()).collect(),
            if_match,
        };
        let changed = node.ask(&owner, change(&[("A", "3"), ("C", "4")], &["B", "GONE"], Some(1))).await.unwrap();
        assert_eq!(changed.version, 2, "one step is one version");
        assert_eq!(opened(node, &owner, id, None).await, pairs(&[("A", "3"), ("C", "4")]));
        let same = node.ask(&owner, change(&[], &["GONE"], Some(2))).await.unwrap();
        assert_eq!((same.version, same.variables.len()), (2, 2), "removing what is not there changes nothing");
        let late = node.ask(&owner, change(&[("A", "5")], &[], Some(1))).await;
        assert_eq!(refusal(late), ProjectError::VersionMismatch);
        for wrong in [change(&[], &[], None), change(&[("A", "1")], &["A"], None)] {
            assert_eq!(node.ask(&owner, wrong).await.unwrap_err().code(), Code::Invalid);
        }
        let before = ListEnv { project_id: id, version: Some(1) };
        let names: Vec<String> =
            node.ask(&owner, before).await.unwrap().variables.into_iter().map(|variable| variable.name).collect();
        assert_eq!(names, ["A", "B"], "an earlier version stays readable, and the refusals changed nothing");
        let future = ListEnv { project_id: id, version: Some(3) };
        assert_eq!(node.ask(&owner, future).await.unwrap_err().code(), Code::Invalid);
        assert_eq!(refusal(node.ask(&member(), change(&[("A", "1")], &[], None)).await), ProjectError::NotFound);
    })
    .await;
}

#[actix_rt::test]
async fn a_secret_is_written_but_never_shown_and_stored_sealed() {
    on_both(async |node| {
        let owner = member();
        let id = node.create(&owner, "shop").await.id;
        let environment =
            node.ask(&owner, set(id, &[("OPEN", "seen", false), ("TOKEN", "s3cret", true)])).await.unwrap();
        let shown: Vec<_> = environment.variables.iter().map(|v| (v.name.as_str(), v.value.as_deref())).collect();
        assert_eq!(shown, [("OPEN", Some("seen")), ("TOKEN", None)]);
        let database = node.database(DOMAIN).await;
        let (plain, sealed): (Option<String>, Vec<u8>) =
            database.query("SELECT plain, sealed FROM variables WHERE name = 'TOKEN'").fetch_one().await.unwrap();
        assert_eq!(plain, None);
        assert!(!sealed.windows(6).any(|window| window == b"s3cret"));
    })
    .await;
}

#[actix_rt::test]
async fn a_secret_that_was_moved_to_another_row_does_not_open() {
    on_both(async |node| {
        let owner = member();
        let id = node.create(&owner, "shop").await.id;
        node.ask(&owner, set(id, &[("A", "one", true), ("B", "two", true)])).await.unwrap();
        let database = node.database(DOMAIN).await;
        database
            .query(
                "UPDATE variables SET sealed = (SELECT sealed FROM variables AS other WHERE other.name = 'A')
                 WHERE name = 'B'",
            )
            .execute()
            .await
            .unwrap();
        let config = GetConfig { project_id: id, environment_version: None };
        assert_eq!(node.ask(&owner, config).await.unwrap_err().code(), Code::Internal);
    })
    .await;
}

#[actix_rt::test]
async fn variables_are_bounded_in_number_and_size() {
    on_both(async |node| {
        let owner = member();
        let id = node.create(&owner, "shop").await.id;
        let names: Vec<String> = (0..256).map(|n| format!("V{n}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), "x", false)).collect();
        node.ask(&owner, set(id, &all)).await.unwrap();
        assert_eq!(node.ask(&owner, set(id, &[("ONE_MORE", "x", false)])).await.unwrap_err().code(), Code::Invalid);
        node.ask(&owner, set(id, &[("V0", "y", false)])).await.unwrap();
        let large = "x".repeat(32 * 1024);
        let many: Vec<_> = names.iter().take(20).map(|name| (name.as_str(), large.as_str(), false)).collect();
        assert_eq!(node.ask(&owner, set(id, &many)).await.unwrap_err().code(), Code::Invalid);
        assert_eq!(opened(node, &owner, id, None).await.len(), 256);
    })
    .await;
}

#[actix_rt::test]
async fn concurrent_changes_of_an_environment_each_get_a_version() {
    on_both(async |node| {
        let owner = member();
        let id = node.create(&owner, "shop").await.id;
        let names: Vec<String> = (0..10).map(|n| format!("V{n}")).collect();
        let changes = names.iter().map(|name| node.ask(&owner, set(id, &[(name, "x", true)])));
        let mut versions: Vec<i64> = Vec::new();
        for outcome in join_all(changes).await {
            versions.push(outcome.unwrap().version);
        }
        versions.sort_unstable();
        assert_eq!(versions, (1..=10).collect::<Vec<_>>());
        assert_eq!(opened(node, &owner, id, None).await.len(), 10);
    })
    .await;
}

#[actix_rt::test]
async fn a_build_config_is_kept_whole() {
    on_both(async |node| {
        let owner = member();
        let id = node.create(&owner, "shop").await.id;
        assert_eq!(node.ask(&owner, GetBuildConfig { project_id: id }).await.unwrap(), BuildConfig::default());
        let config =
            BuildConfig { start_command: Some("./run".to_owned()), memory_mib: Some(64), ..BuildConfig::default() };
        node.ask(&owner, SetBuildConfig { project_id: id, config: config.clone() }).await.unwrap();
        assert_eq!(node.ask(&owner, GetBuildConfig { project_id: id }).await.unwrap(), config);
        let broken = BuildConfig { memory_mib: Some(1), ..BuildConfig::default() };
        let broken = SetBuildConfig { project_id: id, config: broken };
        assert_eq!(node.ask(&owner, broken).await.unwrap_err().code(), Code::Invalid);
        let told = node.ask(&owner, GetConfig { project_id: id, environment_version: None }).await.unwrap();
        assert_eq!((told.build, told.project.name.as_str()), (config, "shop"));
    })
    .await;
}

#[actix_rt::test]
async fn a_deleted_project_is_gone_with_its_app_and_its_name_is_free() {
    on_both(async |node| {
        let owner = member();
        let id = node.create(&owner, "shop").await.id;
        node.ask(&owner, set(id, &[("A", "1", true)])).await.unwrap();
        let stale = DeleteProject { project_id: id, if_match: Some(7) };
        assert_eq!(refusal(node.ask(&owner, stale).await), ProjectError::VersionMismatch);
        node.ask(&owner, DeleteProject { project_id: id, if_match: Some(1) }).await.unwrap();
        assert_eq!(node.deploys.asked.load(Ordering::SeqCst), 1);
        assert_eq!(refusal(node.ask(&owner, GetProject { project_id: id }).await), ProjectError::NotFound);
        let again = DeleteProject { project_id: id, if_match: None };
        assert_eq!(refusal(node.ask(&owner, again).await), ProjectError::NotFound);
        node.create(&member(), "shop").await;
        let database = node.database(DOMAIN).await;
        assert_eq!(database.query("SELECT COUNT(*) FROM variables").fetch_scalar::<i64>().await.unwrap(), 0);
    })
    .await;
}

#[actix_rt::test]
async fn a_deletion_that_is_accepted_is_shown_as_under_way_and_ends_by_itself() {
    on_both(async |node| {
        let owner = member();
        let project = node.create(&owner, "shop").await;
        let delete = || DeleteProject { project_id: project.id, if_match: None };
        node.deploys.refuses.store(true, Ordering::SeqCst);
        let told = node.ask(&owner, delete()).await.unwrap().expect("it is under way");
        assert!(told.deleting_at.is_some());
        assert_eq!(told, Project { deleting_at: told.deleting_at, ..project.clone() });
        assert_eq!(node.ask(&owner, GetProject { project_id: project.id }).await.unwrap(), told);
        assert_eq!(node.ask(&owner, list(Limit::default(), None)).await.unwrap().items, std::slice::from_ref(&told));
        let again = node.ask(&owner, delete()).await.unwrap();
        assert_eq!(again, Some(told), "a second try is about the same deletion");
        let taken = CreateProject { name: "shop".to_owned(), description: None };
        assert_eq!(refusal(node.ask(&owner, taken).await), ProjectError::NameTaken("shop".to_owned()));
        let update = UpdateProject { project_id: project.id, description: Some("new".to_owned()), if_match: None };
        assert_eq!(refusal(node.ask(&owner, update).await), ProjectError::Deleting);
        assert_eq!(refusal(node.ask(&owner, set(project.id, &[("A", "1", true)])).await), ProjectError::Deleting);
        let configure = SetBuildConfig { project_id: project.id, config: BuildConfig::default() };
        assert_eq!(refusal(node.ask(&owner, configure).await), ProjectError::Deleting);

        // Without another request.
        node.deploys.refuses.store(false, Ordering::SeqCst);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while node.ask(&owner, GetProject { project_id: project.id }).await.is_ok() {
            assert!(std::time::Instant::now() < deadline, "the reconciler has not finished it");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(refusal(node.ask(&owner, delete()).await), ProjectError::NotFound);
    })
    .await;
}

#[actix_rt::test]
async fn deletions_that_wait_for_one_outage_are_one_line_of_the_log() {
    let warnings = Warnings::collect();
    on_both(async |node| {
        let before = warnings.with("the deletion of projects").len();
        let owner = member();
        let mut projects = Vec::new();
        for number in 0..6 {
            projects.push(node.create(&owner, &format!("shop-{number}")).await.id);
        }
        node.deploys.is_away.store(true, Ordering::SeqCst);
        for project_id in &projects {
            let told = node.ask(&owner, DeleteProject { project_id: *project_id, if_match: None }).await.unwrap();
            assert!(told.is_some(), "it is under way");
        }
        // The reconciler has tried them too.
        let until = async |condition: &dyn Fn() -> bool| {
            let deadline = std::time::Instant::now() + Duration::from_secs(30);
            while !condition() {
                assert!(std::time::Instant::now() < deadline, "it did not come true");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        until(&|| node.deploys.asked.load(Ordering::SeqCst) > projects.len()).await;
        node.deploys.is_away.store(false, Ordering::SeqCst);
        until(&|| node.deploys.places.lock().unwrap().is_empty()).await;
        assert_eq!(warnings.with("the deletion of projects").len() - before, 1, "{:?}", warnings.with(""));
        for line in ["finishing what is marked", "reading what is marked"] {
            assert!(warnings.with(line).is_empty(), "{:?}", warnings.with(line));
        }
    })
    .await;
}

#[actix_rt::test]
async fn an_interrupted_deletion_is_finished_by_the_next_try_or_the_next_start() {
    on_both_engines(&[("project", &MIGRATIONS)], async |databases| {
        let node = Node::start(&databases).await;
        let owner = member();
        let (by_hand, at_start) = (node.create(&owner, "by-hand").await.id, node.create(&owner, "at-start").await.id);
        node.deploys.refuses.store(true, Ordering::SeqCst);
        for project_id in [by_hand, at_start] {
            let told = node.ask(&owner, DeleteProject { project_id, if_match: None }).await.unwrap();
            assert!(told.is_some(), "it is under way");
            let deploying = GetConfig { project_id, environment_version: None };
            assert_eq!(refusal(node.ask(&owner, deploying).await), ProjectError::NotFound, "but not to be deployed");
        }
        node.deploys.refuses.store(false, Ordering::SeqCst);
        let deleted = node.ask(&owner, DeleteProject { project_id: by_hand, if_match: None }).await;
        // The reconciler may have been faster.
        assert!(matches!(deleted, Ok(None) | Err(CallError::Refused(ProjectError::NotFound))), "{deleted:?}");
        node.stop().await;

        let node = Node::start(&databases).await;
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while node.ask(&owner, GetProject { project_id: at_start }).await.is_ok() {
            assert!(std::time::Instant::now() < deadline, "the reconciler has not finished it");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn what_is_left_of_a_deleted_organization_is_deleted() {
    on_both(async |node| {
        let (owner, other) = (member(), member());
        let (left, making) = (node.create(&owner, "left").await.id, node.create(&owner, "making").await.id);
        let kept = node.create(&other, "kept").await;
        // Its creation is not finished.
        let creating = "UPDATE projects SET creating = TRUE WHERE id = $1";
        node.database(DOMAIN).await.query(creating).bind(making).execute().await.unwrap();
        let deleted = OrganizationDeleted {
            organization_id: owner.organization_id.unwrap(),
            name: "acme".to_owned(),
            members: Vec::new(),
        };
        let event = CloudEvent::new("organization", Clock::system().now(), &deleted).unwrap();
        node.events.publish(event).await.unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        let apps = || node.deploys.places.lock().unwrap().clone();
        while apps().contains(&left) || apps().contains(&making) {
            assert!(std::time::Instant::now() < deadline, "nobody deletes them");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(node.ask(&other, GetProject { project_id: kept.id }).await.unwrap(), kept);
    })
    .await;
}
