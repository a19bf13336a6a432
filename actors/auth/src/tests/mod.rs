//! Tests of every operation, through the runtime beside the real `organization`, on both engines.

mod access_tokens;
mod api_keys;
mod login;
mod operator;
mod pruning;
mod queue;
mod refresh;
mod registration;
mod revocations;
mod sessions;

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use callboard_cache::Cache;
use callboard_messages::{
    Caller, OrganizationId, Secret,
    auth::{Login, Register, Tokens, ValidateToken, Validated},
    deploy::{DeployError, ListInstances, Stop},
    project::{ListProjects, ProjectError, UpdateProject},
};
use callboard_platform::revocations::Revocations;
use callboard_supervisors::{
    BlockingPool, Clock, Domain, Handle, Outcome, ShardContext, StartError,
    db::Databases,
    seal::MasterKey,
    testing::{TestNode, on_both_engines, refusal},
};
use chrono::DateTime;

use super::{AuthSettings, Registration, bcrypt_pool, domain_with};

const PASSWORD: &str = "correct horse battery";

/// A node with auth and organization, and a manual clock.
struct Node {
    node: TestNode,
    revocations: Revocations,
    settings: AuthSettings,
    bcrypt: BlockingPool,
    password_work: Arc<AtomicU64>,
}

impl Deref for Node {
    type Target = TestNode;

    fn deref(&self) -> &TestNode {
        &self.node
    }
}

/// Runs `body` on each engine, with open registration and whatever else `adjust` sets.
async fn on_each_with(adjust: impl Fn(&mut AuthSettings), body: impl AsyncFn(&Node)) {
    let migrators =
        [(super::DOMAIN, &super::MIGRATIONS), (callboard_organization::DOMAIN, &callboard_organization::MIGRATIONS)];
    on_both_engines(&migrators, async |databases| {
        let mut settings = AuthSettings {
            registration: Registration::Open,
            bcrypt_cost: 4,
            ..AuthSettings::new("http://callboard.test", MasterKey::generate().unwrap())
        };
        adjust(&mut settings);
        let clock = Clock::manual(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let node = Node::start(databases, settings, clock, true).await;
        body(&node).await;
        node.stop().await;
    })
    .await;
}

async fn on_each(body: impl AsyncFn(&Node)) {
    on_each_with(|_| (), body).await;
}

impl Node {
    async fn start(databases: Databases, settings: AuthSettings, clock: Clock, with_organization: bool) -> Self {
        Self::start_with(databases, settings, clock, with_organization, Cache::none()).await
    }

    async fn start_with(
        databases: Databases,
        settings: AuthSettings,
        clock: Clock,
        with_organization: bool,
        cache: Cache,
    ) -> Self {
        let (revocations, password_work) = (Revocations::default(), Arc::<AtomicU64>::default());
        let bcrypt = bcrypt_pool(&settings);
        let (pool, work) = (bcrypt.clone(), password_work.clone());
        let auth = domain_with(settings.clone(), databases.clone(), revocations.clone(), cache, pool, work);
        let organization = with_organization.then(|| callboard_organization::domain(databases.clone()));
        let domains: Vec<Domain> = [Some(auth), organization].into_iter().flatten().chain(played()).collect();
        let node = TestNode::start(&databases, clock, domains).await;
        Self { node, revocations, settings, bcrypt, password_work }
    }

    async fn stop(self) {
        self.node.stop().await;
    }

    /// Another node of the same platform, a moment later.
    async fn restarted(&self, settings: AuthSettings) -> Self {
        Self::start(self.databases.clone(), settings, self.clock.clone(), true).await
    }

    fn password_work(&self) -> u64 {
        self.password_work.load(Ordering::Relaxed)
    }

    async fn register(&self, email: &str) -> Tokens {
        self.ask(&visitor(), register(email)).await.unwrap()
    }

    async fn login_from(&self, address: &str, email: &str, password: &str) -> Outcome<Login> {
        self.ask(&visitor_at(address), login(email, password)).await
    }

    async fn login(&self, email: &str, password: &str) -> Outcome<Login> {
        self.login_from("192.0.2.1", email, password).await
    }

    async fn validate(&self, token: &Secret) -> Outcome<ValidateToken> {
        self.validate_for(token, None).await
    }

    async fn validate_for(&self, token: &Secret, organization_id: Option<OrganizationId>) -> Outcome<ValidateToken> {
        self.ask(&Caller::system(), ValidateToken { token: token.clone(), organization_id, revocation_count: 0 }).await
    }

    /// The caller behind a token.
    async fn caller(&self, token: &Secret) -> Caller {
        let Validated { caller, .. } = self.validate(token).await.unwrap();
        caller
    }
}

/// Stands in for the other domains, whose permissions keys can have.
struct Played;

impl Handle<ListProjects> for Played {
    async fn handle(&self, _: &Caller, _: ListProjects) -> Outcome<ListProjects> {
        Err(ProjectError::NotFound.into())
    }
}

impl Handle<UpdateProject> for Played {
    async fn handle(&self, _: &Caller, _: UpdateProject) -> Outcome<UpdateProject> {
        Err(ProjectError::NotFound.into())
    }
}

impl Handle<Stop> for Played {
    async fn handle(&self, _: &Caller, _: Stop) -> Outcome<Stop> {
        Err(DeployError::NoRelease.into())
    }
}

impl Handle<ListInstances> for Played {
    async fn handle(&self, _: &Caller, _: ListInstances) -> Outcome<ListInstances> {
        Err(DeployError::NoRelease.into())
    }
}

fn played() -> [Domain; 2] {
    let built = |_: ShardContext| async { Ok::<_, StartError>(Played) };
    let project = Domain::new("project").answering().on::<ListProjects>().on::<UpdateProject>();
    let deploy = Domain::new("deploy").answering().on::<ListInstances>().on::<Stop>();
    [project.shared(built).build(), deploy.shared(built).build()]
}

/// A caller who has not signed in.
fn visitor() -> Caller {
    Caller {
        address: Some("192.0.2.1".parse().unwrap()),
        user_agent: Some("browser\r\nof the test".into()),
        ..Caller::anonymous()
    }
}

fn visitor_at(address: &str) -> Caller {
    Caller { address: Some(address.parse().unwrap()), ..visitor() }
}

fn login(email: &str, password: &str) -> Login {
    Login { email: email.to_owned(), password: Secret::new(password), device: None, replaces: None }
}

fn register(email: &str) -> Register {
    let password = Secret::new(PASSWORD);
    Register { email: email.to_owned(), password, name: None, invitation: None, replaces: None }
}

fn register_with(email: &str, invitation: &Secret) -> Register {
    Register { invitation: Some(invitation.clone()), ..register(email) }
}
