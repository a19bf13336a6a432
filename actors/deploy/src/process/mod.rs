//! Child processes: started with limits and a clean environment, and ended with everything they started.
//!
//! Builds, `git` and instances all begin here. A child gets exactly the environment it is given plus two variables
//! that let us find what it leaves behind: `CALLBOARD_NODE`, the token of the data folder, and `CALLBOARD_INSTANCE`,
//! the id of this one child. They are no secrets.

mod cgroup;
mod family;
mod procfs;
mod run;

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    io,
    path::PathBuf,
    process::Stdio,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::process::{Child, Command};
use uuid::Uuid;

pub(crate) use self::{
    cgroup::CgroupFolders,
    family::{Census, Family},
    procfs::{Listeners, boot_id, named},
    run::{Check, End, Job, end_family, run, run_with},
};
pub use self::{
    cgroup::{Cgroup, CgroupLimits, Cgroups},
    family::Usage,
};

#[cfg(test)]
pub(crate) use procfs::process;

use crate::limits::{Launch, VARIABLE_PREFIX};

/// The variable that holds the token of the data folder.
pub const NODE_VARIABLE: &str = "CALLBOARD_NODE";
/// The variable that holds the id of one child.
pub const INSTANCE_VARIABLE: &str = "CALLBOARD_INSTANCE";

/// How children are started; one per node, cloned to whatever starts children.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The trampoline, such as `["/proc/self/exe", "launch"]`; see [`crate::limits::launch`].
    pub argv: Vec<String>,
    /// The token of the data folder, by which the next start of the node finds what this one left.
    pub node: String,
    /// The `PATH` of children.
    pub path: String,
    /// Where the kernel counts and limits for us; none unless told.
    pub cgroups: Cgroups,
    /// Folders of the node that children do not get to see, apart from their own; none unless told.
    pub hidden: Vec<PathBuf>,
    active: Arc<Mutex<HashSet<Uuid>>>,
}

/// What a child reads and writes, apart from its errors.
pub(crate) struct Streams {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
}

impl Default for Streams {
    fn default() -> Self {
        Self { stdin: Stdio::null(), stdout: Stdio::piped() }
    }
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
        Self { argv, node: node.into(), path, cgroups: Cgroups::none(), hidden: Vec::new(), active: Arc::default() }
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

    pub(crate) fn is_active(&self, id: Uuid) -> bool {
        self.active.lock().contains(&id)
    }

    /// Starts `argv`, in its own session, with pipes for its output and no input unless told otherwise.
    ///
    /// # Errors
    /// When the trampoline can't be started. A program that can't be found shows as exit status 127.
    pub(crate) fn spawn(
        &self,
        id: Uuid,
        launch: &Launch,
        limits: &CgroupLimits,
        argv: &[OsString],
        environment: &[(OsString, OsString)],
        streams: Streams,
    ) -> io::Result<(Child, Family)> {
        let [trampoline, verb @ ..] = self.argv.as_slice() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no launcher is configured"));
        };
        let active = Active::new(id, &self.active);
        let cgroup = self.cgroups.create(id, limits)?;
        let cgroups = cgroup.as_ref().map(Cgroup::procs_files).unwrap_or_default();
        let launch = Launch { cgroups, hidden: self.hidden.clone(), ..launch.clone() };
        let mut command = Command::new(trampoline);
        command.args(verb).arg(serde_json::to_string(&launch)?).args(argv);
        let variable = |name: &OsStr| {
            let mut prefixed = OsString::from(VARIABLE_PREFIX);
            prefixed.push(name);
            prefixed
        };
        command.env_clear().env(variable("PATH".as_ref()), &self.path);
        command.envs(environment.iter().map(|(name, value)| (variable(name), value)));
        command.env(NODE_VARIABLE, &self.node).env(INSTANCE_VARIABLE, id.to_string());
        command.stdin(streams.stdin).stdout(streams.stdout).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn()?;
        let leader = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        Ok((child, Family::new(id, leader, active).with_cgroup(cgroup)))
    }
}
