//! Programs as child processes: started with limits and a clean environment, and ended with everything they started.
//!
//! Builds, `git` and instances all begin here, through the [`trampoline`]. A program runs below a [`reaper`] of its own,
//! which adopts and ends whatever it leaves; what a killed reaper leaves is [adopted] and ended by the node. A program gets
//! exactly the environment it is given plus two variables by which a later run of the node finds what a reaper could not
//! end: `CALLBOARD_NODE`, the token of the data folder, and `CALLBOARD_INSTANCE`, the id of this one program. They are no
//! secrets.

mod adopted;
mod cgroup;
mod child;
mod leftovers;
mod path;
mod procfs;
pub(crate) mod reaper;
mod run;
#[cfg(target_os = "linux")]
mod sandbox;
pub mod trampoline;

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::process::Command;
use uuid::Uuid;

pub(crate) use self::{
    adopted::adopt,
    child::{Census, Child, Gauge},
    leftovers::Leftover,
    procfs::{Listeners, boot_id, named},
    reaper::{Ended, How},
    run::{Check, End, Job, run},
};
pub use self::{
    cgroup::{Cgroup, CgroupLimits, Cgroups},
    child::Usage,
};

#[cfg(test)]
pub(crate) use procfs::{Marks, process};

use self::trampoline::{Launch, RunAs, VARIABLE_PREFIX};
use crate::pools::Pools;

/// The variable that holds the token of the data folder.
pub const NODE_VARIABLE: &str = "CALLBOARD_NODE";
/// The variable that holds the id of one child.
pub const INSTANCE_VARIABLE: &str = "CALLBOARD_INSTANCE";

/// How children are started; one per node, cloned to whatever starts children.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The trampoline, such as `["/proc/self/exe", "launch"]`; see [`crate::process::trampoline::launch`].
    pub argv: Vec<String>,
    /// The token of the data folder, by which the next start of the node finds what this one left.
    pub node: String,
    /// The `PATH` of children.
    pub path: String,
    /// Where the kernel counts and limits for us; default: none.
    pub cgroups: Cgroups,
    /// Folders of the node that children do not get to see, apart from their own; default: none.
    pub hidden: Vec<PathBuf>,
    /// The threads for whatever about children, or the files that they leave, may wait for a disk.
    pub pools: Pools,
    active: Arc<Mutex<HashSet<Uuid>>>,
    reapers: adopted::Reapers,
}

/// What a program reads and writes, apart from its errors; default: nothing and a pipe of ours.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
}

/// A child of this node, for as long as this lives: whatever else carries the node's token is an orphan.
#[derive(Debug)]
pub(crate) struct Active(Uuid, Arc<Mutex<HashSet<Uuid>>>);

impl Active {
    fn new(id: Uuid, all: &Arc<Mutex<HashSet<Uuid>>>) -> Self {
        all.lock().insert(id);
        Self(id, all.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.1.lock().remove(&self.0);
    }
}

impl Launcher {
    /// `PATH` as the node has it, or the usual folders.
    #[must_use]
    pub fn new(argv: Vec<String>, node: impl Into<String>) -> Self {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
        Self {
            argv,
            node: node.into(),
            path,
            cgroups: Cgroups::none(),
            hidden: Vec::new(),
            pools: Pools::default(),
            active: Arc::default(),
            reapers: adopted::Reapers::default(),
        }
    }

    /// With control groups, where this node may make them.
    #[must_use]
    pub fn with_cgroups(mut self) -> Self {
        self.cgroups = Cgroups::detect(&self.node);
        self
    }

    /// Whose children do not get to see these folders, apart from what in them is their own.
    #[must_use]
    pub fn hiding(mut self, folders: impl IntoIterator<Item = PathBuf>) -> Self {
        self.hidden.extend(folders);
        self
    }

    /// Whose children, which run as `user` or else as the node does, search only the folders of `PATH` that they may.
    /// Blocks; at start.
    #[must_use]
    pub fn searching_as(mut self, user: Option<RunAs>) -> Self {
        self.path = path::searchable(&self.path, user, &self.hidden);
        self
    }

    pub(crate) fn is_active(&self, id: Uuid) -> bool {
        self.active.lock().contains(&id)
    }

    /// Starts a program in its own session, and waits until it runs.
    ///
    /// # Errors
    /// When it can't be started. A program that can't be found shows as exit status 127.
    pub(crate) async fn spawn(&self, program: Program) -> io::Result<Child> {
        Child::start(self.clone(), program).await
    }

    fn command(&self, program: &Program, cgroup: &Cgroup) -> io::Result<Command> {
        let [trampoline, verb @ ..] = self.argv.as_slice() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no launcher is configured"));
        };
        let launch = Launch {
            cgroup: cgroup.clone(),
            hidden: self.hidden.clone(),
            trampoline: self.argv.clone(),
            ..program.launch.clone()
        };
        let mut command = Command::new(trampoline);
        command.args(verb).arg(serde_json::to_string(&launch)?).args(&program.argv).current_dir("/");
        let variable = |name: &OsStr| {
            let mut prefixed = OsString::from(VARIABLE_PREFIX);
            prefixed.push(name);
            prefixed
        };
        command.env_clear().env(variable("PATH".as_ref()), &self.path);
        command.envs(program.environment.iter().map(|(name, value)| (variable(name), value)));
        command.env(NODE_VARIABLE, &self.node).env(INSTANCE_VARIABLE, program.id.to_string());
        Ok(command)
    }
}

/// A program to be.
#[derive(Debug)]
pub(crate) struct Program {
    /// The identity of this one start.
    pub(crate) id: Uuid,
    pub(crate) launch: Launch,
    /// What all of its processes may use together.
    pub(crate) limits: CgroupLimits,
    pub(crate) argv: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) streams: Streams,
}
