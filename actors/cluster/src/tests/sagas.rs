//! The sagas of several domains are one list, which says when it would not be whole.

use std::time::{Duration, Instant};

use callboard_messages::{
    Caller, Code, Cursor, DomainError, Limit, SagaDomain, SagaStatus, UserId,
    cluster::{ClusterError, ListSagas, RetrySaga},
};
use callboard_platform::cluster::Members;
use callboard_supervisors::{
    Domain, ShardContext,
    breaker::Force,
    db::Databases,
    saga::{HasSagas, SagaEngine, Sagas},
    testing::TestNode,
};
use serde_json::{Value, json};
use sqlx::{migrate::Migrator, types::Json};
use uuid::Uuid;

use crate::{ClusterMetrics, ClusterSettings, DOMAIN, MIGRATIONS, Seat};

enum OfOne {}

impl SagaDomain for OfOne {
    const LIST: &'static str = "one.list_sagas";
    const RETRY: &'static str = "one.retry_saga";
}

enum OfOther {}

impl SagaDomain for OfOther {
    const LIST: &'static str = "other.list_sagas";
    const RETRY: &'static str = "other.retry_saga";
}

struct Errands(SagaEngine);

impl HasSagas for Errands {
    fn sagas(&self) -> &SagaEngine {
        &self.0
    }
}

fn errands<D: SagaDomain>(name: &'static str, databases: &Databases) -> Domain {
    let sagas = Sagas::new(name, databases);
    let begun = sagas.clone();
    let open = move |context: ShardContext| {
        let begun = begun.clone();
        async move { Ok(Errands(begun.open(&context).await?)) }
    };
    Domain::new(name).answering().sagas::<D>().shared(open).stored(databases).sagas(&sagas).build()
}

async fn on_each(body: impl AsyncFn(&TestNode)) {
    let none = Migrator::with_migrations(Vec::new());
    let domains = |databases: &Databases| {
        let settings = ClusterSettings { watches: false, ..ClusterSettings::default() };
        let members = Members::alone(super::member());
        let metrics = ClusterMetrics::new().unwrap();
        let cluster = crate::domain(settings, databases.clone(), members, Seat::new(), metrics, Vec::new());
        vec![cluster, errands::<OfOne>("one", databases), errands::<OfOther>("other", databases)]
    };
    TestNode::on_each(&[(DOMAIN, &MIGRATIONS), ("one", &none), ("other", &none)], domains, body).await;
}

/// A saga of the domain without a driver.
async fn stick(node: &TestNode, domain: &str) -> Uuid {
    let id = Uuid::now_v7();
    let inserted = node.database(domain).await;
    let inserted = inserted
        .query(
            "INSERT INTO sagas
                (id, name, state, status, position, in_doubt, caller, token, beat, created_at, updated_at)
             VALUES ($1, $2, $3, 'stuck', 0, FALSE, $4, 1, 1, $5, $5)",
        )
        .bind(id)
        .bind(format!("{domain}.run"))
        .bind(Json(Value::Null))
        .bind(Json(json!({ "correlation_id": Uuid::now_v7() })))
        .bind(node.clock.now());
    inserted.execute().await.unwrap();
    id
}

fn operator() -> Caller {
    Caller { user_id: Some(UserId::new()), ..Caller::system() }
}

fn list(domain: Option<&str>) -> ListSagas {
    ListSagas { domain: domain.map(str::to_owned), ..ListSagas::default() }
}

async fn ids(node: &TestNode, domain: Option<&str>) -> Vec<Uuid> {
    let page = node.ask(&operator(), list(domain)).await.unwrap();
    page.items.into_iter().map(|saga| saga.id).collect()
}

#[actix_rt::test]
async fn the_sagas_of_all_domains_are_one_list_newest_first_and_page_by_page() {
    on_each(async |node| {
        let mut stuck = Vec::new();
        for domain in ["one", "other", "other", "one", "other", "one", "one"] {
            stuck.insert(0, stick(node, domain).await);
        }
        let (mut read, mut cursor): (_, Option<Cursor>) = (Vec::new(), None);
        for _ in 0..3 {
            let message = ListSagas { limit: Limit::of(3), cursor, ..list(None) };
            let page = node.ask(&operator(), message).await.unwrap();
            read.extend(page.items.into_iter().map(|saga| saga.id));
            cursor = page.next;
        }
        assert_eq!((read, cursor), (stuck.clone(), None));
        let of_other = [stuck[2], stuck[4], stuck[5]];
        assert_eq!(ids(node, Some("other")).await, of_other);
        let nobody = node.refusal(&operator(), list(Some(DOMAIN))).await;
        assert_eq!(nobody.code(), Code::NotFound);
        let user = Caller { administrator: false, ..operator() };
        assert_eq!(node.ask(&user, list(None)).await.unwrap_err().code(), Code::Forbidden);
    })
    .await;
}

#[actix_rt::test]
async fn a_stuck_saga_is_retried_whichever_domain_has_it() {
    on_each(async |node| {
        for domain in ["one", "other"] {
            let retry = RetrySaga { saga_id: stick(node, domain).await };
            let retried = node.ask(&operator(), retry.clone()).await.unwrap();
            assert_eq!((retried.id, retried.status), (retry.saga_id, SagaStatus::Running));
            let again = node.refusal(&operator(), retry).await;
            assert_eq!(again, ClusterError::NotStuck(SagaStatus::Running));
        }
        let unknown = node.refusal(&operator(), RetrySaga { saga_id: Uuid::now_v7() }).await;
        assert_eq!(unknown, ClusterError::NotFound("saga".to_owned()));
    })
    .await;
}

#[actix_rt::test]
async fn a_list_without_the_sagas_of_a_domain_that_is_away_is_refused_by_its_name() {
    on_each(async |node| {
        let (there, away) = (stick(node, "one").await, stick(node, "other").await);
        node.runtime.force_breaker("other", Some(Force::Open));
        let is_away = |error: ClusterError| {
            let told = (error.code(), error.retry_after().is_some());
            let ClusterError::SagasAway { domain, .. } = error else { panic!("{error}") };
            assert_eq!((domain.as_str(), told), ("other", (Code::Unavailable, true)));
        };
        is_away(node.refusal(&operator(), list(None)).await);
        is_away(node.refusal(&operator(), list(Some("other"))).await);
        assert_eq!(ids(node, Some("one")).await, [there]);
        // The domain that is away may have the saga.
        is_away(node.refusal(&operator(), RetrySaga { saga_id: away }).await);
        node.ask(&operator(), RetrySaga { saga_id: there }).await.unwrap();

        // The breaker is another thread's, which is told.
        node.runtime.force_breaker("other", None);
        let deadline = Instant::now() + Duration::from_secs(30);
        while node.ask(&operator(), list(None)).await.is_err() {
            assert!(Instant::now() < deadline, "it stays away");
        }
        assert_eq!(ids(node, None).await, [away, there]);
    })
    .await;
}
