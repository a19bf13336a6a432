//! What a killed reaper leaves falls to the node, which is the next reaper above, whatever the processes carry or have
//! left. So even a reaper that somebody kills with SIGKILL takes nothing out of the node's reach.
//!
//! A child of the node is either a reaper that it has started, or such a process: the node starts nothing else that leaves
//! its session.

use std::{collections::HashSet, io, sync::Arc};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use parking_lot::Mutex;
use tokio::process::{Child, Command};

use super::procfs::{self, Process, Tree};

/// From now on this process adopts what its killed reapers leave. Elsewhere than on Linux the system does.
pub(crate) fn adopt() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_child_subreaper(true)?;
    Ok(())
}

/// How often in a row is looked for what was forked since the last look.
const PASSES: usize = 32;

/// Of the end of an adopted process. Whoever else waits for it is welcome.
fn take_note(process: &Process) {
    let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
}

/// Pid and start time of each reaper of this node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reapers(Arc<Mutex<HashSet<(i32, u64)>>>);

/// A reaper, for as long as this lives. Afterwards it has ended, or is to be ended.
#[derive(Debug)]
pub(super) struct Known {
    identity: (i32, u64),
    pub(super) all: Reapers,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.identity);
    }
}

impl Reapers {
    /// Starts a reaper. The search for adopted orphans waits until the new process is registered as a reaper, so that it is
    /// not taken for an orphan. Blocks.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<(Child, Known)> {
        let mut known = self.0.lock();
        #[expect(clippy::disallowed_methods, reason = "on a thread of the pool for what is short")]
        let child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let identity = (pid, procfs::process(pid).map_or(0, |process| process.start_time));
        known.insert(identity);
        drop(known);
        Ok((child, Known { identity, all: self.clone() }))
    }

    /// Those of all processes that this one has adopted, and what is below them. Takes note of those that have ended.
    pub(super) fn adopted(&self, all: &[Process]) -> HashSet<i32> {
        let own = std::process::id().cast_signed();
        let Some(session) = all.iter().find(|process| process.pid == own).map(|process| process.session) else {
            return HashSet::new();
        };
        let is_adopted = self.judge(own, session);
        let adopted = all.iter().filter(|process| is_adopted(process));
        let (ended, running): (Vec<_>, Vec<_>) = adopted.partition(|process| process.is_zombie);
        ended.into_iter().for_each(take_note);
        let tree = Tree::of(all);
        running.into_iter().flat_map(|process| tree.below(process.pid).into_iter().chain([process.pid])).collect()
    }

    /// Kills what this process has adopted, each as soon as it is seen: one that forks and ends again and again would be
    /// another one after a look at all processes. Returns how many there were, those included that had ended by themselves:
    /// such a process leaves one of them each time.
    pub(super) fn kill_adopted(&self) -> usize {
        let own = std::process::id().cast_signed();
        let Some(Process { session, .. }) = procfs::process(own) else { return 0 };
        let mut found = 0;
        for _ in 0..PASSES {
            let children = procfs::children(own);
            let is_adopted = self.judge(own, session);
            let before = found;
            for child in children.into_iter().filter_map(procfs::process).filter(is_adopted) {
                found += 1;
                if child.is_zombie {
                    take_note(&child);
                    continue;
                }
                // What it has started is this process's as soon as it has ended.
                let grandchildren = procfs::children(child.pid);
                for pid in std::iter::once(child.pid).chain(grandchildren) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            if found == before {
                break;
            }
        }
        found
    }

    /// Whether a process was adopted by this one, as of a look at it that is over: a reaper that it may have seen is known
    /// by now. What this process starts is in its session until it is a reaper.
    fn judge(&self, own: i32, session: i32) -> impl Fn(&Process) -> bool + use<> {
        let known = self.0.lock().clone();
        move |process| {
            process.parent == own && process.session != session && !known.contains(&(process.pid, process.start_time))
        }
    }
}
