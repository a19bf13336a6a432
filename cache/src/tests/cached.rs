use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use callboard_messages::Failure;
use callboard_supervisors::{Clock, Live};
use futures_util::future::join_all;
use tokio::sync::Notify;

use super::{Server, hasty, settings, shared_url, until};
use crate::{Cache, CacheSettings, Cached, CachedSettings};

type Names = Cached<u32, String>;

/// The store, and the number of loads from it.
#[derive(Default)]
struct Store {
    truth: std::sync::Mutex<Option<String>>,
    loads: AtomicU32,
    slow: Duration,
}

impl Store {
    fn of(value: &str) -> Self {
        Self { truth: std::sync::Mutex::new(Some(value.to_owned())), ..Self::default() }
    }

    fn slow(value: &str) -> Self {
        Self { slow: Duration::from_millis(100), ..Self::of(value) }
    }

    fn set(&self, value: &str) {
        *self.truth.lock().unwrap() = Some(value.to_owned());
    }

    async fn load(&self) -> Result<Option<String>, Failure> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let truth = self.truth.lock().unwrap().clone();
        tokio::time::sleep(self.slow).await;
        Ok(truth)
    }

    fn loads(&self) -> u32 {
        self.loads.load(Ordering::SeqCst)
    }
}

/// Processes with a common Redis, each with a cache of its own.
struct Processes(CacheSettings);

impl Processes {
    fn new(url: &str) -> Self {
        Self(settings(url))
    }

    fn cache(&self) -> Cache {
        Cache::connect(&self.0, Clock::system()).unwrap()
    }

    fn process(&self) -> Names {
        Cached::new(self.cache(), None, long())
    }
}

/// Lifetimes longer than a test takes.
fn long() -> CachedSettings {
    let minute = Duration::from_secs(60);
    CachedSettings { remembered: minute, shared: minute, absent: minute, ..CachedSettings::new("names", 1) }
}

async fn get(names: &Names, store: &Store) -> Option<String> {
    names.get(&1, async || store.load().await).await.unwrap()
}

#[actix_rt::test]
async fn a_stampede_is_one_load_on_all_processes_together() {
    let (processes, store) = (Processes::new(&shared_url()), Store::slow("a"));
    let both = [processes.process(), processes.process()];
    let asks = (0..60).map(|ask| get(&both[ask % 2], &store));
    for answer in join_all(asks).await {
        assert_eq!(answer.as_deref(), Some("a"));
    }
    assert_eq!(store.loads(), 1);
    assert_eq!(get(&processes.process(), &store).await.as_deref(), Some("a"), "a process that starts later");
    assert_eq!(store.loads(), 1);
}

#[actix_rt::test]
async fn without_redis_a_stampede_is_one_load_in_the_process() {
    let (names, store) = (Names::new(Cache::none(), None, long()), Store::slow("a"));
    join_all((0..50).map(|_| get(&names, &store))).await;
    get(&names, &store).await;
    assert_eq!(store.loads(), 1);
}

#[actix_rt::test]
async fn what_has_changed_is_read_anew_by_who_changed_it_and_by_processes_that_hear_of_it() {
    let (processes, store) = (Processes::new(&shared_url()), Store::of("old"));
    // One hub for both, which the bridge would connect.
    let live = Live::new(Clock::system());
    let (one, other) = (
        Names::new(processes.cache(), Some(live.clone()), long()),
        Names::new(processes.cache(), Some(live.clone()), long()),
    );
    let following = other.clone();
    let follower = actix_rt::spawn(async move { following.follow().await });
    tokio::task::yield_now().await;
    assert_eq!(get(&one, &store).await.as_deref(), Some("old"));
    assert_eq!(get(&other, &store).await.as_deref(), Some("old"));
    store.set("new");
    one.forget(&1).await;
    assert_eq!(get(&one, &store).await.as_deref(), Some("new"));
    until(async || get(&other, &store).await.as_deref() == Some("new")).await;
    assert_eq!(store.loads(), 2);
    follower.abort();
}

#[actix_rt::test]
async fn what_was_read_before_a_change_is_kept_nowhere() {
    let processes = Processes::new(&shared_url());
    let (names, other) = (processes.process(), processes.process());
    let (begun, go) = (Notify::new(), Notify::new());
    let reading = names.get(&1, async || {
        begun.notify_one();
        go.notified().await;
        Ok(Some("old".to_owned()))
    });
    let change = async {
        begun.notified().await;
        names.forget(&1).await;
        go.notify_one();
    };
    let (read, ()) = futures_util::join!(reading, change);
    assert_eq!(read.unwrap().as_deref(), Some("old"), "whoever asked before the change");
    let store = Store::of("new");
    assert_eq!(get(&other, &store).await.as_deref(), Some("new"));
    assert_eq!(get(&names, &store).await.as_deref(), Some("new"));
    assert_eq!(store.loads(), 1);
}

#[actix_rt::test]
async fn redis_being_away_costs_loads_and_what_it_missed_is_forgotten_before_it_is_read_again() {
    let server = Server::start().await;
    let processes = Processes(CacheSettings { timeout: Duration::from_millis(100), ..settings(&server.url()) });
    let (names, store) = (processes.process(), Store::of("old"));
    get(&names, &store).await;
    server.signal(rustix::process::Signal::STOP);
    store.set("new");
    names.forget(&1).await;
    assert_eq!(get(&names, &store).await.as_deref(), Some("new"), "from the store");
    server.signal(rustix::process::Signal::CONT);
    // The value in the process hides that in Redis: read past it.
    until(async || {
        names.0.process.invalidate_all();
        let loads = store.loads();
        assert_eq!(get(&names, &store).await.as_deref(), Some("new"));
        loads == store.loads()
    })
    .await;
}

#[actix_rt::test]
async fn a_flushed_server_costs_a_load() {
    let server = Server::start().await;
    let (names, store) = (Names::new(hasty(&server.url()), None, long()), Store::of("a"));
    get(&names, &store).await;
    server.tell(&["FLUSHALL"]).await;
    server.tell(&["SCRIPT", "FLUSH"]).await;
    names.0.process.invalidate_all();
    assert_eq!(get(&names, &store).await.as_deref(), Some("a"));
    assert_eq!(store.loads(), 2);
}

#[actix_rt::test]
async fn that_there_is_nothing_is_remembered_and_an_error_is_not() {
    let processes = Processes::new(&shared_url());
    let (names, store) = (processes.process(), Store::default());
    assert_eq!(get(&names, &store).await, None);
    assert_eq!(get(&processes.process(), &store).await, None);
    assert_eq!(store.loads(), 1);
    let mut none = long();
    none.absent = Duration::ZERO;
    let names = Names::new(Cache::none(), None, none);
    get(&names, &store).await;
    get(&names, &store).await;
    assert_eq!(store.loads(), 3);

    let (names, tries) = (processes.process(), Cell::new(0));
    let fail = async || {
        tries.set(tries.get() + 1);
        tokio::task::yield_now().await;
        Err(Failure::Timeout)
    };
    let (one, other) = futures_util::join!(names.get(&2, fail), names.get(&2, fail));
    assert_eq!((one, other, tries.get()), (Err(Failure::Timeout), Err(Failure::Timeout), 1));
    assert_eq!(names.get(&2, async || Ok(Some("b".to_owned()))).await.unwrap().as_deref(), Some("b"));
}

#[actix_rt::test]
async fn whoever_waits_for_a_reader_that_was_given_up_reads_itself() {
    let names = Names::new(Cache::none(), None, long());
    let begun = Arc::new(Notify::new());
    let (leader, of_leader) = (names.clone(), begun.clone());
    let reading = actix_rt::spawn(async move {
        leader
            .get(&1, async || {
                of_leader.notify_one();
                std::future::pending().await
            })
            .await
    });
    begun.notified().await;
    let store = Store::of("a");
    let waiting = get(&names, &store);
    let give_up = async {
        tokio::task::yield_now().await;
        reading.abort();
    };
    let (answer, ()) = futures_util::join!(waiting, give_up);
    assert_eq!(answer.as_deref(), Some("a"));
    assert!(names.0.readings.lock().is_empty(), "nothing is left of readings that ended");
}

#[actix_rt::test]
async fn another_version_of_the_program_and_other_peoples_bytes_are_not_read() {
    let processes = Processes::new(&shared_url());
    let (names, store) = (processes.process(), Store::of("a"));
    get(&names, &store).await;
    let newer = Names::new(processes.cache(), None, CachedSettings { version: 2, ..long() });
    assert_eq!(get(&newer, &Store::of("b")).await.as_deref(), Some("b"));

    let (value, _) = names.0.keys(&1);
    let cache = processes.cache();
    cache
        .run(async |connection| {
            redis::cmd("SET").arg(&value).arg("{garbage").arg("EX").arg(60).exec_async(connection).await
        })
        .await
        .unwrap();
    assert_eq!(get(&processes.process(), &store).await.as_deref(), Some("a"));
    assert_eq!(store.loads(), 2);
}

#[actix_rt::test]
async fn lives_are_spread_so_that_not_all_end_together() {
    let processes = Processes::new(&shared_url());
    let names = processes.process();
    let cache = processes.cache();
    let mut lives = Vec::new();
    for key in 0..20 {
        names.get(&key, async || Ok(Some("a".to_owned()))).await.unwrap();
        let (value, _) = names.0.keys(&key);
        let left: u64 =
            cache.run(async |connection| redis::cmd("PTTL").arg(&value).query_async(connection).await).await.unwrap();
        lives.push(left / 100);
    }
    assert!(lives.iter().all(|left| (300..=660).contains(left)), "{lives:?}");
    lives.sort_unstable();
    lives.dedup();
    assert!(lives.len() > 5, "{lives:?}");
}
