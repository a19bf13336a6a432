//! The node's end of a program: its reaper, what it uses, and how it is ended.

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
    adopted::Known,
    cgroup::Cgroup,
    leftovers::Leftover,
    procfs::{self, Listeners, Tree},
    reaper::{Ended, How, KILL, Report, TERMINATE, hand_stdin},
};
use crate::pools::{self, Pools};

/// What a program may take from its start by the reaper to its first instruction.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// A process in an uninterruptible wait can't be killed; nobody waits longer for it.
const KILLED_WITHIN: Duration = Duration::from_secs(10);
/// How soon a reaper that was stopped, as by SIGSTOP, goes on.
const WOKEN_EVERY: Duration = Duration::from_secs(1);
/// How old a look at all processes may be.
const RECENT: Duration = Duration::from_millis(500);

/// A program that runs, with everything that it has started. Dropped, all of that is killed.
#[derive(Debug)]
pub(crate) struct Child {
    id: Uuid,
    reaper: Process,
    control: UnixStream,
    /// What the reaper has told and nobody has read.
    told: Vec<u8>,
    pid: i32,
    start_time: u64,
    ended: Option<Ended>,
    cgroup: Arc<Cgroup>,
    pools: Pools,
    known: Known,
    _active: Active,
}

impl Child {
    /// Starts it and waits until it runs.
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
            // One that was killed before it has read anything resets the connection.
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
        let (reaper, known) = launcher.reapers.start(&mut command)?;
        Ok(Self {
            id: program.id,
            reaper,
            control,
            told: Vec::new(),
            pid: 0,
            start_time: 0,
            ended: None,
            cgroup: Arc::new(cgroup),
            pools: launcher.pools.clone(),
            known,
            _active: active,
        })
    }

    /// Why a reaper has ended before its program began: in its own words, if it had any.
    async fn failure(&mut self) -> String {
        use tokio::io::AsyncReadExt as _;
        // Whatever it has started may hold the pipe.
        let status = self.end_leftovers().await;
        if status.is_some_and(|status| status.signal().is_some()) {
            return "the process that looks after it was killed".to_owned();
        }
        let mut said = String::new();
        if let Some(stderr) = self.reaper.stderr.as_mut() {
            let _ = stderr.take(4096).read_to_string(&mut said).await;
        }
        let said = said.trim().trim_start_matches("callboard: ");
        if said.is_empty() { "its process could not be made".to_owned() } else { said.to_owned() }
    }

    /// The next report. `None` when the reaper has ended. What was read stays when this is dropped.
    async fn report(&mut self) -> io::Result<Option<Report>> {
        loop {
            if let Some(end) = self.told.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.told.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(io::Error::other);
            }
            self.control.readable().await?;
            match self.control.try_read_buf(&mut self.told) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The program's process.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// With the pid it names the program's process for good.
    pub(crate) fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Its standard output and standard error; once.
    pub(crate) fn output(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.reaper.stdout.take(), self.reaper.stderr.take())
    }

    /// Waits until the program has ended and nothing that it started is left.
    pub(crate) async fn ended(&mut self) -> Ended {
        if let Some(ended) = self.ended {
            return ended;
        }
        let ended = loop {
            match timeout(WOKEN_EVERY, self.report()).await {
                Err(_) => self.wake(),
                Ok(Ok(Some(Report::Ended(ended)))) => {
                    // It ends at once, or has.
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

    /// The reaper is lost, and with it the program's exit status: the program is killed with all that it has started.
    async fn lost(&mut self) -> Ended {
        self.end_leftovers().await;
        Ended { how: How::Lost, out_of_memory: false }
    }

    /// Ends the reaper, and everything below it.
    async fn end_leftovers(&mut self) -> Option<ExitStatus> {
        // It is gone, or about to go and to say why, unless it hangs. Its family falls to this process before its end is seen.
        let status = match timeout(WOKEN_EVERY, self.reaper.wait()).await {
            Ok(status) => Ok(status),
            Err(_) => {
                let _ = self.reaper.start_kill();
                timeout(KILLED_WITHIN, self.reaper.wait()).await
            }
        };
        let leader = (self.pid > 0).then_some((self.pid, self.start_time));
        let leftover = Leftover::of(self.id, leader, (*self.cgroup).clone()).with_adopted(self.known.all.clone());
        leftover.end(&self.pools).await;
        status.ok()?.ok()
    }

    /// SIGTERM, up to `grace` to end, then SIGKILL until nothing is left. Returns whether SIGKILL was needed.
    pub(crate) async fn end(&mut self, grace: Duration) -> bool {
        if self.ended.is_some() {
            return false;
        }
        if !grace.is_zero() {
            self.ask_for(TERMINATE);
            if timeout(grace, self.ended()).await.is_ok() {
                return false;
            }
        }
        self.ask_for(KILL);
        if timeout(KILLED_WITHIN, self.ended()).await.is_err() {
            tracing::error!(id = %self.id, "the reaper of a program does not end it; ending both");
            self.ended = Some(self.lost().await);
        }
        true
    }

    /// Without a runtime too, and without waiting: the socket takes more than is ever asked for.
    fn ask_for(&self, wish: u8) {
        // A reaper that is gone has told so, or is seen to be gone.
        let _ = nix::unistd::write(&self.control, &[wish]);
        self.wake();
    }

    /// Lets a reaper that was stopped go on; others take no note of it.
    fn wake(&self) {
        if let Some(pid) = self.reaper.id().and_then(|pid| i32::try_from(pid).ok()) {
            // One that has ended meanwhile keeps its pid until it is waited for.
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
    }

    /// What looks at it from any thread.
    pub(crate) fn gauge(&self) -> Gauge {
        let reaper = self.reaper.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        Gauge { reaper, cgroup: self.cgroup.clone(), pools: self.pools.clone() }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.ask_for(KILL);
        }
    }
}

/// What a program uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processes; with threads where the kernel counts them.
    pub processes: u64,
    /// Bytes of memory.
    pub memory: u64,
}

/// One look at all processes for all programs: at most one each half second.
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

/// Looks at a program: everything below its reaper.
#[derive(Debug, Clone)]
pub(crate) struct Gauge {
    reaper: i32,
    cgroup: Arc<Cgroup>,
    pools: Pools,
}

impl Gauge {
    /// What it uses; as of the last look at all processes where the kernel does not count. `None` while nobody can look.
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

    /// Where it listens.
    pub(crate) async fn listeners(&self) -> Listeners {
        let reaper = self.reaper;
        let look = move || Listeners::of(&Tree::of_all().below(reaper));
        self.pools.prompt.run(None, look).await.unwrap_or_else(|_| Listeners::unknown())
    }
}
