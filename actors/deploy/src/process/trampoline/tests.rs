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
    let Some(start) = arguments.iter().position(|argument| argument.as_encoded_bytes().starts_with(b"{\"open_files"))
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
    // A build sees all that is above its own folder, and of the node's nothing else.
    fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let within = Launch { within: Some(own.clone()), ..launch.clone() };
    let script = r#"ls .. && ls ../.. > /dev/null && ls / > /dev/null && ls && touch tmp/here && mv tmp/here there; cat ../master.key"#;
    let output = run(&within, &["/bin/sh", "-c", script]);
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(said, "own\ntmp\n", "{wrong}");
    assert!(wrong.contains("No such file") && own.join("there").exists(), "{wrong}");
    fs::remove_file(own.join("there")).unwrap();

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
    assert_eq!(text.lines().collect::<Vec<_>>(), ["77", "0", "1024", "9", "0 1 2 3 ", "1 1"], "{:?}", output.stderr);
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
