//! Runs a program to its end: a build step, or `git`.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Census, CgroupLimits, Ended, Gauge, How, Launcher, Program};
use crate::logs::output::{LineSink, OutputLimits, Stream, pump};

/// Interval of measuring a program, where the kernel does not count.
const MEASURED_EVERY: Duration = Duration::from_millis(500);
/// How long the output of an ended program is read from the pipes.
const DRAINED_WITHIN: Duration = Duration::from_secs(2);

/// A program to run to its end.
pub(crate) struct Job<'a> {
    pub(crate) launcher: &'a Launcher,
    pub(crate) program: Program,
    pub(crate) deadline: Instant,
    pub(crate) output: OutputLimits,
    /// Time between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
}

/// Judges what a program has made so far; a sentence ends the program. Blocks.
pub(crate) type Check = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// How a program ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exited(Ended),
    TimedOut,
    Cancelled,
    /// The check refused it, with this sentence.
    Refused(String),
    /// Its processes together used more memory than allowed.
    OutOfMemory,
    /// It had more processes than allowed.
    TooManyProcesses,
}

/// Runs a program, passes on its output, and leaves none of its processes running.
///
/// `check` runs again and again beside it, on a thread of the measuring pool; a sentence from it ends the program.
pub(crate) async fn run(
    job: Job<'_>,
    sink: &LineSink,
    cancel: &CancellationToken,
    check: Option<(Duration, Check)>,
) -> std::io::Result<End> {
    let limits = job.program.limits;
    let mut child = job.launcher.spawn(job.program).await?;
    let mut pumps = tokio::task::JoinSet::new();
    let (stdout, stderr) = child.output();
    if let Some(stdout) = stdout {
        pumps.spawn(pump(stdout, Stream::Stdout, job.output.clone(), sink.clone()));
    }
    if let Some(stderr) = stderr {
        pumps.spawn(pump(stderr, Stream::Stderr, job.output.clone(), sink.clone()));
    }
    let refused = async {
        let Some((interval, check)) = check else { return std::future::pending().await };
        loop {
            tokio::time::sleep(interval).await;
            let check = check.clone();
            // When the pool is full, the next round checks.
            if let Ok(Some(sentence)) = job.launcher.pools.measures.run(None, move || check()).await {
                return sentence;
            }
        }
    };
    let gauge = child.gauge();
    let end = tokio::select! {
        biased;
        end = overuse(&gauge, &limits) => end,
        () = cancel.cancelled() => End::Cancelled,
        ended = child.ended() => End::Exited(ended),
        sentence = refused => End::Refused(sentence),
        () = tokio::time::sleep_until(job.deadline) => End::TimedOut,
    };
    let grace = if matches!(end, End::Cancelled | End::TimedOut) { job.grace } else { Duration::ZERO };
    child.end(grace).await;
    // No process holds the pipes any more.
    let drained = async { while pumps.join_next().await.is_some() {} };
    drop(tokio::time::timeout(DRAINED_WITHIN, drained).await);
    Ok(match end {
        End::Exited(Ended { out_of_memory: true, how }) if how != How::Status(0) => End::OutOfMemory,
        end => end,
    })
}

/// Returns when a program uses more than its limits, which can happen only where the kernel does not enforce them.
async fn overuse(gauge: &Gauge, limits: &CgroupLimits) -> End {
    let census = Arc::new(Census::default());
    loop {
        tokio::time::sleep(MEASURED_EVERY).await;
        let Some(usage) = gauge.usage(&census).await else { continue };
        if usage.processes > limits.processes {
            return End::TooManyProcesses;
        }
        if usage.memory > limits.memory {
            return End::OutOfMemory;
        }
    }
}
