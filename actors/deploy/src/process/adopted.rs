//! Adoption of what a killed reaper leaves: the node is the next reaper above, so it becomes the parent of those
//! processes, whatever their session, group or environment. Not even a SIGKILL of a reaper takes them out of the node's
//! reach.
//!
//! A child of the node outside the node's session is either a reaper that it has started or an adopted process: the
//! node starts nothing else that leaves its session.

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

/// Makes this process the subreaper of its descendants: it adopts what its killed reapers leave. Elsewhere than on
/// Linux the orphans go to init.
pub(crate) fn adopt() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_child_subreaper(true)?;
    Ok(())
}

/// Most passes over the children of the node in one search: each finds what was forked since the last.
const PASSES: usize = 32;

/// Reaps an adopted process that has ended. Another thread may have reaped it before.
fn reap(process: &Process) {
    let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
}

/// Pid and start time of each reaper of this node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reapers(Arc<Mutex<HashSet<(i32, u64)>>>);

/// The registration of a reaper. When it is dropped, the reaper has ended or is treated as an orphan.
#[derive(Debug)]
pub(super) struct Registration {
    identity: (i32, u64),
    pub(super) all: Reapers,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.identity);
    }
}

impl Reapers {
    /// Starts a reaper. The search for adopted orphans waits until the new process is registered as a reaper, so that it is
    /// not taken for an orphan. Blocks.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<(Child, Registration)> {
        let mut known = self.0.lock();
        #[expect(clippy::disallowed_methods, reason = "on a thread of the pool for what is short")]
        let child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let identity = (pid, procfs::process(pid).map_or(0, |process| process.start_time));
        known.insert(identity);
        drop(known);
        Ok((child, Registration { identity, all: self.clone() }))
    }

    /// The processes among `all` that this one has adopted, with their descendants. Reaps those that have ended.
    pub(super) fn adopted(&self, all: &[Process]) -> HashSet<i32> {
        let own = std::process::id().cast_signed();
        let Some(session) = all.iter().find(|process| process.pid == own).map(|process| process.session) else {
            return HashSet::new();
        };
        let is_adopted = self.judge(own, session);
        let adopted = all.iter().filter(|process| is_adopted(process));
        let (ended, running): (Vec<_>, Vec<_>) = adopted.partition(|process| process.is_zombie);
        ended.into_iter().for_each(reap);
        let tree = Tree::of(all);
        running.into_iter().flat_map(|process| tree.below(process.pid).into_iter().chain([process.pid])).collect()
    }

    /// Kills the adopted processes, each as soon as it is seen: one that forks and exits again and again has another
    /// pid by the end of a scan of all processes. Returns how many it found, zombies included: such a process leaves
    /// one at each fork.
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
                    reap(&child);
                    continue;
                }
                // Its children become this process's as soon as it has ended.
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

    /// A predicate: whether this process has adopted another. Call it after the snapshot of processes was taken: every
    /// reaper in the snapshot is registered by then. What this process starts stays in its session until it is a
    /// reaper.
    fn judge(&self, own: i32, session: i32) -> impl Fn(&Process) -> bool + use<> {
        let known = self.0.lock().clone();
        move |process| {
            process.parent == own && process.session != session && !known.contains(&(process.pid, process.start_time))
        }
    }
}
