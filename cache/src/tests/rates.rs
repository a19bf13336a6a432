use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use callboard_platform::limits::{Class, Rate, RateLimitStore, RateLimits, Take, Verdict};
use governor::{
    Quota, RateLimiter, clock::FakeRelativeClock, middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};
use rand::RngExt;

use super::{Server, cache, hasty, shared_url, until};
use crate::{
    Cache,
    rates::{self, STOCK_LASTS},
};

async fn take(store: &Arc<dyn RateLimitStore>, class: Class, subject: u128) -> Verdict {
    match store.take(class, subject) {
        Take::Now(verdict) => verdict,
        Take::Later(verdict) => verdict.await,
    }
}

fn limits(class: Class, rate: Rate) -> RateLimits {
    let mut limits = RateLimits::default();
    match class {
        Class::Principal => limits.principal = rate,
        Class::Address => limits.address = rate,
        Class::SignIn => limits.sign_in = rate,
    }
    limits
}

#[actix_rt::test]
async fn redis_decides_as_the_process_does() {
    let cache = cache(&shared_url());
    let script = rates::script();
    for (number, rate) in [
        Rate { per_minute: 60, burst: 30 },
        Rate { per_minute: 6000, burst: 1000 },
        Rate { per_minute: 700, burst: 3 },
        Rate { per_minute: 1, burst: 1 },
    ]
    .into_iter()
    .enumerate()
    {
        let clock = FakeRelativeClock::default();
        let quota = Quota::per_minute(NonZeroU32::new(rate.per_minute).unwrap())
            .allow_burst(NonZeroU32::new(rate.burst).unwrap());
        let local = RateLimiter::<u32, DashMapStateStore<u32>, FakeRelativeClock, StateInformationMiddleware>::new(
            quota,
            DashMapStateStore::default(),
            clock.clone(),
        );
        let mut now = 1_800_000_000_000_000_u64;
        let key = cache.key("rate", number);
        for _ in 0..400 {
            let pause = match rand::rng().random_range(0..4) {
                0 => 0,
                1 => rand::rng().random_range(0..1_000),
                2 => rand::rng().random_range(0..200_000),
                _ => rand::rng().random_range(0..2_000_000),
            };
            now += pause;
            clock.advance(Duration::from_micros(pause));
            let turn = cache.admit().unwrap();
            let taken = rates::ask(turn, &script, key.clone(), rate, 1, Some(now)).await.unwrap();
            match local.check_key(&0) {
                Ok(state) => {
                    assert_eq!((taken.places, taken.remaining), (1, state.remaining_burst_capacity()), "{rate:?}");
                }
                Err(refused) => {
                    assert_eq!(taken.places, 0, "{rate:?}");
                    let wait = refused.wait_time_from(governor::clock::Clock::now(&clock));
                    assert!(taken.wait.abs_diff(wait) <= Duration::from_micros(2), "{:?} {wait:?}", taken.wait);
                }
            }
        }
    }
}

#[actix_rt::test]
async fn a_clock_that_was_set_back_locks_nobody_out() {
    let (cache, script, rate) = (cache(&shared_url()), rates::script(), Rate { per_minute: 60, burst: 2 });
    let ask = async |now| {
        rates::ask(cache.admit().unwrap(), &script, cache.key("rate", "x"), rate, 1, Some(now)).await.unwrap()
    };
    let late = 1_800_000_000_000_000;
    ask(late).await;
    let taken = ask(late - 3_600_000_000).await;
    assert!(taken.wait <= Duration::from_secs(1), "{taken:?}");
}

#[actix_rt::test]
async fn nodes_count_together() {
    let (one, rate) = (cache(&shared_url()), Rate { per_minute: 6, burst: 6 });
    let limits = limits(Class::SignIn, rate);
    let nodes = [one.rate_limits(&limits), one.rate_limits(&limits)];
    for left in (0..6).rev() {
        let verdict = take(&nodes[left % 2], Class::SignIn, 1).await;
        assert_eq!(verdict, Verdict { allowed: Ok(()), remaining: u32::try_from(left).unwrap() });
    }
    for node in &nodes {
        let wait = take(node, Class::SignIn, 1).await.allowed.unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(10), "{wait:?}");
        assert!(take(node, Class::SignIn, 2).await.allowed.is_ok(), "another subject");
        assert!(take(node, Class::Address, 1).await.allowed.is_ok(), "another class");
    }
}

#[actix_rt::test]
async fn a_busy_caller_costs_few_questions_and_gets_no_more_than_its_limit() {
    let cache = cache(&shared_url());
    // So slow that no token is added while the test runs.
    let limits = limits(Class::Principal, Rate { per_minute: 1, burst: 640 });
    let nodes = [cache.rate_limits(&limits), cache.rate_limits(&limits)];
    let (began, mut allowed) = (Instant::now(), 0);
    for request in 0..1000 {
        allowed += u32::from(take(&nodes[request % 2], Class::Principal, 1).await.allowed.is_ok());
    }
    assert!(allowed <= 640, "{allowed}");
    // Tokens in one node's stock are lost to the other, and expired ones to both.
    let lost = 80 * (1 + began.elapsed().as_millis() / STOCK_LASTS.as_millis());
    assert!(u128::from(allowed) + lost >= 640, "{allowed}, {lost}");
    let metrics = cache.metrics.as_ref().unwrap();
    let by = |by: &str| metrics.limits.with_label_values(&["principal", by]).get();
    assert!(by("stock") > by("redis"), "{} {}", by("stock"), by("redis"));
}

async fn spent(cache: &Cache, limits: &RateLimits) -> Arc<dyn RateLimitStore> {
    let store = cache.rate_limits(limits);
    for _ in 0..3 {
        assert!(take(&store, Class::SignIn, 1).await.allowed.is_ok());
    }
    store
}

#[actix_rt::test]
async fn without_redis_each_node_goes_on_from_what_it_has_counted() {
    let mut server = Server::start().await;
    let (one, other) = (hasty(&server.url()), hasty(&server.url()));
    let limits = limits(Class::SignIn, Rate { per_minute: 1, burst: 4 });
    let store = spent(&one, &limits).await;

    server.kill().await;
    assert!(take(&store, Class::SignIn, 1).await.allowed.is_ok(), "the fourth");
    for _ in 0..20 {
        assert!(take(&store, Class::SignIn, 1).await.allowed.is_err());
    }
    let elsewhere = other.rate_limits(&limits);
    for _ in 0..4 {
        assert!(take(&elsewhere, Class::SignIn, 1).await.allowed.is_ok(), "a limit of its own, for as long");
    }
    assert!(take(&elsewhere, Class::SignIn, 1).await.allowed.is_err());

    server.restart().await;
    let metrics = one.metrics.as_ref().unwrap();
    let decided = || metrics.limits.with_label_values(&["sign-in", "redis"]).get();
    let before = decided();
    let mut subject = 100;
    until(async || {
        subject += 1;
        take(&store, Class::SignIn, subject).await;
        decided() > before
    })
    .await;
}

#[actix_rt::test]
async fn a_server_that_was_emptied_learns_the_script_again_and_gives_nothing_twice() {
    let server = Server::start().await;
    let cache = cache(&server.url());
    let limits = limits(Class::SignIn, Rate { per_minute: 1, burst: 4 });
    let store = spent(&cache, &limits).await;
    server.tell(&["SCRIPT", "FLUSH"]).await;
    server.tell(&["FLUSHALL"]).await;
    assert_eq!(take(&store, Class::SignIn, 1).await.allowed, Ok(()));
    assert!(take(&store, Class::SignIn, 1).await.allowed.is_err(), "this node has seen four");
    let decided = cache.metrics.as_ref().unwrap().limits.with_label_values(&["sign-in", "redis"]).get();
    assert_eq!(decided, 4);
}
