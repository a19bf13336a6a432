//! Orphans: processes whose reaper is not there to end them. They are of an earlier run of the node, or of a reaper
//! that was killed.
//!
//! A process of a program is recognized by any of three marks, because it can lose each of them: the program's session,
//! its control group, or its id in the environment. What a killed reaper of this run of the node leaves needs no mark,
//! because the node has adopted it.

use std::{collections::HashSet, time::Duration};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use uuid::Uuid;

use super::{
    adopted::Reapers,
    cgroup::Cgroup,
    procfs::{self, Process},
};
use crate::pools::Pools;

/// Rounds of SIGKILL that spare reapers: a reaper that lives ends by itself when nothing is left below it.
const ROUNDS: u32 = 200;
/// Further rounds, which spare no process.
const LAST_ROUNDS: u32 = 20;

/// The orphans of one program.
#[derive(Debug, Clone)]
pub(crate) struct Leftover {
    id: Uuid,
    /// Pid and start time of its main process.
    leader: Option<(i32, u64)>,
    cgroup: Cgroup,
    /// The reapers of this node, if this program's own was killed in this run: the node has adopted its descendants.
    reapers: Option<Reapers>,
}

impl Leftover {
    pub(crate) fn of(id: Uuid, leader: Option<(i32, u64)>, cgroup: Cgroup) -> Self {
        Self { id, leader, cgroup, reapers: None }
    }

    pub(crate) fn with_leader(self, leader: (i32, u64)) -> Self {
        Self { leader: Some(leader), ..self }
    }

    /// Includes everything that the node has adopted. Which of several reapers killed at once it belonged to can't be
    /// told, and none of it may go on.
    pub(crate) fn with_adopted(self, reapers: Reapers) -> Self {
        Self { reapers: Some(reapers), ..self }
    }

    /// Ends all of it. Returns the highest number of processes seen at once, without reapers and trampolines.
    pub(crate) async fn end(&self, pools: &Pools) -> usize {
        let mut found = 0;
        for round in 0..ROUNDS + LAST_ROUNDS {
            let (leftover, spares) = (self.clone(), round < ROUNDS);
            let Ok((all, theirs)) = pools.prompt.run(None, move || leftover.kill(spares)).await else { continue };
            found = found.max(theirs);
            if all == 0 {
                let cgroup = self.cgroup.clone();
                let _ = pools.prompt.run(None, move || cgroup.remove()).await;
                return found;
            }
            tokio::time::sleep(Duration::from_millis(if round < 10 { 5 } else { 50 })).await;
        }
        // A process in an uninterruptible wait can't be killed.
        tracing::error!(id = %self.id, "processes outlive SIGKILL");
        found
    }

    /// One round of SIGKILL. Returns how many members there are, and how many of them are no reapers or trampolines.
    fn kill(&self, spares_ours: bool) -> (usize, usize) {
        let adopted = self.reapers.as_ref().map_or(0, Reapers::kill_adopted);
        let members = self.members();
        let (ours, theirs): (Vec<_>, Vec<_>) = members.into_iter().partition(|(_, is_ours)| *is_ours);
        // As a group first: this reaches also what was forked since the members were listed.
        if let Some((leader, _)) = self.leader
            && theirs.iter().any(|(process, _)| process.group == leader && self.is_in_session(process))
        {
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
        for (process, _) in theirs.iter().chain(ours.iter().filter(|_| !spares_ours)) {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        self.cgroup.kill();
        let theirs = theirs.len().max(adopted);
        (theirs + ours.len(), theirs)
    }

    /// All members that still run, and whether each is a reaper or trampoline.
    fn members(&self) -> Vec<(Process, bool)> {
        let in_cgroup = self.cgroup.members();
        let own = std::process::id().cast_signed();
        let all = procfs::all();
        let adopted = self.reapers.as_ref().map_or_else(HashSet::new, |reapers| reapers.adopted(&all));
        let others = all.into_iter().filter(|process| process.pid != own && !process.is_zombie);
        let member = |process: Process| {
            if adopted.contains(&process.pid) {
                return Some((process, false));
            }
            let marks = procfs::marks(process.pid).filter(|marks| marks.id == self.id);
            let is_member = marks.is_some() || self.is_in_session(&process) || in_cgroup.contains(&process.pid);
            is_member.then(|| (process, marks.is_some_and(|marks| marks.is_ours)))
        };
        others.filter_map(member).collect()
    }

    // A pid is not reused while its session lives, and a process older than the leader can't be a member.
    fn is_in_session(&self, process: &Process) -> bool {
        let Some((leader, start_time)) = self.leader.filter(|(leader, _)| *leader > 0) else { return false };
        match process.pid == leader {
            true => process.start_time == start_time,
            false => process.session == leader && process.start_time >= start_time,
        }
    }
}
