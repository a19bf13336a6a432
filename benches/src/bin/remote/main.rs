//! What a remote `ask` costs: through a remote domain of Callboard with everything on (access, breaker, queue, permits,
//! deadline, signatures, typed errors, metrics), and with a bare request/reply loop over the same broker, with the same
//! payload and the same acknowledgement, and nothing else.
//!
//! Caller and answerer have a thread each, and connections of their own. The programs take turns within a round, and
//! the median of the rounds counts. Goals: by 64 callers at least 0.9 of the bare loop's round trips, by 256 callers at
//! least 1.5 × as many, and by one caller at most 1.15 × its time.

mod bare;
mod ours;

use std::{
    future::Future,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use actix_rt::System;
use callboard_benches::{Outcome, median};
use tokio::sync::oneshot;

/// Rounds; odd, so that there is a middle one.
const ROUNDS: usize = 5;
/// Bytes of a request, and of a reply.
const PAYLOAD: (usize, usize) = (120, 400);
/// Requests the answerer carries out at the same time.
const IN_FLIGHT: usize = 256;

/// How long is asked before it counts.
const WARM_UP: Duration = Duration::from_secs(1);

/// One measurement: so many callers, so many asks by each.
#[derive(Debug, Clone, Copy)]
struct Load {
    callers: usize,
    asks: usize,
}

impl Load {
    const fn new(callers: usize) -> Self {
        let asks = match callers {
            1 => 6_000,
            64 => 24_000,
            _ => 48_000,
        };
        Self { callers, asks: asks / callers }
    }

    /// Microseconds of the whole for each ask, from the time all of them took.
    #[expect(clippy::cast_precision_loss, reason = "a mean of some thousand asks")]
    fn per_ask(self, took: Duration) -> f64 {
        took.as_secs_f64() * 1e6 / (self.callers * self.asks) as f64
    }
}

fn main() -> Outcome {
    tracing_subscriber::fmt().with_env_filter("warn,lapin=off").init();
    // To profile one of them: `remote callboard 1`, or `remote both 1`.
    let only = std::env::args().nth(1).filter(|only| only != "both");
    let only_callers = std::env::args().nth(2);
    println!("{:>8}  {:>20} {:>20}", "callers", "bare", "callboard");
    for (callers, goal) in [(1, "at most 1.15 x its time"), (64, "at least 0.90 x"), (256, "at least 1.50 x")] {
        if only_callers.as_ref().is_some_and(|only| *only != callers.to_string()) {
            continue;
        }
        let load = Load::new(callers);
        let mut figures = [const { Vec::new() }; 2];
        for _ in 0..ROUNDS {
            for (program, figures) in ["bare", "callboard"].into_iter().zip(&mut figures) {
                if only.as_deref().is_none_or(|only| only == program) {
                    let took = if program == "bare" { bare::measure(load)? } else { ours::measure(load)? };
                    figures.push(load.per_ask(took));
                }
            }
        }
        let [bare, callboard] = figures.map(median);
        println!("{callers:>8}  {:>18.0}/s {:>18.0}/s", 1e6 / bare, 1e6 / callboard);
        if callers == 1 {
            println!("{:>8}  callboard takes {:.2} x its time: {callboard:.0} µs (goal: {goal})", "", callboard / bare);
        } else {
            println!("{:>8}  callboard makes {:.2} x as many round trips (goal: {goal})", "", bare / callboard);
        }
    }
    Ok(())
}

/// Runs `callers` callers as tasks of this thread and says how long they took; `call` is one ask of one of them.
async fn race<F, Fut>(load: Load, call: F) -> Outcome<Duration>
where
    F: Fn() -> Fut + Clone + 'static,
    Fut: Future<Output = Outcome> + 'static,
{
    // The first one finds everything connected.
    let patience = Instant::now() + Duration::from_secs(10);
    while let Err(error) = call().await {
        if Instant::now() > patience {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What connecting leaves to do, here and at the broker, is no part of an ask.
    let warm = Instant::now() + WARM_UP;
    while Instant::now() < warm {
        call().await?;
    }
    let began = Instant::now();
    let callers: Vec<_> = (0..load.callers)
        .map(|_| {
            let call = call.clone();
            actix_rt::spawn(async move {
                for _ in 0..load.asks {
                    call().await?;
                }
                Outcome::Ok(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    Ok(began.elapsed())
}

/// A program of a thread of its own, which serves until it is told to stop.
struct Answerer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<Outcome>>,
}

impl Answerer {
    /// Starts it, and returns when it has said that it is ready.
    fn start<Fut: Future<Output = Outcome> + 'static>(
        serve: impl FnOnce(mpsc::Sender<()>, oneshot::Receiver<()>) -> Fut + Send + 'static,
    ) -> Outcome<Self> {
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || System::new().block_on(serve(ready, stopped)));
        if is_ready.recv_timeout(Duration::from_secs(20)).is_err() {
            return Err(match thread.join() {
                Ok(Err(error)) => error,
                _ => "the answerer did not begin".into(),
            });
        }
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    fn stop(mut self) -> Outcome {
        drop(self.stop.take());
        match self.thread.take().map(thread::JoinHandle::join) {
            Some(Err(_)) => Err("the answerer panicked".into()),
            Some(Ok(outcome)) => outcome,
            None => Ok(()),
        }
    }
}
