//! Limits of an instance's output.

use std::{fs, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Bench, SERVER, until, within};
use crate::{logs::output::Stream, runtime::HealthCheck};

#[tokio::test]
async fn a_flood_of_logs_is_bounded_in_time_memory_and_size() {
    let bench = Bench::new();
    let before = resident();
    let megabytes = 64;
    let script = format!("head -c {megabytes}M /dev/zero | tr '\\0' 'x' | fold -w 99; echo done; exec sleep 600");
    let begun = Instant::now();
    let instance = bench.start(bench.worker(&script)).await.unwrap();
    until(|| instance.last_lines().last().is_some_and(|line| line.len() == 99)).await;
    // A neighbour starts meanwhile.
    let other = bench.start(bench.python(SERVER)).await.unwrap();
    let waiting = async {
        // The last line itself may exceed the limit; that the writers have ended is what counts.
        while bench.running().len() > 2 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    within(60, waiting).await;
    let seconds = begun.elapsed().as_secs_f64();
    let passed: usize = bench.lines.lock().iter().map(|line| line.text.len()).sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful of seconds")]
    let budget = (seconds as usize + 6) * 1024 * 1024;
    assert!(passed < budget, "{passed} bytes in {seconds:.1} s");
    assert!(bench.lines.lock().iter().any(|line| line.stream == Stream::System && line.text.contains("were dropped")));
    assert!(resident() < before + 48 * 1024 * 1024, "{} -> {}", before, resident());
    other.probe(&HealthCheck::default()).await.unwrap();
    instance.stop(Duration::from_secs(1)).await;
    other.stop(Duration::from_secs(1)).await;
    bench.assert_clean();
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn one_endless_line_is_cut() {
    let bench = Bench::new();
    let script = "head -c 20M /dev/zero | tr '\\0' 'x'; echo; echo after; sleep 600";
    let instance = bench.start(bench.worker(script)).await.unwrap();
    bench.until_said("after").await;
    let longest = bench.lines.lock().iter().map(|line| line.text.len()).max().unwrap();
    assert!((16 * 1024..17 * 1024).contains(&longest), "{longest}");
    instance.stop(Duration::from_secs(1)).await;
    bench.assert_clean();
}
