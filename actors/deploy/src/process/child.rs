//! The node's side of a program: its reaper, its usage, and how it is ended.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parking_lot::Mutex;
use tokio::{
    net::UnixStream,
    process::{Child as Process, ChildStderr, ChildStdout},
    time::timeout,
};
use uuid::Uuid;

use super::{
    Active, Launcher, Program,
    adopted::Registration,
    cgroup::Cgroup,
    leftovers::Leftover,
    procfs::{self, Listeners, Tree},
    reaper::{Ended, How, KILL, Report, TERMINATE, hand_stdin},
};
use crate::pools::{self, Pools};

/// How long a program may take from its start by the reaper to its first instruction.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// How long the end of killed processes is awaited: one in an uninterruptible wait can't be killed.
const KILLED_WITHIN: Duration = Duration::from_secs(10);
/// Interval of the SIGCONTs to a reaper, in case it was stopped, as by SIGSTOP.
const WOKEN_EVERY: Duration = Duration::from_secs(1);
/// The age up to which a process tree is reused.
const RECENT: Duration = Duration::from_millis(500);

/// A running program with its descendants. All of them are killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    id: Uuid,
    reaper: Process,
    control: UnixStream,
    /// Bytes received from the reaper that are not yet a whole report.
    unread: Vec<u8>,
    pid: i32,
    start_time: u64,
    ended: Option<Ended>,
    cgroup: Arc<Cgroup>,
    pools: Pools,
    registration: Registration,
    _active: Active,
}

impl Child {
    /// Starts the program and waits until it runs.
    pub(super) async fn start(launcher: Launcher, program: Program) -> io::Result<Self> {
        let (pool, handle) = (launcher.pools.prompt.clone(), tokio::runtime::Handle::current());
        let mut child = pools::io(&pool, move || {
            let _entered = handle.enter();
            Self::begin(&launcher, program)
        })
        .await?;
        match timeout(STARTS_WITHIN, child.report()).await {
            Ok(Ok(Some(Report::Started { pid, start_time }))) => {
                (child.pid, child.start_time) = (pid, start_time);
                Ok(child)
            }
            // A reaper that was killed before it has read anything resets the connection.
            Ok(Ok(_) | Err(_)) => Err(io::Error::other(child.failure().await)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the program did not begin in time")),
        }
    }

    fn begin(launcher: &Launcher, mut program: Program) -> io::Result<Self> {
        let active = Active::new(program.id, &launcher.active);
        let cgroup = launcher.cgroups.create(program.id, &program.limits)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        hand_stdin(&ours, program.streams.stdin.as_ref())?;
        ours.set_nonblocking(true)?;
        let control = UnixStream::from_std(ours)?;
        let mut command = launcher.command(&program, &cgroup)?;
        let stdout = program.streams.stdout.take().map_or_else(Stdio::piped, Stdio::from);
        command.stdin(OwnedFd::from(theirs)).stdout(stdout).stderr(Stdio::piped());
        let (reaper, registration) = launcher.reapers.start(&mut command)?;
        Ok(Self {
            id: program.id,
            reaper,
            control,
            unread: Vec::new(),
            pid: 0,
            start_time: 0,
            ended: None,
            cgroup: Arc::new(cgroup),
            pools: launcher.pools.clone(),
            registration,
            _active: active,
        })
    }

    /// Why a reaper has ended before its program began: its last output, if there is any.
    async fn failure(&mut self) -> String {
        use tokio::io::AsyncReadExt as _;
        // A child of the reaper may hold the pipe open.
        let status = self.end_leftovers().await;
        if status.is_some_and(|status| status.signal().is_some()) {
            return "the process that supervises it was killed".to_owned();
        }
        let mut said = String::new();
        if let Some(stderr) = self.reaper.stderr.as_mut() {
            let _ = stderr.take(4096).read_to_string(&mut said).await;
        }
        let said = said.trim().trim_start_matches("callboard: ");
        if said.is_empty() { "its process could not be made".to_owned() } else { said.to_owned() }
    }

    /// The reaper's next report; `None` when the reaper has ended. Cancel-safe: what was read is kept.
    async fn report(&mut self) -> io::Result<Option<Report>> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(io::Error::other);
            }
            self.control.readable().await?;
            match self.control.try_read_buf(&mut self.unread) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The pid of the program.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// The program's start time: unique together with its pid.
    pub(crate) fn start_time(&self) -> u64 {
        self.start_time
    }

    /// The program's standard output and standard error; `None` from the second call on.
    pub(crate) fn output(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.reaper.stdout.take(), self.reaper.stderr.take())
    }

    /// Waits until the program and all its descendants have ended.
    pub(crate) async fn ended(&mut self) -> Ended {
        if let Some(ended) = self.ended {
            return ended;
        }
        let ended = loop {
            match timeout(WOKEN_EVERY, self.report()).await {
                Err(_) => self.wake(),
                Ok(Ok(Some(Report::Ended(ended)))) => {
                    // The reaper ends right after its last report.
                    let _: io::Result<ExitStatus> = self.reaper.wait().await;
                    break ended;
                }
                Ok(Ok(Some(Report::Started { .. }) | None) | Err(_)) => {
                    tracing::error!(id = %self.id, "the reaper of a program was killed; ending the program");
                    break self.lost().await;
                }
            }
        };
        self.ended = Some(ended);
        ended
    }

    /// Handles the loss of the reaper, and with it of the program's exit status: kills the program and its descendants.
    async fn lost(&mut self) -> Ended {
        self.end_leftovers().await;
        Ended { how: How::Lost, out_of_memory: false }
    }

    /// Ends the reaper and everything below it.
    async fn end_leftovers(&mut self) -> Option<ExitStatus> {
        // The reaper has ended or is about to, unless it hangs. This process adopts its descendants before it sees its
        // end.
        let status = match timeout(WOKEN_EVERY, self.reaper.wait()).await {
            Ok(status) => Ok(status),
            Err(_) => {
                let _ = self.reaper.start_kill();
                timeout(KILLED_WITHIN, self.reaper.wait()).await
            }
        };
        let leader = (self.pid > 0).then_some((self.pid, self.start_time));
        let leftover =
            Leftover::of(self.id, leader, (*self.cgroup).clone()).with_adopted(self.registration.all.clone());
        leftover.end(&self.pools).await;
        status.ok()?.ok()
    }

    /// Sends SIGTERM, waits up to `grace`, then sends SIGKILL until nothing is left. Returns whether SIGKILL was
    /// needed.
    pub(crate) async fn end(&mut self, grace: Duration) -> bool {
        if self.ended.is_some() {
            return false;
        }
        if !grace.is_zero() {
            self.request(TERMINATE);
            if timeout(grace, self.ended()).await.is_ok() {
                return false;
            }
        }
        self.request(KILL);
        if timeout(KILLED_WITHIN, self.ended()).await.is_err() {
            tracing::error!(id = %self.id, "the reaper of a program does not end it; ending both");
            self.ended = Some(self.lost().await);
        }
        true
    }

    /// Sends a request to the reaper. Works without a runtime and never blocks: the socket buffers more than is ever
    /// sent.
    fn request(&self, request: u8) {
        // A reaper that has ended has reported so, or its end is seen.
        let _ = nix::unistd::write(&self.control, &[request]);
        self.wake();
    }

    /// Sends SIGCONT to the reaper, which matters only if it was stopped.
    fn wake(&self) {
        if let Some(pid) = self.reaper.id().and_then(|pid| i32::try_from(pid).ok()) {
            // A reaper that has ended meanwhile keeps its pid until it is reaped.
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
    }

    /// A gauge of the program that can be read from any thread.
    pub(crate) fn gauge(&self) -> Gauge {
        let reaper = self.reaper.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        Gauge { reaper, cgroup: self.cgroup.clone(), pools: self.pools.clone() }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.request(KILL);
        }
    }
}

/// Resources in use by a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processes; also threads where the kernel counts.
    pub processes: u64,
    /// Bytes of memory.
    pub memory: u64,
}

/// A process tree that all programs share, read at most once each half second.
#[derive(Debug, Default)]
pub(crate) struct Census(Mutex<Option<(std::time::Instant, Arc<Tree>)>>);

impl Census {
    fn recent(&self) -> Arc<Tree> {
        let mut last = self.0.lock();
        if let Some((taken, tree)) = last.as_ref()
            && taken.elapsed() < RECENT
        {
            return tree.clone();
        }
        let tree = Arc::new(Tree::of_all());
        *last = Some((std::time::Instant::now(), tree.clone()));
        tree
    }
}

/// Measures a program: everything below its reaper.
#[derive(Debug, Clone)]
pub(crate) struct Gauge {
    reaper: i32,
    cgroup: Arc<Cgroup>,
    pools: Pools,
}

impl Gauge {
    /// The usage of the program; from the shared process tree where the kernel does not count. `None` while the pool is
    /// full.
    pub(crate) async fn usage(&self, census: &Arc<Census>) -> Option<Usage> {
        let (gauge, census) = (self.clone(), census.clone());
        self.pools.prompt.run(None, move || gauge.usage_now(&census)).await.ok()
    }

    fn usage_now(&self, census: &Census) -> Usage {
        if let (Some(processes), Some(memory)) = (self.cgroup.processes(), self.cgroup.memory()) {
            return Usage { processes, memory };
        }
        let members = census.recent().below(self.reaper);
        let memory = members.iter().map(|pid| procfs::resident(*pid)).sum();
        Usage { processes: members.len() as u64, memory }
    }

    /// Where the program listens.
    pub(crate) async fn listeners(&self) -> Listeners {
        let reaper = self.reaper;
        let look = move || Listeners::of(&Tree::of_all().below(reaper));
        self.pools.prompt.run(None, look).await.unwrap_or_else(|_| Listeners::unknown())
    }
}
