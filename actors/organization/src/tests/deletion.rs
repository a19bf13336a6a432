//! Tests of the deletion of an organization, and of what interrupts it.

use std::{
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use callboard_messages::{
    Caller, Code, Event, Failure, Limit, OrganizationId, Page, ProjectId,
    organization::{
        CreateOrganization, DeleteOrganization, GetOrganization, GetPermissions, Organization, OrganizationClosed,
        OrganizationDeleted, OrganizationError,
    },
    project::{DeleteProject, ListProjects, Project, ProjectError},
};
use callboard_supervisors::{
    Clock, Domain, Handle, Outcome, StartError,
    db::Databases,
    testing::{TestNode, on_both_engines},
};
use chrono::DateTime;

use super::{create, ensure, key_of, list, person};
use crate::{DOMAIN, MIGRATIONS};

const WORKS: usize = 0;
/// Deletions are accepted and do not end.
const LINGERS: usize = 1;
const IS_AWAY: usize = 2;

/// Stands in for the project domain.
#[derive(Clone, Default)]
struct Projects {
    there: Arc<Mutex<Vec<Project>>>,
    way: Arc<AtomicUsize>,
}

impl Projects {
    fn domain(&self) -> Domain {
        let projects = self.clone();
        Domain::new("project")
            .answering()
            .on::<ListProjects>()
            .on::<DeleteProject>()
            .shared(move |_| {
                let projects = projects.clone();
                async move { Ok::<_, StartError>(projects) }
            })
            .build()
    }

    fn add(&self, organization_id: OrganizationId, count: usize) {
        let at = DateTime::UNIX_EPOCH;
        let project = |number| Project {
            id: ProjectId::new(),
            organization_id,
            name: format!("app-{number}"),
            description: String::new(),
            version: 1,
            created_at: at,
            updated_at: at,
            deleting_at: None,
        };
        self.there.lock().unwrap().extend((0..count).map(project));
    }

    fn left(&self, organization_id: OrganizationId) -> usize {
        self.there.lock().unwrap().iter().filter(|project| project.organization_id == organization_id).count()
    }

    fn check(&self) -> Result<(), Failure> {
        match self.way.load(Ordering::SeqCst) {
            IS_AWAY => Err(Failure::Unavailable { retry_after: Duration::from_millis(10) }),
            _ => Ok(()),
        }
    }
}

impl Handle<ListProjects> for Projects {
    async fn handle(&self, caller: &Caller, message: ListProjects) -> Outcome<ListProjects> {
        self.check()?;
        let tenant = caller.tenant()?;
        let mut there = self.there.lock().unwrap().clone();
        there.retain(|project| project.organization_id == tenant);
        there.reverse();
        Ok(Page::of(there, message.limit, |project| project.id.0))
    }
}

impl Handle<DeleteProject> for Projects {
    async fn handle(&self, caller: &Caller, message: DeleteProject) -> Outcome<DeleteProject> {
        self.check()?;
        let tenant = caller.tenant()?;
        let mut there = self.there.lock().unwrap();
        let is_it = |project: &Project| project.id == message.project_id && project.organization_id == tenant;
        let place = there.iter().position(is_it).ok_or(ProjectError::NotFound)?;
        match self.way.load(Ordering::SeqCst) {
            LINGERS => Ok(Some(there[place].clone())),
            _ => {
                there.remove(place);
                Ok(None)
            }
        }
    }
}

struct Node {
    node: TestNode,
    projects: Projects,
}

impl Deref for Node {
    type Target = TestNode;

    fn deref(&self) -> &TestNode {
        &self.node
    }
}

impl Node {
    async fn start(databases: &Databases, projects: &Projects) -> Self {
        let domains = vec![crate::domain(databases.clone()), projects.domain()];
        Self { node: TestNode::start(databases, Clock::system(), domains).await, projects: projects.clone() }
    }

    /// Deletes it. Returns the organization if the deletion is in progress.
    async fn delete(&self, caller: &Caller, organization_id: OrganizationId) -> Option<Organization> {
        self.ask(caller, DeleteOrganization { organization_id }).await.unwrap()
    }

    async fn refuses(&self, caller: &Caller, organization_id: OrganizationId) -> OrganizationError {
        self.refusal(caller, DeleteOrganization { organization_id }).await
    }

    async fn is_gone(&self, caller: &Caller, organization_id: OrganizationId) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.ask(caller, GetOrganization { organization_id }).await.is_ok() {
            assert!(Instant::now() < deadline, "the reconciler has not finished it");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Number of events of this type.
    async fn told<E: Event>(&self) -> i64 {
        let count = "SELECT COUNT(*) FROM outbox WHERE type = $1";
        self.database(DOMAIN).await.query(count).bind(E::NAME).fetch_scalar().await.unwrap()
    }
}

async fn on_each(body: impl AsyncFn(&Node)) {
    on_both_engines(&[(DOMAIN, &MIGRATIONS)], async |databases| {
        let node = Node::start(&databases, &Projects::default()).await;
        body(&node).await;
        node.node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_deleted_organization_is_gone_with_its_projects_and_its_name_is_free() {
    on_each(async |node| {
        let ada = person();
        let acme = node.ask(&ada, create("acme")).await.unwrap().id;
        let other = node.ask(&ada, create("other")).await.unwrap();
        node.projects.add(acme, 120);
        node.projects.add(other.id, 2);
        assert_eq!(node.delete(&ada, acme).await, None);
        assert_eq!((node.projects.left(acme), node.projects.left(other.id)), (0, 2));
        assert_eq!(node.refuses(&ada, acme).await, OrganizationError::NotFound);
        assert_eq!(node.ask(&ada, list(Limit::default(), None)).await.unwrap().items, [other]);
        assert_eq!((node.told::<OrganizationClosed>().await, node.told::<OrganizationDeleted>().await), (1, 1));
        let members = "SELECT COUNT(*) FROM members WHERE organization_id = $1";
        let members: i64 = node.database(DOMAIN).await.query(members).bind(acme).fetch_scalar().await.unwrap();
        assert_eq!(members, 0);
        node.ask(&person(), CreateOrganization { name: "acme".to_owned(), display_name: None }).await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn only_its_owner_deletes_an_organization_and_nobody_the_one_that_somebody_needs() {
    on_each(async |node| {
        let (ada, eve, system) = (person(), person(), Caller::system());
        let acme = node.ask(&ada, create("acme")).await.unwrap().id;
        let other = node.ask(&ada, create("other")).await.unwrap().id;
        assert_eq!(node.refuses(&eve, acme).await, OrganizationError::NotFound);
        assert_eq!(node.refuses(&ada, OrganizationId::new()).await, OrganizationError::NotFound);
        let anonymous = node.ask(&Caller::anonymous(), DeleteOrganization { organization_id: acme }).await;
        assert_eq!(anonymous.unwrap_err().code(), Code::Unauthenticated);
        let join = "INSERT INTO members (organization_id, user_id, role, is_default, created_at)
                    VALUES ($1, $2, 'admin', FALSE, $3)";
        let database = node.database(DOMAIN).await;
        let join = database.query(join).bind(acme).bind(eve.user_id).bind(DateTime::UNIX_EPOCH);
        join.execute().await.unwrap();
        assert_eq!(node.refuses(&eve, acme).await, OrganizationError::NotOwner);

        let personal = node.ask(&system, ensure(&ada, "Ada")).await.unwrap().id;
        assert_eq!(node.refuses(&ada, personal).await, OrganizationError::Needed);
        let founder = ensure(&person(), "Founder");
        let joins = callboard_messages::organization::EnsurePersonal { organization_id: Some(other), ..founder };
        node.ask(&system, joins).await.unwrap();
        assert_eq!(node.refuses(&ada, other).await, OrganizationError::Needed, "it is all that a member has");

        // A key deletes only its own organization, and only with that scope.
        let key = key_of(&ada, acme, &["organization:write"]);
        let forbidden = node.ask(&key, DeleteOrganization { organization_id: acme }).await.unwrap_err();
        assert_eq!(forbidden.code(), Code::Forbidden);
        let key = key_of(&ada, other, &["organization:delete"]);
        assert_eq!(node.refuses(&key, acme).await, OrganizationError::NotFound);
        assert_eq!(node.told::<OrganizationClosed>().await, 0, "what is refused changes nothing");
    })
    .await;
}

#[actix_rt::test]
async fn a_deletion_that_is_accepted_is_shown_as_under_way_and_ends_by_itself() {
    on_each(async |node| {
        let ada = person();
        let acme = node.ask(&ada, create("acme")).await.unwrap();
        node.projects.add(acme.id, 3);
        for way in [LINGERS, IS_AWAY] {
            node.projects.way.store(way, Ordering::SeqCst);
            let told = node.delete(&ada, acme.id).await.expect("it is under way");
            assert!(told.deleting_at.is_some());
            assert_eq!(told, Organization { deleting_at: told.deleting_at, ..acme.clone() });
            assert_eq!(node.ask(&ada, GetOrganization { organization_id: acme.id }).await.unwrap(), told);
        }
        let acts = GetPermissions { user_id: ada.user_id.unwrap(), organization_id: Some(acme.id) };
        assert_eq!(node.refusal(&Caller::system(), acts).await, OrganizationError::NotFound, "nobody acts for it");
        assert_eq!((node.told::<OrganizationClosed>().await, node.told::<OrganizationDeleted>().await), (1, 0));
        // Without another request.
        node.projects.way.store(WORKS, Ordering::SeqCst);
        node.is_gone(&ada, acme.id).await;
        assert_eq!((node.projects.left(acme.id), node.told::<OrganizationDeleted>().await), (0, 1));
    })
    .await;
}

#[actix_rt::test]
async fn an_interrupted_deletion_is_finished_by_the_next_try_or_the_next_start() {
    on_both_engines(&[(DOMAIN, &MIGRATIONS)], async |databases| {
        let (ada, projects) = (person(), Projects::default());
        let node = Node::start(&databases, &projects).await;
        projects.way.store(IS_AWAY, Ordering::SeqCst);
        let mut closed = Vec::new();
        for name in ["by-hand", "at-start"] {
            let organization = node.ask(&ada, create(name)).await.unwrap().id;
            projects.add(organization, 2);
            assert!(node.delete(&ada, organization).await.is_some(), "it is under way");
            closed.push(organization);
        }
        node.node.stop().await;

        // Its node died when half of its projects were deleted.
        projects.there.lock().unwrap().remove(0);
        projects.way.store(LINGERS, Ordering::SeqCst);
        let node = Node::start(&databases, &projects).await;
        projects.way.store(WORKS, Ordering::SeqCst);
        let by_hand = node.ask(&ada, DeleteOrganization { organization_id: closed[0] }).await;
        // The reconciler may have been faster.
        assert!(by_hand.as_ref().map_or_else(|error| error.code() == Code::NotFound, Option::is_none), "{by_hand:?}");
        node.is_gone(&ada, closed[1]).await;
        let there = projects.there.lock().unwrap().len();
        assert_eq!((there, node.told::<OrganizationDeleted>().await), (0, 2));
        node.node.stop().await;
    })
    .await;
}
