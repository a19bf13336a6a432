//! Tests with real servers: the shared one, with a prefix for each test, and own servers where a test breaks them.

mod cached;
mod rates;
mod revocations;
mod server;

use std::time::{Duration, Instant};

use callboard_supervisors::{Clock, breaker};
use rustix::process::Signal;
use uuid::Uuid;

use crate::{Cache, CacheError, CacheSettings, CheckError};
use server::Server;

/// The server of the tests: `CALLBOARD_TEST_REDIS_URL`, or the local one.
fn shared_url() -> String {
    std::env::var("CALLBOARD_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned())
}

/// Settings with a prefix that no other test has. Every key expires within seconds or minutes.
fn settings(url: &str) -> CacheSettings {
    CacheSettings {
        prefix: format!("test:{}", Uuid::now_v7().simple()),
        // A loaded machine must not fail the test.
        timeout: Duration::from_secs(1),
        ..CacheSettings::new(url)
    }
}

fn cache(url: &str) -> Cache {
    Cache::connect(&settings(url), Clock::system()).unwrap()
}

/// A cache with the deadline that nodes have.
fn hasty(url: &str) -> Cache {
    let settings = CacheSettings { timeout: Duration::from_millis(100), ..settings(url) };
    Cache::connect(&settings, Clock::system()).unwrap()
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ping(cache: &Cache) -> Result<String, CacheError> {
    cache.run(async |connection| redis::cmd("PING").query_async(connection).await).await
}

#[actix_rt::test]
async fn a_server_that_answers_passes_the_look_at_the_start() {
    cache(&shared_url()).check().await.unwrap();
    Cache::none().check().await.unwrap();
}

#[actix_rt::test]
async fn wrong_credentials_are_a_reason_not_to_start_and_a_server_that_is_down_is_none() {
    let server =
        Server::with(&["--requirepass", "right", "--user", "reader", "on", ">r", "~*", "+get", "+ping", "+select"])
            .await;
    let refused = |outcome: Result<(), CheckError>| matches!(outcome, Err(CheckError::Refused(_)));
    for wrong in ["", ":wrong@", "nobody:right@", "reader:r@"] {
        let outcome = cache(&server.url_with(wrong)).check().await;
        assert!(refused(outcome.clone()), "{wrong:?}: {outcome:?}");
        assert!(!outcome.unwrap_err().to_string().contains("right"));
    }
    let outcome = cache(&format!("{}/99", server.url_with(":right@"))).check().await;
    assert!(refused(outcome.clone()), "a database that is not there: {outcome:?}");
    cache(&server.url_with(":right@")).check().await.unwrap();
    let url = server.url_with(":right@");
    drop(server);
    assert!(matches!(cache(&url).check().await, Err(CheckError::Unreachable(_))));
}

#[actix_rt::test]
async fn a_server_that_stops_speaks_late_or_dies_costs_short_waits_and_comes_back_by_itself() {
    let mut server = Server::start().await;
    let cache = hasty(&server.url());
    until(async || ping(&cache).await.is_ok()).await;
    for fault in [Fault::Paused, Fault::Asleep, Fault::Stopped, Fault::Dead] {
        match fault {
            Fault::Paused => server.tell(&["CLIENT", "PAUSE", "5000", "ALL"]).await,
            Fault::Asleep => server.begin(&["DEBUG", "SLEEP", "5"]).await,
            Fault::Stopped => server.signal(Signal::STOP),
            Fault::Dead => server.kill().await,
        }
        let began = Instant::now();
        let mut failed = 0;
        for _ in 0..200 {
            failed += usize::from(ping(&cache).await.is_err());
        }
        // Five short waits, and then none for half a second at a time.
        assert!(began.elapsed() < Duration::from_secs(4), "{fault:?}: {:?}", began.elapsed());
        assert!(failed > 150, "{fault:?}: {failed}");
        match fault {
            // These end by themselves.
            Fault::Paused | Fault::Asleep => {}
            Fault::Stopped => server.signal(Signal::CONT),
            Fault::Dead => server.restart().await,
        }
        until(async || ping(&cache).await.is_ok()).await;
    }
}

#[actix_rt::test]
async fn a_server_that_is_back_is_asked_within_two_seconds_however_long_its_breaker_would_stay_open() {
    const FOR_EVER: Duration = Duration::from_secs(3600);
    let mut server = Server::start().await;
    let settings = CacheSettings { timeout: Duration::from_millis(100), ..settings(&server.url()) };
    let breaker = breaker::Settings {
        minimum_calls: 5,
        open_for: FOR_EVER,
        open_at_most: FOR_EVER,
        ..breaker::Settings::default()
    };
    let cache = Cache::behind(breaker, &settings, Clock::system()).unwrap();
    until(async || ping(&cache).await.is_ok()).await;
    for is_dead in [false, true] {
        match is_dead {
            false => server.signal(Signal::STOP),
            true => server.kill().await,
        }
        until(async || matches!(ping(&cache).await, Err(CacheError::Resting { .. })) && cache.is_away()).await;
        match is_dead {
            false => server.signal(Signal::CONT),
            true => server.restart().await,
        }
        let back = Instant::now();
        until(async || ping(&cache).await.is_ok()).await;
        assert!(back.elapsed() < Duration::from_secs(2), "is dead: {is_dead}, after {:?}", back.elapsed());
    }
}

/// A fault of a server.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Paused,
    Asleep,
    Stopped,
    Dead,
}
