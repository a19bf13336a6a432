//! Programs as child processes: started with limits and a clean environment, and ended with everything they started.
//!
//! Builds, `git` and instances are all started here, through the [`trampoline`]. A program runs below a [`reaper`] of
//! its own, which adopts and ends its orphans; the node [adopts](adopted) and ends those of a killed reaper. A program
//! gets exactly the environment it is given and two variables by which a later run of the node finds what a reaper
//! could not end: `CALLBOARD_NODE`, the token of the data folder, and `CALLBOARD_INSTANCE`, the id of this one program.
//! They are no secrets.

mod adopted;
mod cgroup;
mod child;
mod leftovers;
#[cfg(target_os = "linux")]
mod mounts;
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
    cgroup::{Cgroup, CgroupLimits, Cgroups, Share},
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

/// How children are started; one per node, cloned for each user.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The trampoline, such as `["/proc/self/exe", "launch"]`; see [`crate::process::trampoline::launch`].
    pub argv: Vec<String>,
    /// The token of the data folder, by which the next start of the node finds the orphans of this run.
    pub node: String,
    /// The `PATH` of children.
    pub path: String,
    /// The control groups of the node; default: none.
    pub cgroups: Cgroups,
    /// Folders of the node that are hidden from children, apart from a child's own; default: none.
    pub hidden: Vec<PathBuf>,
    /// The thread pools for what may wait for a disk.
    pub pools: Pools,
    active: Arc<Mutex<HashSet<Uuid>>>,
    reapers: adopted::Reapers,
}

/// Standard input and output of a program; default: nothing and a pipe to the node.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
}

/// Marks a child as one of this run while it exists: other processes with the node's token are orphans.
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
    /// A launcher without control groups and hidden folders; `PATH` as the node has it, or the usual folders.
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

    /// Adds control groups, where this node may make them.
    #[must_use]
    pub fn with_cgroups(mut self) -> Self {
        self.cgroups = Cgroups::detect(&self.node);
        self
    }

    /// Hides these folders from children, apart from what in them is a child's own.
    #[must_use]
    pub fn hiding(mut self, folders: impl IntoIterator<Item = PathBuf>) -> Self {
        self.hidden.extend(folders);
        self
    }

    /// Removes from `PATH` the folders that children, as `user` or as the node's own, may not search. Blocks; at start.
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

/// A program to start.
#[derive(Debug)]
pub(crate) struct Program {
    /// The id of this one start.
    pub(crate) id: Uuid,
    pub(crate) launch: Launch,
    /// Limits of all its processes together.
    pub(crate) limits: CgroupLimits,
    pub(crate) argv: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) streams: Streams,
}
