//! Retries: attempts that are repeated until one succeeds, or another is of no use.
//!
//! Only sagas and background work retry; an API request does so where its operation is idempotent.

use std::{convert::Infallible, time::Duration};

use crate::{restart::Backoff, time::clock::Clock};

/// Repeats `attempt`, with the pauses of `backoff` between, until it succeeds. `failed` gets each error with the pause
/// that would follow, and returns `Ok` for another attempt.
///
/// # Errors
/// The error that `failed` returns.
pub async fn retry<T, E, F>(
    clock: &Clock,
    backoff: Backoff,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
    mut failed: impl FnMut(E, Duration) -> Result<(), F>,
) -> Result<T, F> {
    let mut failures = 0_u32;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let pause = backoff.delay(failures);
        failed(error, pause)?;
        failures = failures.saturating_add(1);
        clock.sleep(pause).await;
    }
}

/// Repeats `attempt`, with the pauses of `backoff` between, until it succeeds, however often it fails. `failed` gets
/// each error with the pause that follows, for the log.
pub async fn retry_forever<T, E>(
    clock: &Clock,
    backoff: Backoff,
    attempt: impl AsyncFnMut() -> Result<T, E>,
    mut failed: impl FnMut(E, Duration),
) -> T {
    let go_on = |error, pause| -> Result<(), Infallible> {
        failed(error, pause);
        Ok(())
    };
    let Ok(value) = retry(clock, backoff, attempt, go_on).await;
    value
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use chrono::Utc;
    use futures_util::FutureExt;

    use super::*;

    const DOUBLING: Backoff =
        Backoff { first: Duration::from_secs(1), at_most: Duration::from_secs(4), factor: 2.0, jitter: 0.0 };

    #[test]
    fn an_attempt_is_repeated_after_longer_and_longer_pauses() {
        let clock = Clock::manual(Utc::now());
        let (attempts, mut pauses) = (Cell::new(0), Vec::new());
        let attempt = async || {
            attempts.set(attempts.get() + 1);
            if attempts.get() == 5 { Ok("done") } else { Err(attempts.get()) }
        };
        {
            let mut retried = Box::pin(retry_forever(&clock, DOUBLING, attempt, |error, pause| {
                pauses.push((error, pause.as_secs()));
            }));
            for (made, pause) in [(1, 1), (2, 2), (3, 4), (4, 4)] {
                assert_eq!((&mut retried).now_or_never(), None);
                assert_eq!(attempts.get(), made);
                clock.advance(Duration::from_millis(pause * 1_000 - 1));
                assert_eq!((&mut retried).now_or_never(), None);
                assert_eq!(attempts.get(), made, "the pause is not over");
                clock.advance(Duration::from_millis(1));
            }
            assert_eq!((&mut retried).now_or_never(), Some("done"));
        }
        assert_eq!(pauses, [(1, 1), (2, 2), (3, 4), (4, 4)]);
    }

    #[test]
    fn an_error_that_is_final_ends_it_without_a_pause() {
        let clock = Clock::manual(Utc::now());
        let attempts = Cell::new(0);
        let attempt = async || {
            attempts.set(attempts.get() + 1);
            Err::<(), _>(attempts.get())
        };
        let until_the_second = |error, _| if error < 2 { Ok(()) } else { Err(format!("{error} failed")) };
        let mut retried = Box::pin(retry(&clock, Backoff::constant(Duration::from_secs(1)), attempt, until_the_second));
        assert_eq!((&mut retried).now_or_never(), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!((&mut retried).now_or_never(), Some(Err("2 failed".to_owned())));
        assert_eq!(clock.sleepers(), 0);
    }
}
