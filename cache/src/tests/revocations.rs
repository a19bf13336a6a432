use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use callboard_messages::{
    Caller, Failure, SessionId,
    auth::{CredentialRevoked, GetRevocationCount, RevocationCount},
};
use callboard_platform::revocations::{Revocations, TRUSTED_FOR};
use callboard_supervisors::{Clock, Domain, Handle, Outcome, Runtime, StartError};
use tokio::task::JoinHandle;

use super::{Server, hasty, settings, shared_url, until};
use crate::{Cache, revocations::Watcher};

/// Stands in for auth's count.
#[derive(Clone, Default)]
struct Database {
    count: Arc<AtomicU64>,
    is_down: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
}

impl Handle<GetRevocationCount> for Database {
    async fn handle(&self, _: &Caller, _: GetRevocationCount) -> Outcome<GetRevocationCount> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.is_down.load(Ordering::SeqCst) {
            return Err(Failure::Unavailable { retry_after: Duration::from_secs(1) }.into());
        }
        Ok(RevocationCount { count: self.count.load(Ordering::SeqCst) })
    }
}

/// A node that caches tokens. Its live hub is not connected to others.
struct Node {
    revocations: Revocations,
    watching: JoinHandle<()>,
    runtime: Runtime,
}

impl Node {
    async fn start(database: &Database, cache: Cache) -> Self {
        let database = database.clone();
        let auth = Domain::new("auth")
            .answering()
            .on::<GetRevocationCount>()
            .shared(move |_| {
                let database = database.clone();
                async move { Ok::<_, StartError>(database) }
            })
            .build();
        let runtime = Runtime::builder().workers(1).build(vec![auth]).unwrap();
        runtime.attach().await;
        let revocations = Revocations::among_several(Clock::system());
        let (bus, live) = (runtime.bus().clone(), runtime.live().clone());
        let watcher = Watcher::new(revocations.clone(), cache, bus, live, Clock::system());
        let watching = actix_rt::spawn(async move { watcher.run().await });
        let node = Self { revocations, watching, runtime };
        until(async || node.revocations.is_current()).await;
        node
    }

    /// Asserts that nobody trusts what was cached before `count`: after [`TRUSTED_FOR`] each node either knows the
    /// count or trusts nothing.
    async fn never_trusts_less_than(&self, count: u64, since: Instant) {
        while since.elapsed() < TRUSTED_FOR * 3 {
            // In this order: an update between two of these reads is no mistake.
            let is_late = since.elapsed() > TRUSTED_FOR;
            let is_current = self.revocations.is_current();
            let known = self.revocations.count();
            if is_late {
                assert!(!is_current || known >= count, "{known}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn knows(&self, count: u64) {
        until(async || self.revocations.is_current() && self.revocations.count() == count).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.watching.abort();
        let runtime = self.runtime.clone();
        actix_rt::spawn(async move { runtime.stop(Duration::from_secs(1)).await });
    }
}

fn session() -> CredentialRevoked {
    CredentialRevoked::Session(SessionId::new())
}

#[actix_rt::test]
async fn what_one_node_revokes_no_other_trusts_a_second_later() {
    let (database, shared) = (Database::default(), settings(&shared_url()));
    let connect = || Cache::connect(&shared, Clock::system()).unwrap();
    let (one, other) = (Node::start(&database, connect()).await, Node::start(&database, connect()).await);
    database.count.store(5, Ordering::SeqCst);
    one.revocations.revoke(&session(), 5);
    other.never_trusts_less_than(5, Instant::now()).await;
    other.knows(5).await;
    // Nodes share their reads: three seconds, two nodes that look four times each.
    let asked = database.asked.load(Ordering::SeqCst);
    assert!(asked < 20, "auth was asked {asked} times");
}

#[actix_rt::test]
async fn a_revocation_that_nobody_could_be_told_of_is_heard_of_all_the_same() {
    let (database, shared) = (Database::default(), settings(&shared_url()));
    let connect = || Cache::connect(&shared, Clock::system()).unwrap();
    let nodes = [Node::start(&database, connect()).await, Node::start(&database, connect()).await];
    // The revoking node died between its commit and the nudge.
    database.count.store(9, Ordering::SeqCst);
    let since = Instant::now();
    futures_util::join!(nodes[0].never_trusts_less_than(9, since), nodes[1].never_trusts_less_than(9, since));
    nodes[0].knows(9).await;
    nodes[1].knows(9).await;
}

#[actix_rt::test]
async fn revocations_are_heard_of_while_redis_is_paused_dead_or_emptied() {
    let mut server = Server::start().await;
    let database = Database::default();
    let shared = settings(&server.url());
    let connect = || {
        let settings = crate::CacheSettings { timeout: Duration::from_millis(100), ..shared.clone() };
        Cache::connect(&settings, Clock::system()).unwrap()
    };
    let (one, other) = (Node::start(&database, connect()).await, Node::start(&database, connect()).await);
    let revoke = |count| {
        database.count.store(count, Ordering::SeqCst);
        one.revocations.revoke(&session(), count);
        Instant::now()
    };
    server.tell(&["CLIENT", "PAUSE", "2500", "ALL"]).await;
    other.never_trusts_less_than(1, revoke(1)).await;
    other.knows(1).await;

    server.tell(&["FLUSHALL"]).await;
    other.never_trusts_less_than(2, revoke(2)).await;
    other.knows(2).await;

    server.signal(rustix::process::Signal::STOP);
    other.never_trusts_less_than(3, revoke(3)).await;
    other.knows(3).await;
    server.signal(rustix::process::Signal::CONT);

    server.kill().await;
    other.never_trusts_less_than(4, revoke(4)).await;
    other.knows(4).await;
    server.restart().await;
    other.never_trusts_less_than(5, revoke(5)).await;
    other.knows(5).await;
}

#[actix_rt::test]
async fn a_node_that_can_hear_of_nothing_trusts_nothing_until_it_can() {
    let server = Server::start().await;
    let database = Database::default();
    let node = Node::start(&database, hasty(&server.url())).await;
    database.is_down.store(true, Ordering::SeqCst);
    until(async || !node.revocations.is_current()).await;
    database.count.store(3, Ordering::SeqCst);
    database.is_down.store(false, Ordering::SeqCst);
    node.knows(3).await;
}

#[actix_rt::test]
async fn a_node_without_redis_asks_auth() {
    let database = Database::default();
    let node = Node::start(&database, Cache::none()).await;
    database.count.store(3, Ordering::SeqCst);
    node.never_trusts_less_than(3, Instant::now()).await;
    node.knows(3).await;
}

#[actix_rt::test]
async fn a_copy_of_the_count_neither_falls_nor_outlives_what_it_copies() {
    let cache = super::cache(&shared_url());
    let runtime = Runtime::builder().workers(1).build(vec![]).unwrap();
    let (bus, live) = (runtime.bus().clone(), runtime.live().clone());
    let watcher = Watcher::new(Revocations::default(), cache, bus, live, Clock::system());
    let (time, nothing, _) = watcher.read().await.unwrap();
    assert_eq!(nothing, None);
    watcher.write(&["raise", "7"]).await.unwrap();
    assert_eq!(watcher.read().await.unwrap().1, None, "a rumour makes no copy");
    // Read from the database a second ago and delayed since.
    watcher.write(&["confirm", "7", &(time - 500).to_string()]).await.unwrap();
    assert_eq!(watcher.read().await.unwrap().1, None);
    let later = (time + 60_000).to_string();
    watcher.write(&["confirm", "7", &later]).await.unwrap();
    let (_, count, left) = watcher.read().await.unwrap();
    assert_eq!(count, Some(7));
    assert!(left <= 60_000, "{left}");
    watcher.write(&["confirm", "6", &later]).await.unwrap();
    assert_eq!(watcher.read().await.unwrap().1, Some(7));
    watcher.write(&["raise", "9"]).await.unwrap();
    let (_, count, left) = watcher.read().await.unwrap();
    assert_eq!(count, Some(9));
    assert!(left <= 60_000, "a rumour makes it no younger: {left}");
    watcher.write(&["confirm", "9", &(time + 1).to_string()]).await.unwrap();
}
