//! Revocations with several nodes and a shared cache.

use std::time::Duration;

use callboard_cache::{Cache, CacheSettings};
use callboard_messages::{
    CallError, Caller, Event, OrganizationId,
    auth::{AuthError, CreateApiKey, GetRevocationCount, Logout, LogoutAll, Tokens, ValidateToken},
    organization::{CreateOrganization, DeleteOrganization, OrganizationCreated, OrganizationDeleted},
};
use callboard_supervisors::{Clock, Outcome, db::Databases, events::emit, seal::MasterKey, testing::on_both_engines};
use chrono::DateTime;
use uuid::Uuid;

use super::{AuthSettings, Node, PASSWORD, Registration, on_each, refusal, visitor};

async fn count(node: &Node) -> u64 {
    node.ask(&Caller::system(), GetRevocationCount {}).await.unwrap().count
}

/// Two nodes with a common database and Redis, and no bridge between them.
async fn on_two_nodes(body: impl AsyncFn(&Node, &Node)) {
    let migrators =
        [(crate::DOMAIN, &crate::MIGRATIONS), (callboard_organization::DOMAIN, &callboard_organization::MIGRATIONS)];
    on_both_engines(&migrators, async |databases| {
        let url = std::env::var("CALLBOARD_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
        let redis = CacheSettings {
            prefix: format!("test:{}", Uuid::now_v7().simple()),
            timeout: Duration::from_secs(1),
            ..CacheSettings::new(url)
        };
        let auth = AuthSettings {
            registration: Registration::Open,
            bcrypt_cost: 4,
            ..AuthSettings::new("http://callboard.test", MasterKey::generate().unwrap())
        };
        let clock = Clock::manual(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let start = async || {
            let cache = Cache::connect(&redis, Clock::system()).unwrap();
            Node::start_with(databases.clone(), auth.clone(), clock.clone(), true, cache).await
        };
        let (one, other) = (start().await, start().await);
        body(&one, &other).await;
        for node in [one, other] {
            node.stop().await;
        }
    })
    .await;
}

async fn validate(node: &Node, tokens: &Tokens, revocation_count: u64) -> Outcome<ValidateToken> {
    let token = tokens.access_token.clone();
    node.ask(&Caller::system(), ValidateToken { token, organization_id: None, revocation_count }).await
}

/// Deletes sessions without revoking anything.
async fn remove_sessions(databases: &Databases) {
    databases.open("auth").await.unwrap().query("DELETE FROM sessions").execute().await.unwrap();
}

#[actix_rt::test]
async fn each_revocation_raises_the_count_beyond_the_last_one_and_beyond_the_time() {
    on_each(async |node| {
        assert_eq!(count(node).await, 0);
        let first = node.register("ada@example.org").await;
        let caller = node.caller(&first.access_token).await;
        node.login("ada@example.org", PASSWORD).await.unwrap();
        assert_eq!(count(node).await, 0, "a sign-in revokes nothing");
        node.ask(&caller, Logout {}).await.unwrap();
        let one = count(node).await;
        assert_eq!(i64::try_from(one).unwrap(), node.clock.now().timestamp_micros());
        assert_eq!(node.revocations.count(), one);
        node.ask(&caller, Logout {}).await.unwrap();
        assert_eq!(count(node).await, one, "it was revoked already");
        node.ask(&caller, LogoutAll {}).await.unwrap();
        assert_eq!(count(node).await, one + 1, "in the same microsecond");
    })
    .await;
}

#[actix_rt::test]
async fn nodes_remember_together_who_a_session_belongs_to_until_anything_is_revoked() {
    on_two_nodes(async |one, other| {
        let tokens = one.register("ada@example.org").await;
        let bob = one.register("bob@example.org").await;
        let validated = validate(one, &tokens, 0).await.unwrap();
        remove_sessions(&one.databases).await;
        let again = validate(other, &tokens, 0).await.unwrap();
        assert_eq!(again.caller.user_id, validated.caller.user_id);
        assert_eq!(again.caller.scopes, validated.caller.scopes);
        // A caller who knows of a revocation is answered from the database, also by a node that does not know of it.
        let error = validate(other, &tokens, 1).await.unwrap_err();
        assert_eq!(error, CallError::Refused(AuthError::InvalidToken));
        // A node that knows of one reads the database itself.
        other.revocations.nudge(1);
        assert_eq!(refusal(validate(other, &tokens, 0).await), AuthError::InvalidToken);
        assert_eq!(refusal(validate(other, &bob, 0).await), AuthError::InvalidToken);
    })
    .await;
}

#[actix_rt::test]
async fn a_revoked_session_is_dead_on_the_node_that_revoked_it_whatever_is_remembered() {
    on_two_nodes(async |one, _| {
        let tokens = one.register("ada@example.org").await;
        let caller = validate(one, &tokens, 0).await.unwrap().caller;
        let caller = Caller { address: visitor().address, ..caller };
        validate(one, &tokens, 0).await.unwrap();
        one.ask(&caller, Logout {}).await.unwrap();
        assert_eq!(refusal(validate(one, &tokens, 0).await), AuthError::InvalidToken);
    })
    .await;
}

#[actix_rt::test]
async fn permissions_that_nodes_remember_are_asked_for_again_when_an_event_says_so() {
    on_two_nodes(async |one, _| {
        let tokens = one.register("ada@example.org").await;
        let caller = validate(one, &tokens, 0).await.unwrap().caller;
        let (user_id, organization_id) = (caller.user_id.unwrap(), caller.organization_id.unwrap());
        // The event of the registration invalidates caches too: the test begins after that.
        heard_of_registration(one).await;
        one.revocations.nudge(1);
        validate(one, &tokens, 0).await.unwrap();
        let members = one.databases.open("organization").await.unwrap();
        members.query("DELETE FROM members").execute().await.unwrap();
        one.revocations.nudge(2);
        validate(one, &tokens, 0).await.unwrap();
        let created = OrganizationCreated {
            organization_id,
            name: "ada".to_owned(),
            display_name: "Ada".to_owned(),
            personal: true,
            owner: user_id,
        };
        deliver(one, organization_id, created).await;
        // There is no bridge between these nodes: if the other one applied the event, this one reads again seconds
        // later.
        for count in 3..3000 {
            one.revocations.nudge(count);
            if let Err(error) = validate(one, &tokens, 0).await {
                assert_eq!(error, CallError::Refused(AuthError::InvalidToken));
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the event changed nothing");
    })
    .await;
}

#[actix_rt::test]
async fn a_key_of_an_organization_that_is_being_deleted_is_refused_at_once_and_goes_with_it() {
    on_each(async |node| {
        let tokens = node.register("ada@example.org").await;
        let ada = node.caller(&tokens.access_token).await;
        let create = CreateOrganization { name: "acme".to_owned(), display_name: None };
        let acme = node.ask(&ada, create).await.unwrap().id;
        let acting = Caller { organization_id: Some(acme), ..ada.clone() };
        let create = CreateApiKey { name: "key".to_owned(), scopes: vec!["project:read".to_owned()], expires_at: None };
        let key = node.ask(&acting, create).await.unwrap();
        let validate = async || {
            let token = key.secret.clone();
            let validate = ValidateToken { token, organization_id: None, revocation_count: 0 };
            node.ask(&Caller::system(), validate).await
        };
        assert_eq!(validate().await.unwrap().caller.organization_id, Some(acme));
        let before = count(node).await;
        // There is no project domain here: the organization is only closed.
        let closed = node.ask(&ada, DeleteOrganization { organization_id: acme }).await.unwrap();
        assert!(closed.is_some());
        validate().await.unwrap_err();
        eventually("gateways are told", async || count(node).await > before).await;
        let deleted = OrganizationDeleted { organization_id: acme, name: "acme".to_owned(), members: Vec::new() };
        deliver(node, acme, deleted).await;
        let auth = node.databases.open("auth").await.unwrap();
        eventually("its keys go", async || {
            let left = "SELECT COUNT(*) FROM api_keys WHERE organization_id = $1";
            auth.query(left).bind(acme).fetch_scalar::<i64>().await.unwrap() == 0
        })
        .await;
    })
    .await;
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..3000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not in time");
}

/// Waits until auth has applied the event that the registration made organization emit.
async fn heard_of_registration(node: &Node) {
    let auth = node.databases.open("auth").await.unwrap();
    for _ in 0..3000 {
        let applied: i64 = auth.query("SELECT COUNT(*) FROM inbox").fetch_scalar().await.unwrap();
        if applied > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the event of the registration was not applied");
}

/// Delivers an event as the relay of `organization` does.
async fn deliver(node: &Node, organization_id: OrganizationId, event: impl Event) {
    let database = node.databases.open("organization").await.unwrap();
    let caller = Caller { organization_id: Some(organization_id), ..Caller::system() };
    let mut transaction = database.begin().await.unwrap();
    emit(&mut transaction, &caller, &event).await.unwrap();
    transaction.commit().await.unwrap();
}
