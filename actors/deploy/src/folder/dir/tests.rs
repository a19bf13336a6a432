use std::{fs, os::unix::fs::symlink};

use super::{super::What, *};

/// A folder with a link out of it at each level, and a file beside it.
fn tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |inner: &str| folder.path().join(inner);
    fs::create_dir_all(path("root/a/b")).unwrap();
    for file in ["outside", "root/file", "root/a/b/file"] {
        fs::write(path(file), file).unwrap();
    }
    symlink("..", path("root/up")).unwrap();
    symlink("../../outside", path("root/a/out")).unwrap();
    symlink(path("outside"), path("root/absolute")).unwrap();
    symlink("a/b", path("root/within")).unwrap();
    symlink("../file", path("root/a/above")).unwrap();
    symlink("loop", path("root/loop")).unwrap();
    symlink("a/b/../../file", path("root/around")).unwrap();
    nix::unistd::mkfifo(&path("root/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    folder
}

fn root(folder: &tempfile::TempDir) -> Dir {
    Dir::open(&folder.path().join("root")).unwrap()
}

#[test]
fn nothing_is_opened_through_a_link_in_one_call_or_by_component() {
    let folder = tree();
    let root = root(&folder);
    let open = |path: &str, flags: OFlags| {
        let path = Path::new(path);
        let one = root.beneath(path, flags, Mode::empty()).is_ok();
        let parts = names(path).is_ok_and(|names| by_component(&root.0, &names, flags, Mode::empty()).is_ok());
        assert_eq!(one, parts, "{}", path.display());
        one
    };
    for good in ["file", "a/b/file", "./a/./b/file"] {
        assert!(open(good, FILE), "{good}");
    }
    for good in ["", ".", "a", "a/b"] {
        assert!(open(good, FOLDER), "{good}");
    }
    let links = ["absolute", "a/out", "up/outside", "within/file", "a/above", "around", "loop", "up/root/file"];
    for bad in links.into_iter().chain(["../outside", "a/../file", "/etc/passwd", "gone", "a/gone/file", "file/x"]) {
        assert!(!open(bad, FILE), "{bad}");
    }
    for bad in ["up", "within", "up/root", "..", "/", "file", "a/b/file"] {
        assert!(!open(bad, FOLDER), "{bad}");
    }
}

#[test]
fn what_is_opened_as_a_file_is_a_file() {
    let folder = tree();
    let root = root(&folder);
    for odd in ["pipe", "a", "."] {
        assert!(root.open_file(Path::new(odd)).is_err(), "{odd}");
    }
}

#[test]
fn nothing_is_made_through_a_link() {
    let folder = tree();
    let root = root(&folder);
    for bad in ["up/made", "within/made", "a/out/made", "absolute", "../made"] {
        let path = Path::new(bad);
        assert!(root.create_file(path, 0o600).is_err(), "{bad}");
        assert!(root.create_dir(path, 0o700).is_err(), "{bad}");
        assert!(root.create_link(Path::new("x"), path).is_err(), "{bad}");
    }
    for bad in ["absolute", "a/out", "within/file"] {
        assert!(root.append_file(Path::new(bad), 0o600).is_err(), "{bad}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("outside")).unwrap(), "outside");
    root.create_file(Path::new("a/made"), 0o600).unwrap();
    root.create_dir(Path::new("a/folder"), 0o700).unwrap();
    root.create_link(Path::new("../made"), Path::new("a/folder/link")).unwrap();
    assert_eq!(root.read_link(Path::new("a/folder/link")).unwrap(), Path::new("../made"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn links_are_followed_as_far_as_they_stay_within() {
    let folder = tree();
    let root = root(&folder);
    let follow = |path: &str| root.follow(Path::new(path), |name| name != "b");
    let real = |path: &str| root.follow(Path::new(path), |_| true).map(|found| found.path);
    for (path, expected) in [
        ("file", "file"),
        ("a/above", "file"),
        ("around", "file"),
        ("within/file", "a/b/file"),
        ("within/../above", "file"),
        ("a/b/..", "a"),
        ("", ""),
    ] {
        assert_eq!(real(path).unwrap(), Path::new(expected), "{path}");
    }
    for (path, error) in [
        ("up", Errno::XDEV),
        ("up/root/file", Errno::XDEV),
        ("a/out", Errno::XDEV),
        ("absolute", Errno::XDEV),
        ("..", Errno::XDEV),
        ("loop", Errno::LOOP),
        ("gone", Errno::NOENT),
        ("file/x", Errno::NOTDIR),
        ("file/..", Errno::NOTDIR),
        ("pipe", Errno::INVAL),
    ] {
        assert_eq!(real(path).unwrap_err().raw_os_error(), Some(error.raw_os_error()), "{path}");
    }
    for hidden in ["a/b", "within", "around"] {
        assert_eq!(follow(hidden).unwrap_err().kind(), io::ErrorKind::NotFound, "{hidden}");
    }
    assert!(matches!(follow("a").unwrap().what, What::Folder(_)));
    assert!(matches!(follow("a/above").unwrap().what, What::File(_)));
}
