//! Nothing of an instance outlives its stop.

use std::{process::Command as Run, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Bench, until, within};
use crate::{
    process::{Launcher, named},
    runtime::Ended,
};

#[tokio::test]
async fn an_app_that_ignores_sigterm_is_killed_after_its_grace() {
    let bench = Bench::new();
    let instance = bench.start(bench.worker("trap '' TERM; echo up; while :; do sleep 1; done")).await.unwrap();
    bench.until_said("up").await;
    let begun = Instant::now();
    let exit = within(10, instance.stop(Duration::from_millis(700))).await;
    assert_eq!(exit.ended, Ended::Stopped { forced: true });
    assert!(begun.elapsed() >= Duration::from_millis(700));
    assert_eq!(exit.to_string(), "did not stop on SIGTERM in time and was killed");
    bench.assert_clean();
}

#[tokio::test]
async fn a_stop_can_be_made_shorter() {
    let bench = Bench::new();
    let instance = bench.start(bench.worker("trap '' TERM; echo up; while :; do sleep 1; done")).await.unwrap();
    bench.until_said("up").await;
    instance.begin_stop(Duration::from_secs(600));
    sleep(Duration::from_millis(50)).await;
    let exit = within(10, instance.stop(Duration::ZERO)).await;
    assert_eq!(exit.ended, Ended::Stopped { forced: true });
    bench.assert_clean();
}

#[tokio::test]
async fn a_graceful_stop_waits_for_the_children_too() {
    let bench = Bench::new();
    // The shell ends at once on SIGTERM; its child needs a while to finish.
    let child = "python3 -u -c \"import signal,sys,time\n\
                 def stop(*_): time.sleep(0.5); print('finished'); sys.exit(0)\n\
                 signal.signal(signal.SIGTERM, stop); print('up'); time.sleep(600)\"";
    let instance = bench.start(bench.worker(&format!("{child} & wait"))).await.unwrap();
    bench.until_said("up").await;
    let exit = within(10, instance.stop(Duration::from_secs(8))).await;
    assert_eq!(exit.ended, Ended::Stopped { forced: false });
    assert!(exit.output.contains(&"finished".to_owned()), "{:?}", exit.output);
    bench.assert_clean();
}

/// Children in the group, in a session of their own, orphaned twice over, and with an empty environment.
const BROOD: &str = "sleep 601 & (sleep 602 &) ; setsid sleep 603 & setsid sh -c 'sleep 604 & sleep 605' & \
                     (setsid sh -c '(sleep 606 &)' &) ; echo up; ";

#[tokio::test]
async fn children_end_with_their_instance_wherever_they_went() {
    let bench = Bench::new();
    for (script, stops) in [(format!("{BROOD} exec sleep 600"), true), (format!("{BROOD} sleep 0.8; exit 7"), false)] {
        bench.lines.lock().clear();
        let instance = bench.start(bench.worker(&script)).await.unwrap();
        bench.until_said("up").await;
        until(|| named(&bench.node).len() >= 7).await;
        let exit = if stops {
            within(10, instance.stop(Duration::from_secs(5))).await
        } else {
            within(10, instance.exited()).await
        };
        assert_eq!(exit.ended, if stops { Ended::Stopped { forced: false } } else { Ended::Status(7) });
        bench.assert_clean();
    }
}

#[tokio::test]
async fn a_control_group_holds_even_a_child_without_any_mark() {
    let bench = Bench::with_launcher(Launcher::with_cgroups);
    if bench.runtime.settings.launcher.cgroups.is_none() {
        return; // this machine lets us make none
    }
    let marker = format!("6{}", std::process::id());
    let script = format!("env -i setsid /bin/sleep {marker} & echo up; exec sleep 600");
    let instance = bench.start(bench.worker(&script)).await.unwrap();
    let sleeps = || {
        let output = Run::new("pgrep").args(["-fx", &format!("/bin/sleep {marker}")]).output().unwrap();
        output.status.success()
    };
    until(sleeps).await;
    within(10, instance.stop(Duration::from_secs(2))).await;
    assert!(!sleeps());
    bench.assert_clean();
    let bases: Vec<_> = bench.runtime.settings.launcher.cgroups.existing(|_| false);
    assert!(bases.is_empty(), "{bases:?}");
}

#[tokio::test]
async fn a_dropped_handle_stops_its_instance() {
    let bench = Bench::new();
    let instance = bench.start(bench.worker("sleep 600 & exec sleep 600")).await.unwrap();
    let exited = instance.exited();
    drop(instance);
    assert!(within(10, exited).await.is_stop());
    bench.assert_clean();
}

#[test]
fn a_runtime_that_ends_kills_its_instances() {
    let bench = Bench::new();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let instance = tokio.block_on(bench.start(bench.worker("trap '' TERM; setsid sleep 600 & sleep 600"))).unwrap();
    assert!(!named(&bench.node).is_empty());
    drop(tokio);
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(until(|| named(&bench.node).is_empty()));
    assert!(matches!(tokio.block_on(instance.exited()).ended, Ended::Lost(_)));
    bench.assert_clean();
}
