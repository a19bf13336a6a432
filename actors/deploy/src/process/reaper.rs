//! The process between the node and a program: it adopts the program's orphans, and ends all of them.
//!
//! A program may fork twice, leave its session and clear its environment; then neither its group nor any mark shows
//! where it belongs. But the kernel gives a process whose parent has ended to the nearest reaper above it. So each
//! build step and each instance runs below a reaper of its own, which ends only when nothing is left below it, and this
//! needs no privilege and no control group.
//!
//! A reaper and its node hold the two ends of a socket. The node requests SIGTERM or SIGKILL; the reaper reports when
//! the program begins and how it ended. When the node is killed the kernel closes its end, and the reaper then ends the
//! program: no program outlives its node.
//!
//! A reaper runs as the node's user, outside of the program's limits and of what the program may signal.

use std::{
    collections::HashSet,
    ffi::OsString,
    fmt,
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        resource::{Resource, setrlimit},
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use parking_lot::Mutex;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::{
    cgroup::Cgroup,
    procfs::{self, Tree},
};
use crate::process::trampoline::Launch;

/// Sent with the program's standard input.
const BEGIN: u8 = b'B';
/// Requests SIGTERM to all processes.
pub(super) const TERMINATE: u8 = b'T';
/// Requests SIGKILL until nothing is left.
pub(super) const KILL: u8 = b'K';

/// Time between SIGTERM and SIGKILL when the node is gone: less than the time to takeover by another node.
const GRACE: Duration = Duration::from_secs(2);
/// Passes over the descendants in which SIGTERM is sent to those that have not had it.
const LOOKS: usize = 10;
/// Pause between two rounds of SIGKILL: the next one reaches what was forked in the last moment.
const ROUND: Duration = Duration::from_millis(2);

/// A message from a reaper to its node; a line of JSON each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The program runs.
    Started { pid: i32, start_time: u64 },
    /// The program and all its descendants have ended.
    Ended(Ended),
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) how: How,
    /// Whether the kernel killed one of its processes because its memory ran out.
    pub(crate) out_of_memory: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    Status(i32),
    Signal(i32),
    /// Unknown: its reaper was killed.
    Lost,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Lost => f.write_str("the process that supervises it, which was killed"),
        }
    }
}

/// Starts the program by the trampoline and stays until none of its processes is left. Returns only on failure.
pub(crate) fn stay(
    launch: &Launch,
    program: OsString,
    arguments: impl Iterator<Item = OsString>,
) -> io::Result<std::convert::Infallible> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let stdin = take_stdin(&control)?;
    // Signals to every process, as from a terminal or at shutdown, are for the program.
    SigSet::all().thread_block()?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_child_subreaper(true)?;

    let [trampoline, verb @ ..] = launch.trampoline.as_slice() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no trampoline is named"));
    };
    let json = serde_json::to_string(&Launch { trampoline: Vec::new(), ..launch.clone() })?;
    let mut command = Command::new(trampoline);
    command.args(verb).arg(json).arg(program).args(arguments);
    command.stdin(stdin.map_or_else(Stdio::null, Stdio::from));
    #[expect(clippy::disallowed_methods, reason = "this process is there to wait for the program")]
    let pid = i32::try_from(command.spawn()?.id()).map_err(io::Error::other)?;
    // Closes the reaper's copy of the program's standard input.
    drop(command);
    let reaper = Arc::new(Reaper {
        control,
        program: Pid::from_raw(pid),
        cgroup: launch.cgroup.clone(),
        lists_children: procfs::lists_children(),
        is_asked: AtomicBool::new(false),
        reaping: Mutex::default(),
    });
    let start_time = procfs::process(pid).map_or(0, |process| process.start_time);
    reaper.tell(&Report::Started { pid, start_time });
    let obeying = reaper.clone();
    thread::Builder::new().spawn(move || obeying.obey())?;
    let ended = reaper.reap();
    reaper.tell(&Report::Ended(ended));
    std::process::exit(0)
}

/// Passes the program's standard input to its reaper, as the first message over the socket: that is the reaper's own.
pub(super) fn hand_stdin(control: &UnixStream, stdin: Option<&OwnedFd>) -> io::Result<()> {
    let descriptors: Vec<_> = stdin.iter().map(|stdin| stdin.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("there is no room for a descriptor"));
    }
    sendmsg(control, &[IoSlice::new(&[BEGIN])], &mut rights, SendFlags::empty())?;
    Ok(())
}

fn take_stdin(control: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut request = [0];
    let received = recvmsg(control, &mut [IoSliceMut::new(&mut request)], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the node is gone"));
    }
    let stdin = rights.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(stdin)
}

struct Reaper {
    control: UnixStream,
    program: Pid,
    cgroup: Cgroup,
    lists_children: bool,
    /// Whether the program was asked to end: then its descendants are awaited too.
    is_asked: AtomicBool,
    /// Held while children are awaited or signalled: a child that has ended keeps its pid until it is reaped.
    reaping: Mutex<()>,
}

impl Reaper {
    /// Sends a report; a failure means that the node is gone.
    fn tell(&self, report: &Report) {
        if let Ok(mut line) = serde_json::to_vec(report) {
            line.push(b'\n');
            let _ = (&self.control).write_all(&line);
        }
    }

    /// Waits for the program and all its descendants.
    fn reap(&self) -> Ended {
        let mut how = None;
        loop {
            until_one_has_ended();
            if self.reap_children(&mut how) == Err(Errno::ECHILD) {
                break;
            }
            while how.is_some() && !self.is_asked.load(Ordering::Acquire) {
                self.kill();
                if self.reap_children(&mut how) == Err(Errno::ECHILD) {
                    break;
                }
                pause(ROUND);
            }
        }
        let out_of_memory = self.cgroup.killed_for_memory();
        for _ in 0..100 {
            // The kernel may not yet have removed the last of them.
            if self.cgroup.remove() {
                break;
            }
            pause(ROUND);
        }
        Ended { how: how.unwrap_or(How::Lost), out_of_memory }
    }

    /// Reaps all children that have ended.
    fn reap_children(&self, how: &mut Option<How>) -> nix::Result<()> {
        let _reaping = self.reaping.lock();
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::Exited(pid, status) if pid == self.program => *how = Some(How::Status(status)),
                WaitStatus::Signaled(pid, signal, _) if pid == self.program => {
                    *how = Some(How::Signal(signal as i32));
                }
                WaitStatus::StillAlive => return Ok(()),
                _ => {}
            }
        }
    }

    /// Carries out the node's requests, and ends everything once the node is gone.
    fn obey(&self) {
        let mut request = [0];
        loop {
            match (&self.control).read(&mut request) {
                Ok(1) if request == [TERMINATE] => self.terminate(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(1) => break,
                Ok(_) | Err(_) => {
                    if !self.is_asked.load(Ordering::Acquire) {
                        self.terminate();
                    }
                    pause(GRACE);
                    break;
                }
            }
        }
        self.is_asked.store(true, Ordering::Release);
        // Until the other thread has no child left and ends the process.
        loop {
            self.kill();
            pause(ROUND);
        }
    }

    /// Sends SIGTERM to everything.
    fn terminate(&self) {
        self.is_asked.store(true, Ordering::Release);
        let _reaping = self.reaping.lock();
        let mut signalled = HashSet::new();
        // What is forked meanwhile is found by the next pass; each process is signalled once.
        for _ in 0..LOOKS {
            let processes = self.below().into_iter().filter_map(procfs::process);
            let unsignalled: Vec<_> =
                processes.filter(|process| signalled.insert((process.pid, process.start_time))).collect();
            if unsignalled.is_empty() {
                break;
            }
            for process in unsignalled {
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGTERM);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = nix::sys::signal::killpg(self.program, Signal::SIGTERM);
    }

    /// One round of SIGKILL. Each process gets it as soon as it is seen: one that forks and exits again and again has
    /// another pid by the end of a scan of all processes.
    fn kill(&self) {
        let _reaping = self.reaping.lock();
        self.cgroup.kill();
        #[cfg(not(target_os = "linux"))]
        let _ = nix::sys::signal::killpg(self.program, Signal::SIGKILL);
        if !self.lists_children {
            for pid in self.below() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            return;
        }
        let mut parents = vec![own()];
        while let Some(parent) = parents.pop() {
            for child in procfs::children(parent) {
                // Its children become this process's as soon as it has ended.
                let grandchildren = procfs::children(child);
                let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
                for grandchild in grandchildren {
                    let _ = kill(Pid::from_raw(grandchild), Signal::SIGKILL);
                    parents.push(grandchild);
                }
            }
        }
    }

    fn below(&self) -> Vec<i32> {
        Tree::of_all().below(own())
    }
}

/// Waits until a child has ended, without reaping it.
#[cfg(target_os = "linux")]
fn until_one_has_ended() {
    use nix::sys::wait::{Id, waitid};
    // An error shows again when children are reaped.
    let _ = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
}

#[cfg(not(target_os = "linux"))]
fn until_one_has_ended() {
    pause(10 * ROUND);
}

fn own() -> i32 {
    std::process::id().cast_signed()
}

#[expect(clippy::disallowed_methods, reason = "this process does nothing but wait")]
fn pause(duration: Duration) {
    thread::sleep(duration);
}
