//! Nothing of an instance outlives its stop.

use std::time::Duration;

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

use super::{Bench, until, within};
use crate::{
    process::{Launcher, named, process},
    runtime::{Ended, RunningInstance, Runtime as _},
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
    // The shell ends at once on SIGTERM; its child needs time to finish.
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
        until(|| bench.running().len() >= 7).await;
        let exit = if stops {
            within(10, instance.stop(Duration::from_secs(5))).await
        } else {
            within(10, instance.exited()).await
        };
        assert_eq!(exit.ended, if stops { Ended::Stopped { forced: false } } else { Ended::Status(7) });
        bench.assert_clean();
    }
}

/// Forks twice, leaves its session, clears its environment, ignores SIGTERM, and prints its pid.
const RUNAWAY: &str = "(env -i setsid /bin/sh -c 'trap \"\" TERM HUP; (trap \"\" TERM HUP; while :; do /bin/sleep 1; done) & echo \"pid $!\"' &)";

/// The pid that a runaway has printed.
async fn runaway(bench: &Bench) -> i32 {
    let said = || bench.lines.lock().iter().find_map(|line| line.text.strip_prefix("pid ")?.parse::<i32>().ok());
    until(|| said().is_some_and(|pid| process(pid).is_some_and(|process| process.session != pid))).await;
    let pid = said().unwrap();
    assert!(named(&bench.node).iter().all(|(process, _)| process.pid != pid), "it carries no mark");
    pid
}

#[tokio::test]
async fn a_child_without_any_mark_ends_with_its_instance() {
    enum By {
        Stop,
        Drop,
        End,
    }
    for change in [|launcher| launcher, Launcher::with_cgroups] {
        let bench = Bench::with_launcher(change);
        for by in [By::Stop, By::Drop, By::End] {
            bench.lines.lock().clear();
            let rest = if matches!(by, By::End) { "read go < fifo; exit 7" } else { "exec sleep 600" };
            let script = format!("rm -f fifo; mkfifo fifo; {RUNAWAY}; {rest}");
            let instance = bench.start(bench.worker(&script)).await.unwrap();
            let pid = runaway(&bench).await;
            let exited = instance.exited();
            match by {
                By::Stop => drop(within(10, instance.stop(Duration::from_millis(200))).await),
                By::Drop => drop::<RunningInstance>(instance),
                By::End => std::fs::write(bench.folder.path().join("release/fifo"), "go\n").unwrap(),
            }
            let exit = within(10, exited).await;
            match by {
                By::Stop | By::Drop => assert_eq!(exit.ended, Ended::Stopped { forced: true }),
                By::End => assert_eq!(exit.ended, Ended::Status(7)),
            }
            assert!(process(pid).is_none(), "it outlives its instance");
            bench.assert_clean();
        }
        let bases: Vec<_> = bench.runtime.settings.launcher.cgroups.existing(|_| false);
        assert!(bases.is_empty(), "{bases:?}");
    }
}

/// A process that forks and exits again and again, so that its pid has changed by the end of any scan. It prints its
/// group.
const FLEEING: &str = "(env -i setsid /usr/bin/env python3 -u -c \"import os\nprint(f'group {os.getpgrp()}', flush=True)\nwhile True:\n    \
                       if os.fork():\n        os._exit(0)\" &); exec sleep 600";

/// Starts an instance with it. Returns its process group.
async fn start_fleeing(bench: &Bench) -> (RunningInstance, Pid) {
    let instance = bench.start(bench.worker(FLEEING)).await.unwrap();
    let said = || bench.lines.lock().iter().find_map(|line| line.text.strip_prefix("group ")?.parse::<i32>().ok());
    until(|| said().is_some()).await;
    (instance, Pid::from_raw(said().unwrap()))
}

/// Asserts that the process group is empty: the process was killed, whatever its pid was by then.
fn assert_caught(group: Pid) {
    let left = killpg(group, None);
    let _ = killpg(group, Signal::SIGKILL);
    assert_eq!(left, Err(Errno::ESRCH), "it goes on");
}

#[tokio::test]
async fn a_process_that_is_always_another_one_ends_with_its_instance() {
    let bench = Bench::new();
    let (instance, group) = start_fleeing(&bench).await;
    let exit = within(20, instance.stop(Duration::from_millis(100))).await;
    // The SIGTERM may already hit it.
    assert!(matches!(exit.ended, Ended::Stopped { .. }), "{exit:?}");
    assert_caught(group);
    bench.assert_clean();
}

/// The reaper of the only program that runs.
fn reaper(bench: &Bench) -> Pid {
    let (reaper, _) = named(&bench.node).into_iter().find(|(_, marks)| marks.is_ours).unwrap();
    Pid::from_raw(reaper.pid)
}

#[tokio::test]
async fn an_instance_whose_reaper_was_killed_is_ended_with_all_of_it_and_told() {
    for change in [|launcher| launcher, Launcher::with_cgroups] {
        let bench = Bench::with_launcher(change);
        let instance = bench.start(bench.worker(&format!("{RUNAWAY}; {BROOD} exec sleep 600"))).await.unwrap();
        let pid = runaway(&bench).await;
        until(|| bench.running().len() >= 7).await;
        kill(reaper(&bench), Signal::SIGKILL).unwrap();
        let exit = within(15, instance.exited()).await;
        assert_eq!(exit.ended, Ended::Lost("the process that supervises it was killed".to_owned()));
        assert_eq!(process(pid), None, "it outlives its instance");
        bench.assert_clean();
        assert!(bench.runtime.settings.launcher.cgroups.existing(|_| false).is_empty());
        // The resources of the instance are free again.
        let next = bench.start(bench.worker("exec sleep 600")).await.unwrap();
        assert_eq!(within(10, next.stop(Duration::from_secs(5))).await.ended, Ended::Stopped { forced: false });
        bench.assert_clean();
    }
}

#[tokio::test]
async fn a_process_that_is_always_another_one_ends_with_its_reaper() {
    let bench = Bench::new();
    let (instance, group) = start_fleeing(&bench).await;
    kill(reaper(&bench), Signal::SIGKILL).unwrap();
    let exit = within(20, instance.exited()).await;
    assert!(matches!(exit.ended, Ended::Lost(_)), "{exit:?}");
    assert_caught(group);
    bench.assert_clean();
}

#[tokio::test]
async fn a_reaper_that_was_stopped_goes_on() {
    let bench = Bench::new();
    // The program exits by itself; its exit status is reported although the reaper was stopped.
    let instance = bench.start(bench.worker("mkfifo fifo; echo up; read go < fifo; exit 7")).await.unwrap();
    bench.until_said("up").await;
    kill(reaper(&bench), Signal::SIGSTOP).unwrap();
    std::fs::write(bench.folder.path().join("release/fifo"), "go\n").unwrap();
    assert_eq!(within(10, instance.exited()).await.ended, Ended::Status(7));
    bench.assert_clean();
    // A program that is asked to end gets its signal at once.
    let instance = bench.start(bench.worker("exec sleep 600")).await.unwrap();
    kill(reaper(&bench), Signal::SIGSTOP).unwrap();
    let exit = within(10, instance.stop(Duration::from_secs(600))).await;
    assert_eq!(exit.ended, Ended::Stopped { forced: false });
    bench.assert_clean();
}

#[tokio::test]
async fn a_program_whose_reaper_is_killed_before_it_begins_has_not_started_and_leaves_nothing() {
    for (script, told) in [
        ("setsid sleep 600 & kill -KILL $$", "the process that supervises it was killed"),
        ("setsid sleep 600 & echo 'callboard: no' >&2", "no"),
    ] {
        let bench = Bench::with_launcher(|mut launcher| {
            launcher.argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
            launcher
        });
        let refused = within(20, bench.start(bench.worker("true"))).await.unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
        bench.assert_clean();
    }
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
    // Nobody was left to handle the end: that is for the next start.
    assert_eq!(tokio.block_on(bench.runtime.end_orphans()), []);
    bench.assert_clean();
}
