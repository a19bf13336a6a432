//! The limits of a child process, and the trampoline that applies them.
//!
//! Limits have to hold before the first instruction of the program runs, and `pre_exec` is unsafe code. So a child
//! starts as our own binary with a hidden verb ([`launch`]), and that twice. The first becomes the program's
//! [reaper](crate::process::reaper) and starts the second, which becomes the leader of its own session, closes every
//! descriptor but its standard ones, enters its control groups, sets the limits, gives up privileges, hides the node's
//! own files from itself, enters its folder and then becomes the program. It costs some milliseconds and two `exec`s.
//!
//! The program's variables reach the trampoline under other names ([`VARIABLE_PREFIX`]): an app's `LD_PRELOAD` must not
//! run before its limits hold.

use std::{
    ffi::{OsStr, OsString},
    fs::Metadata,
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Command, ExitCode},
};

use callboard_supervisors::fs;
use nix::{
    sys::{
        resource::{Resource, rlim_t, setrlimit},
        signal::{SigSet, Signal},
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid, setgid, setgroups, setsid, setuid},
};
use serde::{Deserialize, Serialize};

use super::{Cgroup, INSTANCE_VARIABLE, NODE_VARIABLE, reaper};
#[cfg(target_os = "linux")]
use super::{mounts::Wanted, sandbox};

/// The user a child runs as, when the node may change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id; supplementary groups are dropped.
    pub gid: u32,
}

impl RunAs {
    /// Whether this user may list a folder, by its owner and mode.
    #[must_use]
    pub fn may_list(self, folder: &Metadata) -> bool {
        self.has(folder, 0o4)
    }

    /// Whether this user may search a folder, by its owner and mode.
    #[must_use]
    pub fn may_search(self, folder: &Metadata) -> bool {
        self.has(folder, 0o1)
    }

    fn has(self, folder: &Metadata, right: u32) -> bool {
        let shift = match () {
            () if folder.uid() == self.uid => 6,
            () if folder.gid() == self.gid => 3,
            () => 0,
        };
        folder.mode() >> shift & right == right
    }
}

/// What the trampoline does before it becomes the program. Its JSON is the trampoline's first argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Launch {
    /// RLIMIT_NOFILE.
    pub open_files: u64,
    /// RLIMIT_FSIZE: the largest file it can write, in bytes.
    pub file_size: u64,
    /// RLIMIT_DATA: private writable memory, in bytes. Not RLIMIT_AS: Node and Go reserve far more than they use.
    pub data: Option<u64>,
    /// RLIMIT_CPU: seconds of processor time.
    pub cpu_seconds: Option<u64>,
    /// The control groups to enter.
    pub cgroup: Cgroup,
    /// The user to become.
    pub run_as: Option<RunAs>,
    /// The program's working folder. Entered last, so that a link there leads only where the program itself may go.
    pub folder: PathBuf,
    /// Folders and files of the node that are hidden from the child, where the kernel can.
    pub hidden: Vec<PathBuf>,
    /// Folders inside those that are the child's own.
    pub own: Vec<PathBuf>,
    /// The folder of its own that is its `/tmp`, where the kernel can; one of `own`, or in one of them.
    pub temporary: Option<PathBuf>,
    /// The folder above all of `own` that is all it sees of the hidden folder around it, where the kernel can.
    pub within: Option<PathBuf>,
    /// Added to its niceness: what nobody waits for leaves the processor to what somebody waits for.
    pub nice: i32,
    /// The command by which the reaper starts the trampoline again; empty for the trampoline that becomes the program.
    pub trampoline: Vec<String>,
}

impl Default for Launch {
    fn default() -> Self {
        Self {
            open_files: 4_096,
            file_size: 1024 * 1024 * 1024,
            data: None,
            cpu_seconds: None,
            cgroup: Cgroup::default(),
            run_as: None,
            folder: PathBuf::from("/"),
            hidden: Vec::new(),
            own: Vec::new(),
            temporary: None,
            within: None,
            nice: 0,
            trampoline: Vec::new(),
        }
    }
}

/// Whether the kernel can hide files from a child; where it can't, [`Launch::hidden`] has no effect.
#[must_use]
pub fn can_hide() -> bool {
    #[cfg(target_os = "linux")]
    {
        sandbox::is_supported()
    }
    #[cfg(not(target_os = "linux"))]
    {
        false
    }
}

/// The prefix of each variable that is meant for the program and not for the trampoline.
pub const VARIABLE_PREFIX: &str = "CALLBOARD_SET_";

/// The exit status of a trampoline that could not find its program, as a shell has it.
pub const NOT_FOUND: u8 = 127;
/// The exit status of a trampoline that could not start its program.
pub const NOT_STARTED: u8 = 126;

/// The hidden verb of the binary: `<json of Launch> <program> <arguments…>`, without the name of the verb.
///
/// Returns only on failure, with the reason on standard error.
pub fn launch(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Err((status, sentence)) = try_launch(arguments);
    eprintln!("callboard: {sentence}");
    ExitCode::from(status)
}

type Never = std::convert::Infallible;

fn try_launch(arguments: impl IntoIterator<Item = OsString>) -> Result<Never, (u8, String)> {
    let failed = |what: &str, error: &dyn std::fmt::Display| (NOT_STARTED, format!("could not {what}: {error}"));
    let mut arguments = arguments.into_iter();
    let Some((json, program)) = arguments.next().zip(arguments.next()) else {
        return Err((NOT_STARTED, "this verb is for the platform's own use; it needs limits and a program".to_owned()));
    };
    let launch: Launch =
        serde_json::from_slice(json.as_encoded_bytes()).map_err(|error| failed("read the limits", &error))?;

    // Fails only when the verb is run by hand, by a leader.
    let _ = setsid();
    close_descriptors().map_err(|error| failed("close inherited descriptors", &error))?;
    umask(Mode::from_bits_truncate(0o022));
    if !launch.trampoline.is_empty() {
        return reaper::stay(&launch, program, arguments).map_err(|error| failed("start the program", &error));
    }
    // Inherited from the reaper, which blocks all signals.
    SigSet::empty().thread_set_mask().map_err(|error| failed("take signals", &error))?;
    for file in launch.cgroup.procs_files() {
        fs::write(&file, "0").map_err(|error| failed(&format!("enter {}", file.display()), &error))?;
    }
    set_limits(&launch).map_err(|error| failed("set the limits", &error))?;
    #[cfg(target_os = "linux")]
    let may_list = has_own_mounts(&launch);
    #[cfg(target_os = "linux")]
    sandbox::bound_privileges().map_err(|error| failed("give up privileges", &error))?;
    if let Some(user) = launch.run_as {
        become_user(user).map_err(|error| failed(&format!("become user {}", user.uid), &error))?;
    }
    #[cfg(target_os = "linux")]
    {
        nix::sys::prctl::set_no_new_privs().map_err(|error| failed("give up privileges", &error))?;
        // Without its reaper nothing would end it.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| failed("be bound to the reaper", &error))?;
        sandbox::hide(&launch.hidden, &launch.own, may_list)
            .map_err(|error| failed("hide the node's files", &error))?;
    }

    std::env::set_current_dir(&launch.folder)
        .map_err(|error| failed(&format!("enter {}", launch.folder.display()), &error))?;

    let variables = std::env::vars_os().filter_map(|(name, value)| Some((own_name(&name)?.to_owned(), value)));
    let error = Command::new(&program).args(arguments).env_clear().envs(variables).exec();
    Err(explain(&program, &error))
}

/// Gives the child a `/tmp` of its own where that is possible. Returns whether it may list the folders above what is hidden.
#[cfg(target_os = "linux")]
fn has_own_mounts(launch: &Launch) -> bool {
    let Some((user, temporary)) = launch.run_as.zip(launch.temporary.as_ref()) else { return false };
    let needed: Vec<PathBuf> = launch.own.iter().chain([&launch.folder]).cloned().collect();
    // A container's root may make no mounts: then the child sees the `/tmp` of all.
    let within = launch.within.as_deref();
    let wanted = Wanted { temporary, within, hidden: &launch.hidden, needed: &needed, user };
    super::mounts::separate(&wanted).unwrap_or(false)
}

fn own_name(name: &OsStr) -> Option<&OsStr> {
    let bytes = name.as_bytes();
    if name == NODE_VARIABLE || name == INSTANCE_VARIABLE {
        return Some(name);
    }
    bytes.strip_prefix(VARIABLE_PREFIX.as_bytes()).map(OsStr::from_bytes)
}

fn explain(program: &OsStr, error: &io::Error) -> (u8, String) {
    let program = program.to_string_lossy();
    match error.kind() {
        io::ErrorKind::NotFound => {
            (NOT_FOUND, format!("the program `{program}` was not found; install it or check its name"))
        }
        io::ErrorKind::PermissionDenied => {
            (NOT_STARTED, format!("`{program}` may not be executed; make it executable (chmod +x)"))
        }
        _ => (NOT_STARTED, format!("`{program}` could not be started: {error}")),
    }
}

fn close_descriptors() -> io::Result<()> {
    let folder = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    let open: Vec<i32> =
        fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // The listing's own descriptor is closed already.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

fn set_limits(launch: &Launch) -> nix::Result<()> {
    let mut limits: Vec<(Resource, rlim_t)> = vec![
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, launch.open_files),
        (Resource::RLIMIT_FSIZE, launch.file_size),
    ];
    limits.extend(launch.data.map(|bytes| (Resource::RLIMIT_DATA, bytes)));
    limits.extend(launch.cpu_seconds.map(|seconds| (Resource::RLIMIT_CPU, seconds)));
    if launch.nice != 0 {
        // It may always be nicer; what is the nicest already stays so.
        let _ = rustix::process::nice(launch.nice);
    }
    for (resource, wanted) in limits {
        // A lower limit stays: only root may raise one.
        let (_, highest) = nix::sys::resource::getrlimit(resource)?;
        let value = wanted.min(highest);
        setrlimit(resource, value, value)?;
    }
    Ok(())
}

fn become_user(user: RunAs) -> nix::Result<()> {
    #[cfg(target_os = "linux")]
    setgroups(&[])?;
    setgid(Gid::from_raw(user.gid))?;
    setuid(Uid::from_raw(user.uid))
}

#[cfg(test)]
pub(crate) mod tests;
