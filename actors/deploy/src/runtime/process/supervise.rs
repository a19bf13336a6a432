//! The task that watches one instance from its start until nothing of it is left.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use callboard_supervisors::BlockingPool;
use parking_lot::Mutex;
use tokio::{
    process::{ChildStderr, ChildStdout},
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::{InstanceLimits, InstanceSpec, Port, Record};
use crate::{
    folder::{self, trash::Trash},
    logs::{
        last_words::LastLines,
        output::{LineSink, OutputLimits, Stream, pump},
    },
    pools::{self, Pools},
    process::{self, Census, Child, Gauge, How, Usage},
    runtime::instance::{Ended, Exit},
};

const MEASURED_EVERY: Duration = Duration::from_millis(1_000);
const DRAINED_WITHIN: Duration = Duration::from_secs(2);

/// The folders an instance may write in, and the interval of measuring them.
pub(super) struct Folders {
    pub(super) own: Vec<PathBuf>,
    pub(super) every: Duration,
    /// Has few threads: measuring must not become the load itself.
    pub(super) pool: BlockingPool,
}

impl Folders {
    /// Waits until they exceed the limits.
    async fn until_full(self, limits: InstanceLimits) -> Ended {
        let own = Arc::new(self.own);
        loop {
            tokio::time::sleep(self.every).await;
            let own = own.clone();
            let full = self.pool.run(None, move || {
                let (mut disk, mut files) = (limits.disk, limits.files);
                for folder in own.iter() {
                    let size = folder::measure(folder, disk, files);
                    if size.bytes > disk {
                        return Some(Ended::OutOfDisk(limits.disk));
                    }
                    if size.entries > files {
                        return Some(Ended::TooManyFiles(limits.files));
                    }
                    disk -= size.bytes;
                    files -= size.entries;
                }
                None
            });
            if let Ok(Some(ended)) = full.await {
                return ended;
            }
        }
    }
}

/// Resources of an instance, returned when it has ended.
pub(super) struct Held {
    pub(super) port: Option<Port>,
    pub(super) record: Record,
    pub(super) scratch: PathBuf,
    pub(super) trash: Trash,
    pub(super) pools: Pools,
}

impl Held {
    /// Removes folders and record. What can't be removed is found by the next start of the node.
    pub(super) async fn give_back(record: Record, scratch: &Path, trash: &Trash, pools: &Pools) {
        if let Err(error) = trash.discard(scratch).await {
            tracing::warn!(folder = %scratch.display(), %error, "removing the folders of an instance failed");
        } else if let Err(error) = pools::io(&pools.prompt, move || record.remove()).await {
            tracing::warn!(folder = %scratch.display(), %error, "removing the record of an instance failed");
        }
    }
}

pub(super) struct Supervised {
    pub(super) child: Child,
    pub(super) spec: InstanceSpec,
    pub(super) gauge: Gauge,
    pub(super) census: Arc<Census>,
    pub(super) tail: Arc<Mutex<LastLines>>,
    pub(super) exit: watch::Sender<Option<Exit>>,
    pub(super) usage: watch::Sender<Usage>,
    pub(super) stops: mpsc::UnboundedReceiver<Duration>,
    pub(super) held: Held,
}

impl Supervised {
    /// Watches the instance on the current tokio runtime. If that runtime ends, all its processes are killed.
    pub(super) fn begin(
        self,
        (stdout, stderr): (Option<ChildStdout>, Option<ChildStderr>),
        limits: OutputLimits,
        sink: LineSink,
        folders: Folders,
    ) {
        let mut pumps = JoinSet::new();
        if let Some(stdout) = stdout {
            pumps.spawn(pump(stdout, Stream::Stdout, limits.clone(), sink.clone()));
        }
        if let Some(stderr) = stderr {
            pumps.spawn(pump(stderr, Stream::Stderr, limits, sink));
        }
        tokio::spawn(self.watch(folders, pumps));
    }

    async fn watch(mut self, folders: Folders, mut pumps: JoinSet<()>) {
        let started = Instant::now();
        let ended = self.until_end(folders).await;
        let lived = started.elapsed();
        // All of its processes are gone, so the pipes have an end.
        let drained = async { while pumps.join_next().await.is_some() {} };
        drop(tokio::time::timeout(DRAINED_WITHIN, drained).await);
        pumps.abort_all();

        let Self { child, tail, exit, held, .. } = self;
        drop(child);
        // Before the exit is published: the next instance may want the port.
        let Held { port, record, scratch, trash, pools } = held;
        Held::give_back(record, &scratch, &trash, &pools).await;
        drop(port);
        let output = tail.lock().lines();
        exit.send_replace(Some(Exit { ended, after: lived, output }));
    }

    async fn until_end(&mut self, folders: Folders) -> Ended {
        let full = folders.until_full(self.spec.limits);
        let over_limits =
            until_over_limits(self.gauge.clone(), self.census.clone(), self.spec.limits, self.usage.clone());
        let ended = tokio::select! {
            biased;
            ended = self.child.ended() => return by_itself(ended, &self.spec.limits),
            // `None`: the handle was dropped, so the instance is not wanted any more.
            grace = self.stops.recv() => return self.stop(grace.unwrap_or(self.spec.grace)).await,
            ended = over_limits => ended,
            ended = full => ended,
        };
        self.child.end(Duration::ZERO).await;
        ended
    }

    async fn stop(&mut self, grace: Duration) -> Ended {
        let deadline = Instant::now() + grace;
        let forced = {
            let stops = &mut self.stops;
            let sooner = async {
                let mut deadline = deadline;
                loop {
                    tokio::select! {
                        () = tokio::time::sleep_until(deadline) => return,
                        next = stops.recv() => match next {
                            Some(grace) => deadline = deadline.min(Instant::now() + grace),
                            None => std::future::pending().await,
                        },
                    }
                }
            };
            tokio::select! {
                forced = self.child.end(grace) => Some(forced),
                () = sooner => None,
            }
        };
        match forced {
            Some(forced) => Ended::Stopped { forced },
            None => {
                self.child.end(Duration::ZERO).await;
                Ended::Stopped { forced: true }
            }
        }
    }
}

fn by_itself(ended: process::Ended, limits: &InstanceLimits) -> Ended {
    match ended.how {
        _ if ended.out_of_memory => Ended::OutOfMemory(limits.memory),
        How::Signal(signal) => Ended::Signal(signal),
        How::Status(status) => Ended::Status(status),
        How::Lost => Ended::Lost("the process that supervises it was killed".to_owned()),
    }
}

/// Measures its usage, and returns when that exceeds the limits.
async fn until_over_limits(
    gauge: Gauge,
    census: Arc<Census>,
    limits: InstanceLimits,
    shown: watch::Sender<Usage>,
) -> Ended {
    loop {
        if let Some(usage) = gauge.usage(&census).await {
            shown.send_replace(usage);
            if usage.memory > limits.memory {
                return Ended::OutOfMemory(limits.memory);
            }
            if usage.processes > limits.processes {
                return Ended::TooManyProcesses(limits.processes);
            }
        }
        tokio::time::sleep(MEASURED_EVERY).await;
    }
}
