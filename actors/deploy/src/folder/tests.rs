use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt as _, symlink},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::{
    fcntl::OFlag,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::Mode,
    },
};

use super::*;

const OTHER: RunAs = RunAs { uid: 65_534, gid: 65_534 };

/// A folder to work in, and beside it what must not change.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("outside/inner")).unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        for file in ["outside/canary", "outside/inner/canary"] {
            fs::write(folder.path().join(file), "0123456789").unwrap();
        }
        Self { folder }
    }

    fn path(&self, inner: &str) -> PathBuf {
        self.folder.path().join(inner)
    }

    /// Asserts that nothing outside was touched.
    fn check(&self) {
        for file in ["outside", "outside/inner", "outside/canary", "outside/inner/canary"] {
            let metadata = fs::symlink_metadata(self.path(file)).unwrap();
            assert_eq!(metadata.uid(), nix::unistd::geteuid().as_raw(), "{file}");
        }
        assert_eq!(fs::read_to_string(self.path("outside/canary")).unwrap(), "0123456789");
    }
}

/// Creates nested folders: deeper than any path and any stack can express.
fn nest(folder: &Path, depth: usize) {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY;
    let mut here = nix::fcntl::open(folder, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        nix::sys::stat::mkdirat(&here, "d", Mode::S_IRWXU).unwrap();
        here = nix::fcntl::openat(&here, "d", flags, Mode::empty()).unwrap();
    }
    let mut file = File::from(nix::fcntl::openat(&here, "f", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRWXU).unwrap());
    io::Write::write_all(&mut file, b"deep").unwrap();
}

/// Runs on a small stack, with few descriptors.
fn in_little_room(body: impl FnOnce() + Send + 'static) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Of this process, which runs only this test.
    setrlimit(Resource::RLIMIT_NOFILE, 256, most).unwrap();
    thread::Builder::new().stack_size(512 * 1024).spawn(body).unwrap().join().unwrap();
}

#[test]
fn folders_ten_thousand_deep_are_measured_given_and_removed() {
    let bench = Bench::new();
    let folder = bench.path("work");
    nest(&folder, 10_000);
    in_little_room(move || {
        assert_eq!(measure(&folder, u64::MAX, u64::MAX), Size { bytes: 4, entries: 10_001 });
        if nix::unistd::geteuid().is_root() {
            give(&folder, OTHER).unwrap();
            assert_eq!(fs::metadata(&folder).unwrap().uid(), OTHER.uid);
        }
        remove(&folder).unwrap();
        assert!(!folder.exists());
    });
}

#[test]
fn links_are_measured_given_and_removed_themselves() {
    let bench = Bench::new();
    symlink("../outside", bench.path("work/folder")).unwrap();
    symlink("../outside/canary", bench.path("work/file")).unwrap();
    let work = bench.path("work");
    assert_eq!(measure(&work, u64::MAX, u64::MAX), Size { bytes: 0, entries: 2 });
    if nix::unistd::geteuid().is_root() {
        give(&work, OTHER).unwrap();
        assert_eq!(fs::symlink_metadata(work.join("file")).unwrap().uid(), OTHER.uid);
    }
    remove(&work).unwrap();
    assert!(!work.exists());
    bench.check();
}

#[test]
fn a_link_in_the_place_of_a_folder_is_not_taken_for_it() {
    let bench = Bench::new();
    let link = bench.path("link");
    symlink(bench.path("outside"), &link).unwrap();
    assert_eq!(measure(&link, u64::MAX, u64::MAX), Size::default());
    for refused in [give(&link, OTHER), give_once(&link, OTHER), make_private(&link, &["inner"], None)] {
        refused.unwrap_err();
    }
    remove(&link).unwrap();
    assert!(fs::symlink_metadata(&link).is_err());
    bench.check();
}

#[test]
fn a_file_with_another_name_elsewhere_is_not_given_away() {
    let bench = Bench::new();
    fs::hard_link(bench.path("outside/canary"), bench.path("work/stolen")).unwrap();
    let error = give(&bench.path("work"), OTHER).unwrap_err();
    assert!(error.to_string().contains("stolen has another name"), "{error}");
    bench.check();
    remove(&bench.path("work")).unwrap();
    bench.check();
}

#[test]
fn what_is_not_there_is_removed_already_and_a_file_is_removed_too() {
    let bench = Bench::new();
    remove(&bench.path("work/gone")).unwrap();
    remove(&bench.path("gone/gone")).unwrap();
    fs::write(bench.path("work/file"), "").unwrap();
    remove(&bench.path("work/file")).unwrap();
    assert!(!bench.path("work/file").exists());
}

#[test]
fn what_its_owner_made_unreadable_is_removed() {
    let bench = Bench::new();
    let shut = bench.path("work/a/b/shut");
    fs::create_dir_all(&shut).unwrap();
    fs::write(shut.join("file"), "").unwrap();
    if nix::unistd::geteuid().is_root() {
        give(&bench.path("work"), OTHER).unwrap();
        fs::set_permissions(bench.folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        // Of this process, which runs only this test: root may write everywhere.
        nix::unistd::seteuid(OTHER.uid.into()).unwrap();
    }
    for folder in [shut.as_path(), &bench.path("work/a")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o0)).unwrap();
    }
    let removed = remove(&bench.path("work"));
    nix::unistd::seteuid(nix::unistd::getuid()).unwrap();
    removed.unwrap();
    assert!(!bench.path("work").exists());
}

#[test]
fn a_home_is_made_for_a_user_alone() {
    let bench = Bench::new();
    let user = nix::unistd::geteuid().is_root().then_some(OTHER);
    make_private(&bench.path("work/scratch"), &["home", "tmp"], user).unwrap();
    for inner in ["scratch", "scratch/home", "scratch/tmp"] {
        let metadata = fs::metadata(bench.path("work").join(inner)).unwrap();
        let owner = user.map_or(nix::unistd::geteuid().as_raw(), |user| user.uid);
        assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (owner, 0o700), "{inner}");
    }
}

/// Exchanges a folder of the tree for a link to the outside, again and again, while `act` runs.
fn while_exchanging(bench: &Bench, place: &str, act: impl FnOnce()) {
    let (place, away, link) = (bench.path(place), bench.path("away"), bench.path("link"));
    symlink(bench.path("outside"), &link).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let exchanger = thread::spawn({
        let done = done.clone();
        // Once the tree is removed there is nothing left to exchange.
        move || {
            while !done.load(Ordering::Relaxed) {
                drop(fs::rename(&place, &away));
                drop(fs::rename(&link, &place));
                drop(fs::rename(&place, &link));
                drop(fs::rename(&away, &place));
            }
        }
    });
    act();
    done.store(true, Ordering::Relaxed);
    exchanger.join().unwrap();
}

fn fill(folder: &Path) {
    for inner in ["a/inner", "b/inner", "c/inner"] {
        fs::create_dir_all(folder.join(inner)).unwrap();
        fs::write(folder.join(inner).join("canary"), "0123456789").unwrap();
        fs::write(folder.join(inner).join("../canary"), "0123456789").unwrap();
    }
}

#[test]
fn nothing_outside_is_removed_while_folders_are_exchanged_for_links() {
    for round in 0..300 {
        let bench = Bench::new();
        let work = bench.path("work");
        fill(&work);
        let place = ["work/b", "work/b/inner"][round % 2];
        while_exchanging(&bench, place, || remove(&work).unwrap());
        bench.check();
    }
}

#[test]
fn nothing_outside_is_measured_while_folders_are_exchanged_for_links() {
    let bench = Bench::new();
    let work = bench.path("work");
    fill(&work);
    fs::write(bench.path("outside/large"), vec![0; 1_000_000]).unwrap();
    while_exchanging(&bench, "work/b", || {
        for _ in 0..3_000 {
            let size = measure(&work, u64::MAX, u64::MAX);
            assert!(size.bytes <= 60, "{size:?}");
        }
    });
}
