use std::{
    fs,
    io::{Cursor, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;
use zip::{ZipWriter, write::SimpleFileOptions};

use super::*;

/// One entry of an archive, with any name, also one that no tool would write.
enum Entry<'a> {
    File(&'a str, &'a [u8]),
    Mode(&'a str, u32),
    Folder(&'a str),
    Link(&'a str, &'a str),
    HardLink(&'a str, &'a str),
    Special(&'a str, EntryType),
}

use Entry::{File as Text, Folder, HardLink, Link, Mode, Special};

fn header(name: &str, kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_cksum();
    header
}

fn tarball(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    for entry in entries {
        let (mut header, bytes, link) = match entry {
            Text(name, bytes) => (header(name, EntryType::Regular, bytes.len() as u64, 0o644), *bytes, None),
            Mode(name, mode) => (header(name, EntryType::Regular, 0, *mode), &b""[..], None),
            Folder(name) => (header(name, EntryType::Directory, 0, 0o755), &b""[..], None),
            Link(name, target) => (header(name, EntryType::Symlink, 0, 0o777), &b""[..], Some(target)),
            HardLink(name, target) => (header(name, EntryType::Link, 0, 0o644), &b""[..], Some(target)),
            Special(name, kind) => (header(name, *kind, 0, 0o644), &b""[..], None),
        };
        if let Some(target) = link {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_cksum();
        }
        builder.append(&header, bytes).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn zipped(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    for entry in entries {
        match entry {
            Text(name, bytes) => {
                writer.start_file(*name, options).unwrap();
                writer.write_all(bytes).unwrap();
            }
            Mode(name, mode) => writer.start_file(*name, options.unix_permissions(*mode)).unwrap(),
            Folder(name) => writer.add_directory(*name, options).unwrap(),
            Link(name, target) => writer.add_symlink(*name, *target, options).unwrap(),
            HardLink(..) | Special(..) => unreachable!("a zip has none"),
        }
    }
    writer.finish().unwrap().into_inner()
}

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("inner/out")
    }

    fn unpack(&self, archive: &[u8], limits: &Limits) -> Result<Summary, ArchiveError> {
        let file = self.folder.path().join("archive");
        fs::write(&file, archive).unwrap();
        unpack(&file, &self.out(), limits)
    }

    /// Unpacks what must be refused, and asserts that nothing was left, inside or outside.
    fn refuse(&self, archive: &[u8], limits: &Limits) -> ArchiveError {
        let error = self.unpack(archive, limits).unwrap_err();
        assert!(error.is_refusal(), "{error}");
        assert!(!self.out().exists(), "something was left after: {error}");
        let inner = fs::read_dir(self.folder.path().join("inner")).map_or(0, Iterator::count);
        assert!(inner == 0 && fs::read_dir(self.folder.path()).unwrap().count() <= 2, "written outside: {error}");
        error
    }
}

macro_rules! assert_refused {
    ($bytes:expr, $limits:expr, $pattern:pat) => {{
        let error = Bench::new().refuse(&$bytes, &$limits);
        assert!(matches!(error, $pattern), "{error:?}");
    }};
    ($bytes:expr, $pattern:pat) => {
        assert_refused!($bytes, Limits::default(), $pattern)
    };
}

fn honest() -> Vec<Entry<'static>> {
    vec![
        Folder("app/"),
        Text("app/index.html", b"<h1>hello</h1>"),
        Mode("app/bin/run", 0o755),
        Text("./app/a/b/c.txt", b"deep"),
        Link("app/current", "a/b"),
        Link("app/a/up", "../index.html"),
        Link("app/dangling", "nowhere/at/all"),
    ]
}

#[test]
fn honest_archives_are_unpacked_from_both_formats() {
    for bytes in [tarball(&honest()), zipped(&honest())] {
        let bench = Bench::new();
        let summary = bench.unpack(&bytes, &Limits::default()).unwrap();
        assert_eq!(summary.bytes, 18);
        let app = bench.out().join("app");
        assert_eq!(fs::read_to_string(app.join("index.html")).unwrap(), "<h1>hello</h1>");
        assert_eq!(fs::read_to_string(app.join("current/c.txt")).unwrap(), "deep");
        assert_eq!(fs::read_to_string(app.join("a/up")).unwrap(), "<h1>hello</h1>");
        assert_eq!(fs::metadata(app.join("bin/run")).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::metadata(app.join("index.html")).unwrap().permissions().mode() & 0o7777, 0o644);
    }
}

#[test]
fn archives_of_the_systems_own_tools_are_unpacked() {
    let source = tempfile::tempdir().unwrap();
    let long = "long-".repeat(30);
    fs::create_dir_all(source.path().join(&long)).unwrap();
    fs::write(source.path().join(&long).join("file-ö.txt"), "x").unwrap();
    for format in ["--format=gnu", "--format=posix", "--format=ustar"] {
        let output =
            std::process::Command::new("tar").args([format, "-cz", "-C"]).arg(source.path()).arg(".").output().unwrap();
        if format == "--format=ustar" && !output.status.success() {
            continue; // ustar splits long names at slashes only
        }
        let bench = Bench::new();
        bench.unpack(&output.stdout, &Limits::default()).unwrap();
        assert_eq!(fs::read_to_string(bench.out().join(&long).join("file-ö.txt")).unwrap(), "x", "{format}");
    }
}

#[test]
fn paths_out_of_the_folder_are_refused() {
    for name in ["../evil", "a/../../evil", "/etc/evil", "a/..", "..", "//evil", "./../evil"] {
        assert_refused!(tarball(&[Text(name, b"x")]), ArchiveError::LeavesFolder(_));
        assert_refused!(zipped(&[Text(name, b"x")]), ArchiveError::LeavesFolder(_));
        assert_refused!(tarball(&[Folder(name)]), ArchiveError::LeavesFolder(_));
        assert_refused!(tarball(&[Link(name, "x")]), ArchiveError::LeavesFolder(_));
    }
}

#[test]
fn links_out_of_the_folder_are_refused() {
    for target in ["/etc/passwd", "../x", "../../etc", "a/../../x", "..", "/"] {
        assert_refused!(tarball(&[Folder("a"), Link("l", target)]), ArchiveError::Link(LinkError::LeavesFolder { .. }));
        assert_refused!(zipped(&[Folder("a"), Link("l", target)]), ArchiveError::Link(LinkError::LeavesFolder { .. }));
    }
}

#[test]
fn links_that_leave_only_through_other_links_are_refused() {
    // By its text `x` stays inside; the file system would follow `s/d` to the root first.
    let bytes = tarball(&[Folder("s"), Link("s/d", ".."), Link("x", "s/d/..")]);
    assert_refused!(bytes, ArchiveError::Link(LinkError::LeavesFolder { .. }));
    let bytes = tarball(&[Link("x", "s/d/../secret"), Folder("s"), Link("s/d", "..")]);
    assert_refused!(bytes, ArchiveError::Link(LinkError::LeavesFolder { .. }));
    let bytes = tarball(&[Link("a", "b"), Link("b", "a")]);
    assert_refused!(bytes, ArchiveError::Link(LinkError::Loop { .. }));
}

#[test]
fn nothing_is_written_through_a_link() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().display().to_string();
    for bytes in [
        tarball(&[Link("l", &target), Text("l/evil", b"x")]),
        zipped(&[Link("l", &target), Text("l/evil", b"x")]),
        tarball(&[Folder("d"), Link("l", "d"), Text("l/evil", b"x")]),
    ] {
        assert_refused!(bytes, ArchiveError::ThroughLink { .. });
    }
    assert_refused!(tarball(&[Link("l", &target), Text("l", b"x")]), ArchiveError::Duplicate(_));
    assert_refused!(tarball(&[Text("f", b"x"), Text("f/evil", b"x")]), ArchiveError::ThroughLink { .. });
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn hard_links_reach_earlier_files_only() {
    let bench = Bench::new();
    bench.unpack(&tarball(&[Text("a", b"x"), HardLink("b", "a")]), &Limits::default()).unwrap();
    assert_eq!(fs::read_to_string(bench.out().join("b")).unwrap(), "x");
    assert_refused!(tarball(&[HardLink("b", "/etc/passwd")]), ArchiveError::LeavesFolder(_));
    assert_refused!(tarball(&[HardLink("b", "../x")]), ArchiveError::LeavesFolder(_));
    assert_refused!(tarball(&[HardLink("b", "later"), Text("later", b"")]), ArchiveError::BadHardLink { .. });
    assert_refused!(tarball(&[Link("l", "/etc/passwd"), HardLink("b", "l")]), ArchiveError::BadHardLink { .. });
    assert_refused!(tarball(&[HardLink("b", "b")]), ArchiveError::BadHardLink { .. });
}

#[test]
fn devices_and_pipes_are_refused() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        assert_refused!(tarball(&[Special("dev", kind)]), ArchiveError::Special { .. });
    }
    assert_refused!(tarball(&[Special("odd", EntryType::new(b'Q'))]), ArchiveError::Unsupported { .. });
    assert_refused!(tarball(&[Special("odd", EntryType::GNUSparse)]), ArchiveError::Unsupported { .. });
}

#[test]
fn the_same_path_twice_is_refused() {
    for second in ["a/f", "./a/f", "a//f"] {
        assert_refused!(tarball(&[Text("a/f", b"1"), Text(second, b"2")]), ArchiveError::Duplicate(_));
    }
    assert_refused!(tarball(&[Text("f", b"1"), Folder("f")]), ArchiveError::Duplicate(_));
    assert_refused!(tarball(&[Folder("f"), Text("f", b"1")]), ArchiveError::Duplicate(_));
    assert_refused!(zipped(&[Text("a/f", b"1"), Text("./a/f", b"2")]), ArchiveError::Duplicate(_));
    let bench = Bench::new();
    bench.unpack(&tarball(&[Folder("a"), Folder("a/"), Text("a/f", b"")]), &Limits::default()).unwrap();
}

#[test]
fn names_of_all_alphabets_arrive_as_they_are() {
    // The same to the eye, composed and decomposed: two files, as the machine that sent them has them.
    let names = ["caf\u{e9}.html", "cafe\u{301}.html", "🎉/🚀.txt", "日本語.md"];
    let entries: Vec<Entry<'_>> = names.iter().map(|name| Text(name, name.as_bytes())).collect();
    for archive in [tarball(&entries), zipped(&entries)] {
        let bench = Bench::new();
        bench.unpack(&archive, &Limits::default()).unwrap();
        for name in names {
            assert_eq!(fs::read_to_string(bench.out().join(name)).unwrap(), name);
        }
    }
}

#[test]
fn names_that_are_no_paths_are_refused() {
    for name in ["a\\..\\b", "line\nbreak", "bell\u{7}"] {
        assert_refused!(tarball(&[Text(name, b"x")]), ArchiveError::BadName(_));
    }
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    let mut raw = header("x", EntryType::Regular, 0, 0o644);
    raw.as_old_mut().name[..2].copy_from_slice(b"\xff\xfe");
    raw.set_cksum();
    builder.append(&raw, &b""[..]).unwrap();
    assert_refused!(builder.into_inner().unwrap().finish().unwrap(), ArchiveError::BadName(_));
}

#[test]
fn long_paths_are_refused() {
    let long = |name: String| {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        builder.append_data(&mut header, &name, &b""[..]).unwrap();
        builder.into_inner().unwrap().finish().unwrap()
    };
    assert_refused!(long("a".repeat(300)), ArchiveError::PathTooLong { .. });
    assert_refused!(long("a/".repeat(100) + "f"), ArchiveError::PathTooLong { .. });
    assert_refused!(long("abcdefgh/".repeat(200) + "f"), ArchiveError::PathTooLong { .. });
    // A name so long that reading it would fill the memory.
    assert_refused!(long("a/".repeat(100_000)), ArchiveError::Damaged(_));
}

#[test]
fn bounds_hold() {
    let limits = Limits { entries: 10, total_bytes: 1_000, file_bytes: 600, ..Limits::default() };
    let names: Vec<String> = (0..11).map(|index| format!("f{index}")).collect();
    let many: Vec<Entry<'_>> = names.iter().map(|name| Text(name, b"")).collect();
    let (large, half) = ([b'x'; 700], [b'x'; 501]);
    for pack in [tarball, zipped] {
        assert_refused!(pack(&many), limits, ArchiveError::TooManyEntries(10));
        assert_refused!(pack(&[Text("f", &large)]), limits, ArchiveError::FileTooLarge { .. });
        assert_refused!(pack(&[Text("f", &half), Text("g", &half)]), limits, ArchiveError::TooLarge(1_000));
        assert_refused!(
            pack(&[Text("1/2/3/4/5/6/7/8/9/a/b/c", b"")]),
            limits,
            ArchiveError::TooManyEntries(_) | ArchiveError::PathTooLong { .. }
        );
    }
}

#[test]
fn bombs_are_refused_before_they_fill_the_disk() {
    let zeros = vec![0; 40 * 1024 * 1024];
    for pack in [tarball, zipped] {
        assert_refused!(pack(&[Text("zeros", &zeros)]), ArchiveError::Bomb(200));
    }
    let few = vec![0; 5 * 1024 * 1024];
    Bench::new().unpack(&tarball(&[Text("zeros", &few)]), &Limits::default()).unwrap();
}

#[test]
fn what_is_no_archive_is_refused() {
    assert_refused!(b"<html>"[..], ArchiveError::UnknownFormat);
    assert_refused!(b""[..], ArchiveError::UnknownFormat);
    assert_refused!(b"\x1f\x8b\x08garbage"[..], ArchiveError::Damaged(_));
    assert_refused!(b"PK\x03\x04garbage"[..], ArchiveError::Damaged(_));
    assert_refused!(tarball(&[]), ArchiveError::Empty);
    assert_refused!(zipped(&[]), ArchiveError::Empty);
    let mut cut = tarball(&[Text("f", &[7; 100_000]), Text("g", &[8; 100])]);
    cut.truncate(cut.len() / 2);
    assert_refused!(cut, ArchiveError::Damaged(_));
}

#[test]
fn privileges_are_not_unpacked() {
    let bench = Bench::new();
    bench.unpack(&tarball(&[Mode("su", 0o6777)]), &Limits::default()).unwrap();
    assert_eq!(fs::metadata(bench.out().join("su")).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let bench = Bench::new();
    fs::create_dir_all(bench.out()).unwrap();
    fs::write(bench.out().join("mine"), "").unwrap();
    let error = bench.unpack(&tarball(&honest()), &Limits::default()).unwrap_err();
    assert!(matches!(error, ArchiveError::NotEmpty(_)));
    assert!(bench.out().join("mine").exists());
}

#[test]
fn checked_folders_may_have_links_inside_only() {
    let folder = tempfile::tempdir().unwrap();
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
    fs::create_dir(folder.path().join("a")).unwrap();
    link("a", "inside");
    check_links(folder.path()).unwrap();
    link("/etc", "a/outside");
    assert!(matches!(check_links(Path::new(folder.path())), Err(LinkError::LeavesFolder { .. })));
}
