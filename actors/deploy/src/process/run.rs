//! Runs a program to its end: a build step, or `git`.

use std::{ffi::OsString, path::Path, process::ExitStatus, sync::Arc, time::Duration};

use tokio::{process::Child, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Census, CgroupLimits, Family, Launcher, Streams};
use crate::{
    limits::Launch,
    output::{LineSink, OutputLimits, Stream, pump},
};

/// A program to run to its end.
pub(crate) struct Job<'a> {
    pub(crate) launcher: &'a Launcher,
    pub(crate) launch: Launch,
    /// What all of its processes may use together.
    pub(crate) limits: CgroupLimits,
    pub(crate) argv: &'a [OsString],
    pub(crate) folder: &'a Path,
    pub(crate) environment: &'a [(OsString, OsString)],
    pub(crate) deadline: Instant,
    pub(crate) output: OutputLimits,
    /// How long it may take to end after SIGTERM.
    pub(crate) grace: Duration,
}

/// Looks at what a program has made so far; a sentence ends it. Blocks.
pub(crate) type Check = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// How a program ended.
#[derive(Debug)]
pub(crate) enum End {
    Exited(ExitStatus),
    TimedOut,
    Cancelled,
    /// The check that runs beside it has said no.
    Refused(String),
}

/// Runs a program, passes on what it says, and leaves nothing of it running.
///
/// `check` runs beside it, on a blocking thread, again and again; a sentence from it ends the program.
pub(crate) async fn run(
    job: Job<'_>,
    sink: &LineSink,
    cancel: &CancellationToken,
    check: Option<(Duration, Check)>,
) -> std::io::Result<End> {
    run_with(job, Streams::default(), sink, cancel, check).await
}

/// The same, with other streams: what does not come by a pipe of ours does not reach `sink`.
pub(crate) async fn run_with(
    job: Job<'_>,
    streams: Streams,
    sink: &LineSink,
    cancel: &CancellationToken,
    check: Option<(Duration, Check)>,
) -> std::io::Result<End> {
    let launch = Launch { folder: job.folder.to_owned(), ..job.launch };
    let (mut child, mut family) =
        job.launcher.spawn(Uuid::now_v7(), &launch, &job.limits, job.argv, job.environment, streams)?;
    let mut pumps = tokio::task::JoinSet::new();
    if let Some(stdout) = child.stdout.take() {
        pumps.spawn(pump(stdout, Stream::Stdout, job.output.clone(), sink.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        pumps.spawn(pump(stderr, Stream::Stderr, job.output.clone(), sink.clone()));
    }
    let refused = async {
        let Some((interval, check)) = check else { return std::future::pending().await };
        loop {
            tokio::time::sleep(interval).await;
            let check = check.clone();
            if let Ok(Some(sentence)) = tokio::task::spawn_blocking(move || check()).await {
                return sentence;
            }
        }
    };
    let end = tokio::select! {
        biased;
        sentence = overuse(&family, &job.limits) => End::Refused(sentence),
        () = cancel.cancelled() => End::Cancelled,
        status = child.wait() => End::Exited(status?),
        sentence = refused => End::Refused(sentence),
        () = tokio::time::sleep_until(job.deadline) => End::TimedOut,
    };
    let grace = if matches!(end, End::Exited(_)) { Duration::ZERO } else { job.grace };
    end_family(&mut child, &mut family, grace).await;
    // What it wrote before it ended is in the pipes; nobody else can hold them now.
    let drained = async { while pumps.join_next().await.is_some() {} };
    drop(tokio::time::timeout(Duration::from_secs(2), drained).await);
    Ok(end)
}

/// Ends when a family has more processes than it may have; the kernel sees to it where it can.
async fn overuse(family: &Family, limits: &CgroupLimits) -> String {
    let census = Census::default();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let usage = family.usage(&census);
        if usage.processes > limits.processes {
            return format!("it started more than {} processes at a time", limits.processes);
        }
    }
}

/// Ends all of a family and reaps its leader. Returns whether SIGKILL was needed while the leader still ran.
pub(crate) async fn end_family(child: &mut Child, family: &mut Family, grace: Duration) -> bool {
    let (killed, _) = tokio::join!(family.end(grace), child.wait());
    family.disarm();
    killed
}
