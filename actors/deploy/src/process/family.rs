//! A child and everything it has started.
//!
//! A member is found in any of three ways, because a program can leave each of them: it is in the child's session,
//! it is in the child's control group, or it carries the child's id in its environment.

use std::{path::PathBuf, sync::Arc, time::Duration};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Active,
    cgroup::{self, Cgroup},
    procfs::{self, Process},
};

/// The processes of one child. Dropped without [`Family::disarm`], it kills them.
#[derive(Debug)]
pub(crate) struct Family {
    signs: Signs,
    cgroup: Option<Cgroup>,
    armed: bool,
    _active: Option<Active>,
}

/// What the members of a family are known by.
#[derive(Debug, Clone)]
pub(crate) struct Signs {
    id: Uuid,
    leader: i32,
    /// 0 when unknown.
    start_time: u64,
    /// The file that lists the processes of its control group.
    in_cgroup: Option<PathBuf>,
}

impl Signs {
    /// All members that still run.
    pub(crate) fn members(&self) -> Vec<Process> {
        let in_cgroup = self.in_cgroup.as_deref().map(cgroup::pids).unwrap_or_default();
        let own = std::process::id();
        let mut members = procfs::running();
        members.retain(|process| {
            u32::try_from(process.pid) != Ok(own)
                && (self.is_in_session(process)
                    || in_cgroup.contains(&process.pid)
                    || procfs::marks(process.pid).is_some_and(|(_, id)| id == self.id))
        });
        members
    }

    // A pid is not given out again while a session of that number lives, and an older process can't be a member.
    fn is_in_session(&self, process: &Process) -> bool {
        let is_leader = process.pid == self.leader;
        self.leader > 0
            && (process.session == self.leader || is_leader)
            && if is_leader { process.start_time == self.start_time } else { process.start_time >= self.start_time }
    }
}

/// What an instance uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processes; with threads where the kernel counts them.
    pub processes: u64,
    /// Bytes of memory.
    pub memory: u64,
}

type Everybody = Arc<Vec<(Process, Option<Uuid>)>>;

/// One look at all processes for all families: at most one each half second.
#[derive(Debug, Default)]
pub(crate) struct Census(Mutex<Option<(std::time::Instant, Everybody)>>);

impl Census {
    fn recent(&self) -> Everybody {
        let mut last = self.0.lock();
        if let Some((taken, everybody)) = last.as_ref()
            && taken.elapsed() < Duration::from_millis(500)
        {
            return everybody.clone();
        }
        let marked = |process: Process| {
            let id = procfs::marks(process.pid).map(|(_, id)| id);
            (process, id)
        };
        let everybody: Everybody = Arc::new(procfs::running().into_iter().map(marked).collect());
        *last = Some((std::time::Instant::now(), everybody.clone()));
        everybody
    }
}

impl Family {
    pub(crate) fn new(id: Uuid, leader: i32, active: Active) -> Self {
        let start_time = procfs::process(leader).map_or(0, |process| process.start_time);
        let mut family = Self::recorded(id, leader, start_time);
        family._active = Some(active);
        family
    }

    /// A family of which only the leader's id and start time were written down.
    pub(crate) fn recorded(id: Uuid, leader: i32, start_time: u64) -> Self {
        let signs = Signs { id, leader, start_time, in_cgroup: None };
        Self { signs, cgroup: None, armed: true, _active: None }
    }

    pub(crate) fn with_cgroup(mut self, cgroup: Option<Cgroup>) -> Self {
        self.signs.in_cgroup = cgroup.as_ref().and_then(|cgroup| cgroup.procs_files().into_iter().next());
        self.cgroup = cgroup;
        self
    }

    /// With a leader that was written down.
    pub(crate) fn with_leader(mut self, leader: i32, start_time: u64) -> Self {
        (self.signs.leader, self.signs.start_time) = (leader, start_time);
        self
    }

    pub(crate) fn leader(&self) -> i32 {
        self.signs.leader
    }

    pub(crate) fn start_time(&self) -> u64 {
        self.signs.start_time
    }

    pub(crate) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// What its members are known by.
    pub(crate) fn signs(&self) -> &Signs {
        &self.signs
    }

    /// All members that still run.
    pub(crate) fn members(&self) -> Vec<Process> {
        self.signs.members()
    }

    // Cheaper than `members`: environments are read only once the session is empty.
    fn is_empty(&self) -> bool {
        !procfs::running().iter().any(|process| self.signs.is_in_session(process)) && self.members().is_empty()
    }

    /// What all members use together, as of the last look at all processes.
    pub(crate) fn usage(&self, census: &Census) -> Usage {
        if let Some(cgroup) = &self.cgroup
            && let (Some(processes), Some(memory)) = (cgroup.processes(), cgroup.memory())
        {
            return Usage { processes, memory };
        }
        let all = census.recent();
        let members =
            all.iter().filter(|(process, id)| *id == Some(self.signs.id) || self.signs.is_in_session(process));
        members.fold(Usage::default(), |usage, (process, _)| Usage {
            processes: usage.processes + 1,
            memory: usage.memory + procfs::resident(process.pid),
        })
    }

    /// Sends a signal to every member; returns how many there were.
    pub(crate) fn signal(&self, signal: Signal) -> usize {
        let members = self.members();
        // As a group first: that reaches also what was forked since the look.
        if members.iter().any(|process| process.group == self.signs.leader && self.signs.is_in_session(process)) {
            let _ = killpg(Pid::from_raw(self.signs.leader), signal);
        }
        for process in members.iter().filter(|process| process.group != self.signs.leader) {
            let _ = kill(Pid::from_raw(process.pid), signal);
        }
        if signal == Signal::SIGKILL
            && let Some(cgroup) = &self.cgroup
        {
            cgroup.kill();
        }
        members.len()
    }

    /// SIGTERM, up to `grace` to end, then SIGKILL until nothing is left. Returns whether SIGKILL was needed.
    ///
    /// The leader must be waited for meanwhile by whoever holds its [`tokio::process::Child`].
    pub(crate) async fn end(&self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        if !grace.is_zero() {
            if self.signal(Signal::SIGTERM) == 0 {
                return false;
            }
            while Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(30)).await;
                if self.is_empty() {
                    return false;
                }
            }
        }
        self.kill().await
    }

    /// SIGKILL until nothing is left, for at most ten seconds (a process in an uninterruptible wait can't be killed).
    /// Returns whether there was something to kill.
    pub(crate) async fn kill(&self) -> bool {
        let mut needed = false;
        for round in 0..200 {
            if self.signal(Signal::SIGKILL) == 0 {
                return needed;
            }
            needed = true;
            tokio::time::sleep(Duration::from_millis(if round < 10 { 5 } else { 50 })).await;
        }
        tracing::error!(leader = self.leader(), left = self.members().len(), "processes outlive SIGKILL");
        needed
    }

    /// Nothing is left to kill.
    pub(crate) fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        if self.armed {
            // Three looks, because a member may have forked during the one before.
            for _ in 0..3 {
                if self.signal(Signal::SIGKILL) == 0 {
                    break;
                }
            }
        }
    }
}
