//! The fault campaign: three nodes on a PostgreSQL, a Redis and a RabbitMQ of their own, under a steady load, while at
//! random moments something breaks. Afterwards everything must be as if nothing had: what was acknowledged is there
//! exactly once, and nothing is left over.
//!
//! `make chaos` runs a long one; `SEED` repeats one, `DURATION` (seconds) bounds it.

mod cluster;
mod faults;
mod leavers;
mod load;
mod readiness;
mod verify;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::harness::random::Random;
use cluster::Cluster;
use faults::{Fault, Scale};
use load::Load;

/// Breaks one thing after another for so long. No two at once: what heals must heal by itself.
async fn campaign(seed: u64, duration: Duration, scale: Scale) {
    // Shown when the test fails, and by `make chaos` at once.
    println!("chaos: SEED={seed} DURATION={}", duration.as_secs());
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start(seed).await;
    let before = verify::Inventory::of(&cluster).await;
    let mut load = Load::begin(&cluster, &mut random).await;

    let began = Instant::now();
    let mut faults = Fault::shuffled(&mut random);
    while began.elapsed() < duration {
        tokio::time::sleep(Duration::from_millis(random.between(300, 2000))).await;
        let fault = faults.pop().unwrap_or_else(|| {
            faults = Fault::shuffled(&mut random);
            Fault::FlushRedis
        });
        println!("chaos: {:>5.1} s {fault:?}", began.elapsed().as_secs_f64());
        fault.happen(&mut cluster, &load, &mut random, scale).await;
    }
    println!("chaos: {:>5.1} s all is healed", began.elapsed().as_secs_f64());
    cluster.heal().await;
    let done = load.end().await;
    println!("chaos: {done}");
    verify::all(&cluster, &done, &before).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_heals_from_everything_that_breaks() {
    // By this seed the first faults are of every kind: nodes, servers, messages, a full disk, a stranger and a storm.
    campaign(22_866, Duration::from_secs(50), Scale::Short).await;
}

/// The long campaign, by `make chaos` only: it takes minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make chaos runs it"]
async fn a_cluster_heals_from_everything_that_breaks_for_long() {
    let told = |name: &str| std::env::var(name).ok().filter(|told| !told.is_empty());
    let number = |text: String| text.parse().unwrap_or_else(|_| panic!("SEED and DURATION are numbers, not {text}"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = told("SEED").map_or_else(|| now.as_secs(), number);
    let duration = told("DURATION").map_or(600, number);
    campaign(seed, Duration::from_secs(duration), Scale::Long).await;
}
