//! An instance over its limits is ended, and its neighbours live.

use std::time::Duration;

use super::{Bench, SERVER, until, within};
use crate::{
    process::Launcher,
    runtime::{Ended, HealthCheck, InstanceLimits, InstanceSpec, Runtime as _},
};

#[tokio::test]
async fn a_fork_bomb_is_ended_and_its_neighbours_live() {
    for bench in [Bench::new(), Bench::with_launcher(Launcher::with_cgroups)] {
        let neighbour = bench.start(bench.python(SERVER)).await.unwrap();
        let mut spec = bench.worker("bomb() { sleep 600 & sleep 600 & sleep 600 & sleep 0.05; bomb; }; echo up; bomb");
        spec.limits.processes = 60;
        let instance = bench.start(spec).await.unwrap();
        // Where the kernel counts, it refuses the sixty-first process; elsewhere the instance is ended at the next
        // count.
        let counted = bench.runtime.isolation().processes;
        let exit = if counted {
            until(|| instance.usage().processes >= 50 || instance.exit().is_some()).await;
            within(10, instance.stop(Duration::ZERO)).await
        } else {
            within(20, instance.exited()).await
        };
        assert_eq!(matches!(exit.ended, Ended::TooManyProcesses(60)), !counted, "{exit:?}");
        neighbour.probe(&HealthCheck::default()).await.unwrap();
        neighbour.stop(Duration::from_secs(1)).await;
        bench.assert_clean();
    }
}

#[tokio::test]
async fn an_instance_that_uses_too_much_memory_is_ended() {
    for bench in [Bench::new(), Bench::with_launcher(Launcher::with_cgroups)] {
        let script = "import time\nkept = []\nfor _ in range(100):\n kept.append(b'x' * 4_000_000); time.sleep(0.02)\ntime.sleep(600)";
        let spec = bench.python(script);
        let limits = InstanceLimits { memory: 64 * 1024 * 1024, ..InstanceLimits::default() };
        let spec = InstanceSpec { listens: false, limits, ..spec };
        let instance = bench.runtime.spawn(spec, bench.sink()).await.unwrap();
        let exit = within(20, instance.exited()).await;
        assert_eq!(exit.ended, Ended::OutOfMemory(64 * 1024 * 1024), "{exit:?}");
        assert!(exit.to_string().contains("more than its 64 MiB of memory"), "{exit}");
        bench.assert_clean();
    }
}

#[tokio::test]
async fn an_instance_that_fills_its_folders_is_ended() {
    const MIB: u64 = 1024 * 1024;
    let mut bench = Bench::new();
    bench.runtime.folders_measured_every = Duration::from_millis(20);
    // No single file is large; together, spread over all its folders, they exceed the limit.
    let script = "for at in . $HOME $TMPDIR; do head -c 2M /dev/zero > $at/part; done; echo full; sleep 600";
    let mut spec = bench.worker(script);
    spec.limits.disk = 5 * MIB;
    let exit = within(20, bench.runtime.spawn(spec, bench.sink()).await.unwrap().exited()).await;
    assert_eq!(exit.ended, Ended::OutOfDisk(5 * MIB), "{exit:?}");
    assert!(exit.is_full());
    assert!(exit.to_string().contains("it kept more than 5 MiB in its own folder"), "{exit}");
    bench.assert_clean();

    let mut spec = bench.worker("cd $TMPDIR; for n in $(seq 100); do : > $n; done; sleep 600");
    spec.limits.files = 60;
    let exit = within(20, bench.runtime.spawn(spec, bench.sink()).await.unwrap().exited()).await;
    assert_eq!(exit.ended, Ended::TooManyFiles(60), "{exit:?}");
    bench.assert_clean();

    // Within its limits it keeps running.
    let mut spec = bench.worker("head -c 2M /dev/zero > $HOME/part; sleep 0.5");
    spec.limits.disk = 5 * MIB;
    let exit = within(20, bench.runtime.spawn(spec, bench.sink()).await.unwrap().exited()).await;
    assert_eq!(exit.ended, Ended::Status(0), "{exit:?}");
    bench.assert_clean();
}

#[tokio::test]
async fn an_instance_that_takes_its_time_to_end_keeps_no_other_from_being_measured() {
    let mut bench = Bench::new();
    bench.runtime.folders_measured_every = Duration::from_millis(1);
    // So many files that a measurement is under way most of the time.
    let many = "trap '' TERM; cd $TMPDIR; for n in $(seq 3000); do : > $n; done; echo up; while :; do sleep 1; done";
    let slow = bench.runtime.spawn(bench.worker(many), bench.sink()).await.unwrap();
    bench.until_said("up").await;
    let mut spec = bench.worker("head -c 2M /dev/zero > $HOME/part; sleep 600");
    spec.limits.disk = 1024 * 1024;
    let others = async {
        let full = bench.runtime.spawn(spec, bench.sink()).await.unwrap();
        assert_eq!(within(10, full.exited()).await.ended, Ended::OutOfDisk(1024 * 1024));
    };
    tokio::select! {
        exit = slow.stop(Duration::from_secs(30)) => panic!("it has ended first: {exit:?}"),
        () = others => {}
    }
    slow.stop(Duration::ZERO).await;
    bench.assert_clean();
}
