use std::{
    collections::BTreeSet,
    io::Read,
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use super::*;

fn names(packed: &Packed) -> BTreeSet<String> {
    let file = File::open(packed.file.path()).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let entries =
        archive.entries().unwrap().map(|entry| entry.unwrap()).filter(|entry| !entry.header().entry_type().is_dir());
    entries.map(|entry| entry.path().unwrap().display().to_string()).collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), files);
    folder
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// git, with nothing of the tester's own settings.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let settings = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "protocol.file.allow=always"];
    let output = Command::new("git")
        .current_dir(folder)
        .args(settings)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = folder(files);
    git(folder.path(), &["init", "--quiet"]);
    folder
}

fn commit(folder: &Path) {
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "--message", "files"]);
}

#[test]
fn what_git_lists_is_what_is_packed() {
    let folder = repository(&[
        (".gitignore", "node_modules/\n*.log\n!kept.log\n"),
        // A file of ripgrep's, which is nothing to git.
        (".ignore", "assets/\n"),
        (".rgignore", "*\n"),
        ("assets/logo.svg", "<svg/>"),
        ("node_modules/x/index.js", ""),
        ("a.log", ""),
        ("kept.log", ""),
        ("forced.log", ""),
        ("dist/.gitignore", "*\n"),
        ("dist/forced.js", ""),
        ("dist/ignored.js", ""),
        ("täg \"x\"\nname", "a name that git would quote"),
        ("index.html", "hello"),
    ]);
    let root = folder.path();
    symlink("index.html", root.join("link")).unwrap();
    git(root, &["add", "--all"]);
    git(root, &["add", "--force", "forced.log", "dist/forced.js"]);
    git(root, &["commit", "--quiet", "--message", "files"]);
    // A folder is often deployed before it is committed.
    write(root, &[("new.txt", ""), ("new.log", "")]);
    let listed = git(root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed: BTreeSet<String> = listed.split_terminator('\0').map(str::to_owned).collect();
    let packed = pack(root).unwrap();
    assert_eq!(names(&packed), listed);
    for name in ["assets/logo.svg", "forced.log", "dist/forced.js", "kept.log", "new.txt", "link"] {
        assert!(listed.contains(name), "{name}");
    }
    assert!(packed.notes.is_empty(), "{:?}", packed.notes);
    assert_eq!(packed.files, listed.len());
}

#[test]
fn repositories_within_are_sent_and_named() {
    let library = repository(&[("library.js", "")]);
    commit(library.path());
    let folder = repository(&[("index.js", ""), ("plain/.gitignore", "out\n"), ("plain/file", "")]);
    let root = folder.path();
    let address = library.path().display().to_string();
    git(root, &["submodule", "--quiet", "add", &address, "lib/one"]);
    git(root, &["submodule", "--quiet", "add", &address, "lib/two"]);
    commit(root);
    git(root, &["submodule", "--quiet", "deinit", "--force", "lib/two"]);
    write(root, &[("lib/one/untracked.js", ""), ("nested/.gitignore", "out\n"), ("nested/out", ""), ("nested/in", "")]);
    git(&root.join("nested"), &["init", "--quiet"]);
    let packed = pack(root).unwrap();
    let expected = [
        ".gitmodules",
        "index.js",
        "lib/one/library.js",
        "lib/one/untracked.js",
        "nested/.gitignore",
        "nested/in",
        "plain/.gitignore",
        "plain/file",
    ];
    assert_eq!(names(&packed), set(expected));
    let notes = packed.notes.join("\n");
    assert!(notes.contains("`nested` is a repository of its own"), "{notes}");
    assert!(notes.contains("not checked out are not sent: lib/two; ") && notes.contains("--init"), "{notes}");
    assert!(!notes.contains("lib/one"), "{notes}");

    // Files that somebody put where a submodule belongs.
    write(root, &[("lib/two/by-hand.js", "")]);
    let packed = pack(root).unwrap();
    assert!(names(&packed).contains("lib/two/by-hand.js"));
    assert!(!packed.notes.join("\n").contains("lib/two"), "{:?}", packed.notes);
}

#[test]
fn tracked_files_that_are_not_there_are_named_and_nothing_behind_a_link_is_sent() {
    let folder = repository(&[("index.js", ""), ("gone.js", ""), ("assets/secret", "")]);
    let root = folder.path();
    commit(root);
    let outside = self::folder(&[("secret", "of somebody")]);
    fs::remove_file(root.join("gone.js")).unwrap();
    fs::remove_dir_all(root.join("assets")).unwrap();
    symlink(outside.path(), root.join("assets")).unwrap();
    let packed = pack(root).unwrap();
    assert_eq!(names(&packed), set(["assets", "index.js"]));
    let note = "2 files that git tracks are not in the folder, so they are not sent: assets/secret, gone.js";
    assert_eq!(packed.notes, [note]);
}

#[test]
fn a_folder_of_a_repository_is_sent_by_the_rules_of_the_repository() {
    let folder = repository(&[
        (".gitignore", "*.log\nbuild/\n"),
        ("site/index.html", ""),
        ("site/a.log", ""),
        ("site/build/app.js", ""),
        ("build/.gitkeep", ""),
        ("build/index.html", ""),
        ("build/a.log", ""),
        ("build/.gitignore", "cache\n"),
        ("build/cache", ""),
    ]);
    let root = folder.path();
    git(root, &["add", "--all"]);
    git(root, &["add", "--force", "build/.gitkeep"]);
    git(root, &["commit", "--quiet", "--message", "files"]);
    assert_eq!(names(&pack(&root.join("site")).unwrap()), set(["index.html"]));
    // What is asked for by its name is wanted, though the repository leaves it out.
    let packed = pack(&root.join("build")).unwrap();
    assert_eq!(names(&packed), set([".gitignore", ".gitkeep", "a.log", "index.html"]));
    assert!(packed.notes[0].starts_with("git ignores this folder"), "{:?}", packed.notes);
}

#[test]
fn callboardignore_takes_away_with_git_and_without() {
    let files = [
        (".gitignore", "node_modules/\n*.log\n"),
        (".callboardignore", "notes.txt\n/docs/\n!a.log\n"),
        ("sub/.callboardignore", "*.tmp\n"),
        ("sub/x.tmp", ""),
        ("x.tmp", ""),
        ("docs/page.html", ""),
        ("node_modules/x/index.js", ""),
        ("a.log", ""),
        ("notes.txt", ""),
        (".env.example", ""),
        ("index.html", "hello"),
    ];
    let expected =
        set([".callboardignore", ".env.example", ".gitignore", "index.html", "sub/.callboardignore", "x.tmp"]);
    let without = folder(&files);
    assert_eq!(names(&pack(without.path()).unwrap()), expected);
    let with = repository(&files);
    commit(with.path());
    assert_eq!(names(&pack(with.path()).unwrap()), expected);
}

#[test]
fn without_a_repository_only_the_folders_own_rules_hold() {
    let above = folder(&[
        (".gitignore", "*\n"),
        (".callboardignore", "*\n"),
        (".ignore", "*\n"),
        ("app/.ignore", "*\n"),
        ("app/.gitignore", "out\n"),
        ("app/out", ""),
        ("app/index.html", ""),
        ("app/.hidden/file", ""),
    ]);
    let packed = pack(&above.path().join("app")).unwrap();
    assert_eq!(names(&packed), set([".gitignore", ".hidden/file", ".ignore", "index.html"]));
    assert!(packed.notes.is_empty(), "{:?}", packed.notes);
}

#[test]
fn virtual_environments_are_left_out_and_named() {
    let files = [
        ("app.py", ""),
        ("venv/pyvenv.cfg", "home = /usr/bin"),
        ("venv/lib/python3/site-packages/x.py", ""),
        ("tools/.venv/pyvenv.cfg", ""),
        ("tools/.venv/bin/python", ""),
        ("tools/run.py", ""),
        ("venv-notes/readme.txt", ""),
    ];
    let note = "virtual environments of Python are not sent: tools/.venv, venv; \
                the build installs what your requirements name";
    for folder in [folder(&files), repository(&files)] {
        let packed = pack(folder.path()).unwrap();
        assert_eq!(names(&packed), set(["app.py", "tools/run.py", "venv-notes/readme.txt"]));
        assert_eq!(packed.notes, [note]);
    }
    // What git tracks is sent: somebody has wanted it there.
    let tracked = repository(&files);
    commit(tracked.path());
    assert_eq!(names(&pack(tracked.path()).unwrap()).len(), files.len());
}

#[test]
fn a_repository_that_git_can_not_read_is_sent_and_named() {
    let folder = folder(&[(".git/config", "no configuration"), (".gitignore", "out\n"), ("out", ""), ("in", "")]);
    let packed = pack(folder.path()).unwrap();
    assert_eq!(names(&packed), set([".gitignore", "in"]));
    assert!(packed.notes[0].starts_with("git says nothing of this folder ("), "{:?}", packed.notes);
}

#[test]
fn a_repository_of_strangers_within_runs_nothing() {
    let folder = repository(&[("index.html", "")]);
    let nested = folder.path().join("nested");
    write(&nested, &[("file", "")]);
    git(&nested, &["init", "--quiet"]);
    let ran = folder.path().join("ran");
    let program = folder.path().join("nested/.git/program");
    fs::write(&program, format!("#!/bin/sh\ntouch {}\n", ran.display())).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    git(&nested, &["config", "core.fsmonitor", program.to_str().unwrap()]);
    git(&nested, &["config", "core.hooksPath", program.parent().unwrap().to_str().unwrap()]);
    assert!(names(&pack(folder.path()).unwrap()).contains("nested/file"));
    assert!(!ran.exists());
    // The trap works.
    git(&nested, &["status"]);
    assert!(ran.exists());
}

#[test]
fn the_same_files_make_the_same_archive() {
    let bytes = || {
        let folder = folder(&[("b", "2"), ("a", "1"), ("c/d", "")]);
        let mut bytes = Vec::new();
        File::open(pack(folder.path()).unwrap().file.path()).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn an_empty_folder_is_refused() {
    let folder = folder(&[]);
    assert!(pack(folder.path()).unwrap_err().sentence.starts_with("there is nothing to deploy"));
    assert!(pack(&folder.path().join("none")).unwrap_err().sentence.ends_with("is not a folder"));
}

#[test]
fn a_folder_suggests_a_name_that_is_a_host_name() {
    assert_eq!(app_name("My Shop_2.0"), "my-shop-2-0");
    assert_eq!(app_name("2048.git"), "");
    assert_eq!(app_name("api.git"), "api");
    assert_eq!(app_name("-x-"), "x");
}
