use std::sync::mpsc;

use chrono::DateTime;
use futures_util::{FutureExt, future::join_all};

use super::*;

fn pool(threads: usize, queue: usize) -> (BlockingPool, Clock) {
    let clock = Clock::manual(DateTime::UNIX_EPOCH);
    (BlockingPool::try_new("test", threads, queue, clock.clone()).unwrap(), clock)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[actix_rt::test]
async fn a_full_pool_refuses_at_once() {
    let (pool, _) = pool(1, 2);
    let (release, held) = mpsc::channel::<()>();
    let first = actix_rt::spawn({
        let pool = pool.clone();
        async move { pool.run(None, move || held.recv().is_ok()).await }
    });
    until(|| pool.view().running == 1).await;
    let waiting: Vec<_> = (0..2)
        .map(|n| {
            let pool = pool.clone();
            actix_rt::spawn(async move { pool.run(None, move || n).await })
        })
        .collect();
    until(|| pool.view().queued == 2).await;
    assert_eq!(pool.run(None, || ()).await, Err(Failure::Overloaded { retry_after: RETRY_AFTER }));
    assert_eq!(pool.view().rejected, 1);
    release.send(()).unwrap();
    assert_eq!(first.await.unwrap(), Ok(true));
    assert_eq!(join_all(waiting).await.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Ok(0), Ok(1)]);
}

#[actix_rt::test]
async fn a_thousand_panics_leave_every_thread_working() {
    let (pool, _) = pool(2, 8);
    for _ in 0..1000 {
        let outcome = pool.run::<()>(None, || panic!("on purpose")).await;
        assert!(matches!(outcome, Err(Failure::Internal(message)) if message.contains("on purpose")));
    }
    let both = join_all((0..2).map(|n| pool.run(None, move || n))).await;
    assert_eq!(both, [Ok(0), Ok(1)]);
    until(|| pool.view().running == 0).await;
    assert_eq!(pool.view().panics, 1000);
}

#[actix_rt::test]
async fn a_job_whose_deadline_passed_in_the_queue_never_runs() {
    let (pool, clock) = pool(1, 4);
    let (release, held) = mpsc::channel::<()>();
    let deadline = Some(clock.instant() + Duration::from_secs(1));
    let running = pool.clone();
    let running = actix_rt::spawn(async move { running.run(deadline, move || held.recv().is_ok()).await });
    until(|| pool.view().running == 1).await;
    let queued = pool.clone();
    let queued = actix_rt::spawn(async move { queued.run::<()>(deadline, || panic!("must not run")).await });
    until(|| clock.sleepers() == 2).await;
    clock.advance(Duration::from_secs(1));
    assert_eq!(queued.await.unwrap(), Err(Failure::Expired));
    assert_eq!(running.await.unwrap(), Err(Failure::Timeout));
    assert_eq!(pool.run(deadline, || ()).await, Err(Failure::Expired));
    release.send(()).unwrap();
    assert_eq!(pool.run(None, || 1).await, Ok(1));
    assert_eq!(pool.view().panics, 0);
}

#[actix_rt::test]
async fn a_job_that_nobody_waits_for_runs_and_may_panic() {
    let (pool, _) = pool(1, 2);
    let (told, heard) = mpsc::channel::<()>();
    pool.begin(|| panic!("on purpose")).unwrap();
    pool.begin(move || told.send(()).unwrap()).unwrap();
    until(|| heard.try_recv().is_ok()).await;
    until(|| pool.view().running == 0).await;
    assert_eq!(pool.view().panics, 1);
}

#[actix_rt::test]
async fn only_what_is_prompt_keeps_the_usual_priority() {
    let niceness = || rustix::process::getpriority_process(None).unwrap();
    let own = niceness();
    let prompt = BlockingPool::prompt("test-prompt", 1, 1).run(None, niceness).await.unwrap();
    let patient = BlockingPool::new("test-patient", 1, 1).run(None, niceness).await.unwrap();
    assert_eq!((prompt, patient), (own, NICENESS));
}

#[actix_rt::test]
async fn a_caller_that_goes_away_frees_its_place() {
    let (pool, _) = pool(1, 1);
    let (release, held) = mpsc::channel::<()>();
    let first = pool.clone();
    let first = actix_rt::spawn(async move { first.run(None, move || held.recv().is_ok()).await });
    until(|| pool.view().running == 1).await;
    assert!(pool.run::<()>(None, || panic!("must not run")).now_or_never().is_none());
    assert_eq!(pool.view().queued, 0);
    release.send(()).unwrap();
    assert_eq!(first.await.unwrap(), Ok(true));
    assert_eq!(pool.run(None, || 2).await, Ok(2));
    assert_eq!(pool.view().panics, 0);
}

/// A pool whose one thread is busy, with jobs that take ten seconds.
async fn slow_and_busy() -> (BlockingPool, Clock, mpsc::Sender<()>) {
    let clock = Clock::manual(DateTime::UNIX_EPOCH);
    let limits = QueueLimits { limit: 4, share: Some(2) };
    let pool = BlockingPool::start("test", 1, limits, clock.clone(), Priority::Patient).unwrap();
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Arc::new(Mutex::new(held));
    let hold = || {
        let (pool, held) = (pool.clone(), held.clone());
        actix_rt::spawn(async move { pool.run(None, move || held.lock().recv().is_ok()).await })
    };
    let first = hold();
    until(|| pool.view().running == 1).await;
    clock.advance(Duration::from_secs(10));
    release.send(()).unwrap();
    assert_eq!(first.await.unwrap(), Ok(true));
    // A job answers a moment before its thread is free.
    until(|| pool.view().running == 0).await;
    hold();
    until(|| pool.view().running == 1).await;
    (pool, clock, release)
}

#[actix_rt::test]
async fn a_job_of_a_shared_pool_that_would_be_late_is_refused_at_once() {
    let (pool, clock, release) = slow_and_busy().await;
    let within = |seconds| Some(clock.instant() + Duration::from_secs(seconds));
    let late = pool.run::<()>(within(15), || panic!("must not run")).await;
    assert_eq!(late, Err(Failure::Overloaded { retry_after: Duration::from_secs(20) }));
    let waiting = pool.clone();
    let deadline = within(25);
    let waiting = actix_rt::spawn(async move { waiting.run::<()>(deadline, || panic!("must not run")).await });
    until(|| pool.view().queued == 1).await;
    // Another comes before it, so that it would be late now.
    let preferred = Turn { subject: 1, preferred: true };
    let (other, deadline) = (pool.clone(), within(25));
    let other = actix_rt::spawn(async move { other.run_in_turn(preferred, deadline, || 7).await });
    assert_eq!(waiting.await.unwrap(), Err(Failure::Overloaded { retry_after: Duration::from_secs(30) }));
    assert_eq!(pool.view().rejected, 2);
    release.send(()).unwrap();
    assert_eq!(other.await.unwrap(), Ok(7));
}

#[actix_rt::test]
async fn a_subject_of_a_shared_pool_that_has_its_share_is_told_so() {
    let (pool, _, release) = slow_and_busy().await;
    let one = Turn { subject: 1, preferred: false };
    let waiting: Vec<_> = (0..2)
        .map(|n| {
            let pool = pool.clone();
            actix_rt::spawn(async move { pool.run_in_turn(one, None, move || n).await })
        })
        .collect();
    until(|| pool.view().queued == 2).await;
    let refused = pool.run_in_turn(one, None, || ()).await;
    assert!(matches!(refused, Err(Failure::RateLimited { .. })), "{refused:?}");
    release.send(()).unwrap();
    assert_eq!(join_all(waiting).await.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Ok(0), Ok(1)]);
}
