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

#[cfg(target_os = "linux")]
use super::sandbox;
use super::{Cgroup, INSTANCE_VARIABLE, NODE_VARIABLE, reaper};

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
    super::mounts::separate(temporary, &launch.hidden, &needed, user).unwrap_or(false)
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
pub(crate) mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    /// The trampoline for this crate's tests: the test binary itself. The shell keeps what the test harness prints
    /// out of the child's output.
    pub(crate) fn test_launcher() -> Vec<String> {
        let script = "exec 3>&1 4>&2 >/dev/null 2>&1; exec \"$@\"";
        let binary = std::env::current_exe().unwrap().display().to_string();
        let entry = "process::trampoline::tests::trampoline";
        ["/bin/sh", "-c", script, "launch", &binary, "--exact", "--nocapture", "--test-threads=1", "--", entry]
            .map(str::to_owned)
            .to_vec()
    }

    #[test]
    fn trampoline() {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let Some(start) =
            arguments.iter().position(|argument| argument.as_encoded_bytes().starts_with(b"{\"open_files"))
        else {
            return; // run as a test
        };
        let (out, err) =
            (File::options().write(true).open("/proc/self/fd/3"), File::options().write(true).open("/proc/self/fd/4"));
        nix::unistd::dup2_stdout(out.unwrap().as_fd()).unwrap();
        nix::unistd::dup2_stderr(err.unwrap().as_fd()).unwrap();
        let status = launch(arguments[start..].to_vec());
        std::process::exit(if status == ExitCode::from(NOT_FOUND) { 127 } else { 126 });
    }

    fn run(launch: &Launch, program: &[&str]) -> std::process::Output {
        let launcher = test_launcher();
        Command::new(&launcher[0])
            .args(&launcher[1..])
            .arg(serde_json::to_string(launch).unwrap())
            .args(program)
            .env(format!("{VARIABLE_PREFIX}PATH"), "/usr/local/bin:/usr/bin:/bin")
            .env(format!("{VARIABLE_PREFIX}GIVEN"), "given")
            .env(NODE_VARIABLE, "node")
            .env("INHERITED", "inherited")
            .output()
            .unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_hidden_can_not_be_reached_by_any_way_and_what_is_the_childs_own_can() {
        if !sandbox::is_supported() {
            eprintln!("this kernel knows no Landlock; nothing is tested");
            return;
        }
        let data = tempfile::tempdir().unwrap();
        let own = data.path().join("instances/own");
        for folder in [&own, &data.path().join("instances/other")] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("file"), "readable").unwrap();
        }
        fs::create_dir(data.path().join("objects")).unwrap();
        fs::write(data.path().join("master.key"), "the key").unwrap();
        std::os::unix::fs::symlink(data.path(), own.join("link")).unwrap();
        // One inside the other, as objects are in the data folder; and a file beside others.
        let beside = tempfile::tempdir().unwrap();
        for file in ["key", "readable"] {
            fs::write(beside.path().join(file), "beside").unwrap();
        }
        let hidden = vec![data.path().to_owned(), data.path().join("objects"), beside.path().join("key")];
        let launch = Launch { hidden, own: vec![own.clone()], ..Launch::default() };
        let script = r#"cd "$1/instances/own"
            try() { "$@" 2>/dev/null && echo "did: $*"; }
            try cat ../../master.key; try cat link/master.key; try cat ../other/file; try ls ../..
            try tail -c 5 /proc/$PPID/environ; try dd if=/proc/$PPID/mem of=/dev/null count=0
            try rm ../../master.key; try mv ../other/file stolen; try truncate -s 0 ../../master.key
            try ln ../../master.key hard; try touch ../new; try cat "$2/key"; try touch "$2/new"
            cat file && echo written > new && mkdir deep && mv new deep/ && cat deep/new /etc/hostname "$2/readable" > /dev/null"#;
        let [folder, beside] = [&data, &beside].map(|folder| folder.path().display().to_string());
        let output = run(&launch, &["/bin/sh", "-c", script, "sh", &folder, &beside]);
        let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((said.as_ref(), wrong.as_ref()), ("readable", ""));
        assert!(output.status.success());
        assert_eq!(fs::read(data.path().join("master.key")).unwrap(), b"the key");
        assert_eq!(fs::read(own.join("deep/new")).unwrap(), b"written\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_child_of_another_user_has_a_tmp_of_its_own_and_lists_what_is_above_the_nodes_folder() {
        let Ok(data) = tempfile::tempdir_in("/var/lib") else {
            eprintln!("only root has a folder outside of /tmp here; nothing is tested");
            return;
        };
        if !nix::unistd::geteuid().is_root() || !sandbox::is_supported() || unshare_fails() {
            eprintln!("this node can make no mounts, or hide nothing; nothing is tested");
            return;
        }
        let user = RunAs { uid: 65_534, gid: 65_534 };
        fs::set_permissions(data.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let (own, secrets) = (data.path().join("own"), tempfile::tempdir_in("/var/lib").unwrap());
        fs::create_dir_all(own.join("tmp")).unwrap();
        for folder in [&own, &own.join("tmp")] {
            fs::chown(folder, Some(user.uid), Some(user.gid)).unwrap();
        }
        fs::write(data.path().join("master.key"), "the key").unwrap();
        // A folder of secrets that everybody may list.
        fs::set_permissions(secrets.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fs::write(secrets.path().join("token"), "the token").unwrap();
        let others = tempfile::Builder::new().prefix("of-others").tempdir_in("/tmp").unwrap();
        let launch = Launch {
            hidden: vec![data.path().to_owned(), secrets.path().to_owned()],
            own: vec![own.clone()],
            temporary: Some(own.join("tmp")),
            run_as: Some(user),
            folder: own.clone(),
            ..Launch::default()
        };
        let script = r#"ls / > /dev/null && ls .. 2>/dev/null; ls "$1" "$2" 2>/dev/null; cat "$1/master.key" "$2/token" 2>/dev/null
            ls -A /tmp /var/tmp; echo mine > /tmp/file && cat /var/tmp/file && ls tmp && touch /tmp/.done"#;
        let [data_folder, secrets_folder] = [data.path(), secrets.path()].map(|folder| folder.display().to_string());
        let output = run(&launch, &["/bin/sh", "-c", script, "sh", &data_folder, &secrets_folder]);
        let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(said, format!("{secrets_folder}:\n/tmp:\n\n/var/tmp:\nmine\nfile\n"), "{wrong}");
        assert!(own.join("tmp/.done").exists() && others.path().exists());
        assert_eq!(fs::read(secrets.path().join("token")).unwrap(), b"the token");
    }

    /// Whether the kernel, or the container's profile, makes no mount namespaces.
    #[cfg(target_os = "linux")]
    fn unshare_fails() -> bool {
        !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success())
    }

    #[test]
    fn limits_session_and_descriptors_are_set_before_the_program_runs() {
        let _inherited = {
            let file = File::open("/dev/null").unwrap();
            nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
            file
        };
        let launch = Launch { open_files: 77, file_size: 512 * 1024, cpu_seconds: Some(9), ..Launch::default() };
        let script = "ulimit -n; ulimit -c; ulimit -f; ulimit -t; ls /proc/self/fd | tr '\\n' ' '; \
                      echo; read -r _ _ _ _ group session _ < /proc/$$/stat; echo $(($$ == group)) $(($$ == session))";
        let output = run(&launch, &["/bin/sh", "-c", script]);
        let text = String::from_utf8(output.stdout).unwrap();
        // ulimit -f counts blocks of 512 bytes; ls itself holds one descriptor on the folder.
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            ["77", "0", "1024", "9", "0 1 2 3 ", "1 1"],
            "{:?}",
            output.stderr
        );
    }

    #[test]
    fn variables_reach_the_program_and_not_the_trampoline() {
        let output = run(&Launch::default(), &["/usr/bin/env"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["CALLBOARD_NODE=node", "GIVEN=given", "PATH=/usr/local/bin:/usr/bin:/bin"]);
    }

    #[test]
    fn a_missing_program_is_told_in_a_sentence() {
        let output = run(&Launch::default(), &["no-such-program"]);
        assert_eq!(output.status.code(), Some(127));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("the program `no-such-program` was not found"), "{text}");
    }
}
