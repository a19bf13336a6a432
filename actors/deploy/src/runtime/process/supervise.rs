//! The task that watches one instance from its start until nothing of it is left.

use std::{os::unix::process::ExitStatusExt as _, path::PathBuf, process::ExitStatus, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    process::{Child, ChildStderr, ChildStdout},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::{InstanceLimits, InstanceSpec, Port, Record};
use crate::{
    folder::{self, Cleaner},
    output::{LineSink, OutputLimits, Stream, Tail, pump},
    process::{Census, Family, Usage, end_family},
    runtime::instance::{Ended, Exit},
};

const MEASURED_EVERY: Duration = Duration::from_millis(1_000);
const DRAINED_WITHIN: Duration = Duration::from_secs(2);

/// The folders an instance may write in, and how often they are measured.
pub(super) struct Folders {
    pub(super) own: Vec<PathBuf>,
    pub(super) every: Duration,
    /// A place for each measurement of the node at a time: measuring must not become the load itself.
    pub(super) places: Arc<Semaphore>,
}

impl Folders {
    /// Waits until more is kept than may be.
    async fn until_full(self, limits: InstanceLimits) -> Ended {
        let own = Arc::new(self.own);
        loop {
            tokio::time::sleep(self.every).await;
            let Ok(_place) = self.places.acquire().await else { return std::future::pending().await };
            let own = own.clone();
            let full = tokio::task::spawn_blocking(move || {
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

pub(super) struct Supervised {
    pub(super) child: Child,
    pub(super) family: Family,
    pub(super) spec: InstanceSpec,
    pub(super) census: Arc<Census>,
    pub(super) tail: Arc<Mutex<Tail>>,
    pub(super) exit: watch::Sender<Option<Exit>>,
    pub(super) usage: watch::Sender<Usage>,
    pub(super) stops: mpsc::UnboundedReceiver<Duration>,
    /// What is given back when it has ended.
    pub(super) held: (Option<Port>, Record, Cleaner),
}

/// Why an instance is not watched any more.
enum Over {
    /// It is to end within this time.
    Asked(Duration),
    /// Its leader has ended, or it has used too much.
    Ended(Ended),
}

impl Supervised {
    /// Watches it on the current runtime. Should that runtime end, everything of the instance is killed.
    pub(super) fn begin(
        self,
        stdout: Option<ChildStdout>,
        stderr: Option<ChildStderr>,
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

        let Self { family, tail, exit, held, .. } = self;
        // Before anybody hears of the end: what comes next may want the port.
        drop(tokio::task::spawn_blocking(move || drop((family, held))).await);
        let output = tail.lock().lines();
        exit.send_replace(Some(Exit { ended, after: lived, output }));
    }

    async fn until_end(&mut self, folders: Folders) -> Ended {
        match self.until_over(folders).await {
            Over::Asked(grace) => self.stop(grace).await,
            Over::Ended(ended) => {
                end_family(&mut self.child, &mut self.family, Duration::ZERO).await;
                ended
            }
        }
    }

    /// Waits for its end, or for what it is ended for. With this its place among those that measure is given back: others
    /// need it while this one takes its time to end.
    async fn until_over(&mut self, folders: Folders) -> Over {
        let full = folders.until_full(self.spec.limits);
        tokio::pin!(full);
        let mut measure = tokio::time::interval(MEASURED_EVERY);
        measure.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                status = self.child.wait() => return Over::Ended(self.by_itself(status)),
                // The handle is gone: nobody wants the instance any more.
                grace = self.stops.recv() => return Over::Asked(grace.unwrap_or(self.spec.grace)),
                _ = measure.tick() => if let Some(ended) = self.overuse() { return Over::Ended(ended) },
                ended = &mut full => return Over::Ended(ended),
            }
        }
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
                forced = end_family(&mut self.child, &mut self.family, grace) => Some(forced),
                () = sooner => None,
            }
        };
        match forced {
            Some(forced) => Ended::Stopped { forced },
            None => {
                end_family(&mut self.child, &mut self.family, Duration::ZERO).await;
                Ended::Stopped { forced: true }
            }
        }
    }

    fn by_itself(&self, status: std::io::Result<ExitStatus>) -> Ended {
        let killed_for_memory = self.family.cgroup().is_some_and(crate::process::Cgroup::killed_for_memory);
        match status {
            Ok(status) => match (status.signal(), status.code()) {
                _ if killed_for_memory => Ended::OutOfMemory(self.spec.limits.memory),
                (Some(signal), _) => Ended::Signal(signal),
                (None, code) => Ended::Status(code.unwrap_or_default()),
            },
            Err(error) => Ended::Lost(error.to_string()),
        }
    }

    fn overuse(&self) -> Option<Ended> {
        let usage = self.family.usage(&self.census);
        self.usage.send_replace(usage);
        let limits = &self.spec.limits;
        if usage.memory > limits.memory {
            return Some(Ended::OutOfMemory(limits.memory));
        }
        (usage.processes > limits.processes).then_some(Ended::TooManyProcesses(limits.processes))
    }
}
