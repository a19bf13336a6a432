//! What `ask` costs: through Callboard's `ActorRef` with everything on (access, breaker, queue, permits, deadline,
//! metrics, spans at the default log level), and bare with actix, ractor and kameo.
//!
//! The actor adds two numbers. One or 64 callers ask it again and again, from its own thread and from another one. The
//! programs take turns within a round, and the median of the rounds counts. Goals: on the same thread, by 64 callers,
//! at most 3 × actix and less than ractor and kameo; across threads at most 1.5 × actix.

mod ours;
mod peers;

use std::time::{Duration, Instant};

use callboard_benches::{Outcome, median};

/// Rounds; odd, so that there is a middle one.
const ROUNDS: usize = 9;
/// Asks of a measurement, by all callers together.
const ASKS_HERE: usize = 400_000;
const ASKS_ACROSS: usize = 100_000;
/// A single caller waits for a thread to wake up at every ask.
const ASKS_ACROSS_ALONE: usize = 6_000;

const PROGRAMS: [&str; 4] = ["actix", "callboard", "ractor", "kameo"];

/// Where the actor is, as its callers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ActorThread {
    Same,
    Other,
}

/// One measurement: so many callers, so many asks by each.
#[derive(Debug, Clone, Copy)]
struct Load {
    thread: ActorThread,
    callers: usize,
    asks: usize,
}

impl Load {
    const fn new(thread: ActorThread, callers: usize) -> Self {
        let asks = match (thread, callers) {
            (ActorThread::Same, _) => ASKS_HERE,
            (ActorThread::Other, 1) => ASKS_ACROSS_ALONE,
            (ActorThread::Other, _) => ASKS_ACROSS,
        };
        Self { thread, callers, asks: asks / callers }
    }

    /// Nanoseconds an ask has taken, from the time all of them took.
    #[expect(clippy::cast_precision_loss, reason = "a mean of some hundred thousand asks")]
    fn per_ask(self, took: Duration) -> f64 {
        took.as_nanos() as f64 / (self.callers * self.asks) as f64
    }
}

fn main() -> Outcome {
    tracing_subscriber::fmt().with_env_filter("info").init();
    let only = std::env::args().nth(1);
    println!("{:<16} {:>8}  {}", "where", "callers", PROGRAMS.map(|name| format!("{name:>12}")).concat());
    for (thread, callers) in
        [(ActorThread::Same, 1), (ActorThread::Same, 64), (ActorThread::Other, 1), (ActorThread::Other, 64)]
    {
        let load = Load::new(thread, callers);
        let mut figures: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            for (program, figures) in PROGRAMS.into_iter().zip(&mut figures) {
                if only.as_deref().is_none_or(|only| only == program) {
                    figures.push(load.per_ask(measure(program, load)?));
                }
            }
        }
        let figures = figures.map(median);
        let [actix, callboard, ractor, kameo] = figures;
        let thread = if thread == ActorThread::Same { "same thread" } else { "across threads" };
        println!("{thread:<16} {callers:>8}  {}", figures.map(|figure| format!("{figure:>9.0} ns")).concat());
        println!(
            "{:<26} callboard is {:.2} x actix, {:.2} x ractor, {:.2} x kameo",
            "",
            callboard / actix,
            callboard / ractor,
            callboard / kameo
        );
    }
    Ok(())
}

fn measure(program: &str, load: Load) -> Outcome<Duration> {
    match program {
        "actix" => peers::actix(load),
        "ractor" => peers::ractor(load),
        "kameo" => peers::kameo(load),
        _ => ours::callboard(load),
    }
}

/// Runs `callers` callers as tasks and says how long they took; `spawn` starts one of them.
async fn race<T>(load: Load, spawn: impl Fn() -> tokio::task::JoinHandle<Outcome<T>>) -> Outcome<Duration> {
    let began = Instant::now();
    let callers: Vec<_> = (0..load.callers).map(|_| spawn()).collect();
    for caller in callers {
        caller.await??;
    }
    Ok(began.elapsed())
}
