use std::{
    os::{fd::AsFd as _, unix::fs::symlink},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use callboard_supervisors::BlockingPool;
use tokio_util::sync::CancellationToken;

use super::{
    receive::{ReceiveError, receive},
    write::{Order, WriteError, pack_to, write},
    *,
};
use crate::{
    build::executor::{BuildLimits, BuildSettings},
    folder::Dir,
    process::{
        Launcher,
        trampoline::{RunAs, tests::test_launcher},
    },
};

/// The packing child for this crate's tests: the test binary itself. The harness's output goes to standard error, and
/// the tar to its descriptor, which is the pipe.
pub(crate) fn test_packer() -> Vec<String> {
    let script = "exec 3>&1 1>&2 2>&3 3>&-; exec \"$@\"";
    let binary = std::env::current_exe().unwrap().display().to_string();
    let entry = "build::package::tests::packer";
    ["/bin/sh", "-c", script, "pack", &binary, "--exact", "--nocapture", "--test-threads=1", "--", entry]
        .map(str::to_owned)
        .to_vec()
}

#[test]
fn packer() {
    // The trampoline's process has these arguments too, behind its own, and runs this test before it becomes the child.
    if std::env::args().any(|argument| argument.starts_with("{\"open_files")) {
        return;
    }
    let orders = std::env::args().find(|argument| argument.starts_with("{\"root\""));
    let Some(order) = orders else { return }; // run as a test
    let order: Order = serde_json::from_str(&order).unwrap();
    let status = match pack_to(&order.root, order.only.as_deref(), std::io::stderr().as_fd()) {
        Ok(()) => 0,
        Err(error) => {
            println!("\n{error}");
            1
        }
    };
    std::process::exit(status);
}

/// Packs in this process, without a child.
pub(crate) fn pack(folder: &Path, target: &Path) -> Result<Packed, String> {
    let source = Dir::open(folder).unwrap();
    let (from, to) = std::io::pipe().unwrap();
    let parent = target.parent().unwrap().to_owned();
    let receiver = thread::spawn(move || receive(from, &parent, &BuildLimits::default()));
    let written = write(&source, Path::new(""), None, to).map(drop);
    let received = receiver.join().unwrap();
    written.map_err(|error| error.to_string())?;
    received.map_err(|error| error.to_string())?.keep(target).map_err(|error| error.to_string())
}

fn app(folder: &Path) {
    fs::create_dir_all(folder.join("b/c")).unwrap();
    fs::create_dir_all(folder.join(".git")).unwrap();
    fs::write(folder.join("b/c").join("long-".repeat(40)), "deep").unwrap();
    fs::write(folder.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(folder.join("run"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("/usr/bin/python3", folder.join("python")).unwrap();
    symlink("b/c", folder.join("a")).unwrap();
}

#[test]
fn the_same_files_make_the_same_release() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("1"), folder.path().join("2"));
    app(&one);
    app(&two);
    fs::write(two.join(".git/config"), "differs").unwrap();
    let first = pack(&one, &folder.path().join("1.tar.gz")).unwrap();
    let second = pack(&two, &folder.path().join("2.tar.gz")).unwrap();
    assert_eq!(first, second);
    assert_eq!(fs::read(folder.path().join("1.tar.gz")).unwrap(), fs::read(folder.path().join("2.tar.gz")).unwrap());
    assert_eq!(first.entries, 6);
    fs::write(two.join("run"), "#!/bin/dash").unwrap();
    assert_ne!(pack(&two, &folder.path().join("2.tar.gz")).unwrap().id, first.id);
}

#[test]
fn a_release_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("release.tar.gz");
    app(&folder.path().join("app"));
    let packed = pack(&folder.path().join("app"), &file).unwrap();
    let target = folder.path().join("releases/x");
    assert_eq!(unpack(&file, &target, &packed.id).unwrap().bytes, packed.bytes);
    assert_eq!(fs::read_link(target.join("python")).unwrap(), Path::new("/usr/bin/python3"));
    assert_eq!(fs::read_to_string(target.join("a").join("long-".repeat(40))).unwrap(), "deep");
    assert_eq!(fs::metadata(target.join("run")).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(pack(&target, &folder.path().join("again")).unwrap().id, packed.id);
    assert_eq!(fs::read_dir(folder.path().join("releases")).unwrap().count(), 1, "no work in progress is left");
}

#[test]
fn a_damaged_release_is_not_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("release.tar.gz");
    app(&folder.path().join("app"));
    pack(&folder.path().join("app"), &file).unwrap();
    let other: ContentId = "0".repeat(64).parse().unwrap();
    let error = unpack(&file, &folder.path().join("out"), &other).unwrap_err();
    assert!(matches!(error, PackageError::Damaged { .. }));
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(unpack(&file, &folder.path().join("out"), &other).is_err());
    assert!(!folder.path().join("out").exists());
}

#[test]
fn sockets_and_pipes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("app")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("app/s")).unwrap();
    let error = pack(&folder.path().join("app"), &folder.path().join("out")).unwrap_err();
    assert!(error.contains("`s` is a device, pipe or socket"), "{error}");
    assert!(!folder.path().join("out").exists());
}

/// Runs a function before the first byte is written.
struct Before<F>(Option<F>);

impl<F: FnOnce()> Write for Before<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(act) = self.0.take() {
            act();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Packs a folder with the files `a` and `b` in it, and changes it after `a` was opened and before it is read.
fn changed(act: impl FnOnce(&Path)) -> WriteError {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "0123456789").unwrap();
    fs::write(folder.path().join("b"), "0123456789").unwrap();
    let source = Dir::open(folder.path()).unwrap();
    write(&source, Path::new(""), None, Before(Some(|| act(folder.path())))).map(drop).unwrap_err()
}

#[test]
fn a_file_that_changes_while_it_is_packed_is_told() {
    let shorter = changed(|folder| fs::write(folder.join("a"), "0123").unwrap());
    let longer = changed(|folder| fs::write(folder.join("a"), "0123456789+").unwrap());
    for error in [shorter, longer] {
        assert!(matches!(&error, WriteError::Changed(path) if path == "a"), "{error}");
    }
    for error in [
        changed(|folder| fs::remove_file(folder.join("b")).unwrap()),
        changed(|folder| {
            fs::remove_file(folder.join("b")).unwrap();
            symlink("/etc/passwd", folder.join("b")).unwrap();
        }),
        changed(|folder| {
            fs::remove_file(folder.join("b")).unwrap();
            nix::unistd::mkfifo(&folder.join("b"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
    ] {
        assert!(matches!(&error, WriteError::Changed(path) if path == "b"), "{error}");
    }
}

const CANARY: &str = "what only the node may read";

/// A source with an app in `apps/web`, and beside it files that no release may hold, under the names of the app's
/// files.
struct Lure {
    folder: tempfile::TempDir,
}

impl Lure {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (inner, text) in [("source/apps/web", "the app"), ("outside/web", CANARY)] {
            fs::create_dir_all(folder.path().join(inner)).unwrap();
            fs::write(folder.path().join(inner).join("file"), text).unwrap();
        }
        Self { folder }
    }

    fn path(&self, inner: &str) -> std::path::PathBuf {
        self.folder.path().join(inner)
    }

    fn source(&self) -> Dir {
        Dir::open(&self.path("source")).unwrap()
    }

    /// Packs the app. Returns the tar as text.
    fn pack(source: &Dir) -> Result<String, String> {
        let tar = write(source, Path::new("apps/web"), None, Vec::new()).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(tar).unwrap())
    }
}

#[test]
fn a_link_in_the_place_of_the_apps_folder_or_above_it_is_not_followed() {
    for (replaced, target) in [("source/apps/web", "outside/web"), ("source/apps", "outside")] {
        let lure = Lure::new();
        let source = lure.source();
        assert!(Lure::pack(&source).unwrap().contains("the app"));
        fs::rename(lure.path(replaced), lure.path("source/away")).unwrap();
        symlink(lure.path(target), lure.path(replaced)).unwrap();
        let error = Lure::pack(&source).unwrap_err();
        assert!(error.starts_with("`apps/web` can't be packed"), "{error}");
    }
}

/// Rounds of a race: with look-ups by path each of these was lost a hundred times over.
const RACES: usize = 3_000;

#[test]
fn links_that_come_and_go_while_it_is_packed_are_not_followed() {
    for (replaced, target) in
        [("source/apps/web/file", "outside/web/file"), ("source/apps/web", "outside/web"), ("source/apps", "outside")]
    {
        let lure = Lure::new();
        let source = lure.source();
        let (link, away, place) = (lure.path("link"), lure.path("away"), lure.path(replaced));
        symlink(lure.path(target), &link).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let exchanger = thread::spawn({
            let done = done.clone();
            move || {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(&place, &away).unwrap();
                    fs::rename(&link, &place).unwrap();
                    fs::rename(&place, &link).unwrap();
                    fs::rename(&away, &place).unwrap();
                }
            }
        });
        let (mut raced, mut packed) = (0, 0);
        // On a busy machine the other thread may be paused for long in the middle of an exchange.
        let deadline = Instant::now() + Duration::from_secs(60);
        while raced < RACES || (packed == 0 && Instant::now() < deadline) {
            raced += 1;
            if let Ok(release) = Lure::pack(&source) {
                assert!(!release.contains(CANARY), "a release holds what is outside: {replaced}");
                packed += 1;
            }
        }
        done.store(true, Ordering::Relaxed);
        exchanger.join().unwrap();
        assert!(packed > 0, "the race was never won: {replaced}");
    }
}

#[test]
fn what_could_not_be_unpacked_is_not_packed() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |what: &str| {
        let error = pack(&folder.path().join("app"), &folder.path().join("out")).unwrap_err();
        assert!(error.contains(what), "{error}");
        fs::remove_dir_all(folder.path().join("app")).unwrap();
    };
    fs::create_dir_all(folder.path().join("app").join("d/".repeat(DEPTH + 1))).unwrap();
    refused("is too long");
    fs::create_dir(folder.path().join("app")).unwrap();
    fs::write(folder.path().join("app/a\\b"), "").unwrap();
    refused("a name that a release can't hold");
}

fn tar_of(kind: tar::EntryType) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    builder.append_data(&mut header, "entry", io::empty()).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn what_is_no_release_is_not_received() {
    let folder = tempfile::tempdir().unwrap();
    let take = |bytes: &[u8], limits: &BuildLimits| receive(bytes, folder.path(), limits).map(drop);
    let (limits, good) = (BuildLimits::default(), tar_of(tar::EntryType::Directory));
    take(&good, &limits).unwrap();
    let long = [&good[..], b"more"].concat();
    let odd = [tar::EntryType::Char, tar::EntryType::Link, tar::EntryType::XHeader, tar::EntryType::Fifo].map(tar_of);
    for bytes in [&good[..700], &long, b"no tar at all"].into_iter().chain(odd.iter().map(Vec::as_slice)) {
        let error = take(bytes, &limits).unwrap_err();
        assert!(matches!(error, ReceiveError::Malformed(_)), "{error}");
    }
    let error = take(&good, &BuildLimits { entries: 0, ..BuildLimits::default() }).unwrap_err();
    assert!(matches!(error, ReceiveError::TooLarge(_)), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something of it was kept");
}

/// Packs the app by a child of this user, from which the folder around the source is hidden.
async fn pack_by_child(lure: &Lure, source: Dir, run_as: Option<RunAs>) -> Result<Packed, PackageError> {
    let launcher = Launcher::new(test_launcher(), uuid::Uuid::now_v7().to_string());
    let launcher = launcher.hiding([lure.folder.path().canonicalize().unwrap()]);
    let settings = BuildSettings { run_as, ..BuildSettings::new(launcher, test_packer()) };
    let path = lure.path("source").canonicalize().unwrap();
    let packing =
        Packing { source, path: &path, root: Path::new("apps/web"), only: None, target: lure.path("release.tar.gz") };
    super::pack_by_child(packing, &settings, &BlockingPool::new("test", 1, 1), &CancellationToken::new()).await
}

#[tokio::test]
async fn a_release_is_packed_by_a_child() {
    let lure = Lure::new();
    let packed = pack_by_child(&lure, lure.source(), None).await.unwrap();
    assert_eq!((packed.entries, packed.bytes), (1, 7));
    assert_eq!(content_id(&lure.path("release.tar.gz")).unwrap(), packed.id);
    assert_eq!(pack(&lure.path("source/apps/web"), &lure.path("again")).unwrap(), packed);
    fs::remove_dir_all(lure.path("source/apps/web")).unwrap();
    let error = pack_by_child(&lure, lure.source(), None).await.unwrap_err();
    assert!(error.to_string().starts_with("`apps/web` can't be packed: the build has removed it"), "{error}");
}

#[tokio::test]
async fn the_child_can_open_nothing_that_is_hidden_from_the_build() {
    if !crate::process::trampoline::can_hide() {
        eprintln!("this kernel knows no Landlock; nothing is tested");
        return;
    }
    let lure = Lure::new();
    fs::create_dir_all(lure.path("outside/apps/web")).unwrap();
    // As if packing had been led out of the source.
    let elsewhere = Dir::open(&lure.path("outside")).unwrap();
    let error = pack_by_child(&lure, elsewhere, None).await.unwrap_err();
    assert!(error.to_string().contains("can't be read"), "{error}");
}

#[tokio::test]
async fn a_file_of_another_user_is_not_packed_by_any_of_its_names() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root runs children as somebody else; nothing is tested");
        return;
    }
    let lure = Lure::new();
    fs::set_permissions(lure.folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(lure.path("outside/web/file"), fs::Permissions::from_mode(0o600)).unwrap();
    let nobody = Some(RunAs { uid: 65_534, gid: 65_534 });
    pack_by_child(&lure, lure.source(), nobody).await.unwrap();
    fs::hard_link(lure.path("outside/web/file"), lure.path("source/apps/web/stolen")).unwrap();
    let error = pack_by_child(&lure, lure.source(), nobody).await.unwrap_err();
    assert!(error.to_string().starts_with("`stolen` can't be read"), "{error}");
}
