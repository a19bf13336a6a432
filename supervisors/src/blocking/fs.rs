//! File system calls for the threads that may wait for a disk.
//!
//! A shard's thread answers every tenant, so one call that waits for a disk delays all of them. The crates that run on
//! shards use these functions in place of those of `std`, which clippy refuses there (`actors/clippy.toml`). On the
//! thread of a shard each panics in a debug build, and so in every test; a release build logs an error. Calls belong
//! into a [`BlockingPool`](crate::BlockingPool).

#![expect(clippy::disallowed_methods, reason = "the home of these calls: each makes sure that its thread may wait")]

pub use std::fs::Permissions;
use std::{
    cell::Cell,
    fs::{self, DirBuilder, File, Metadata, OpenOptions, ReadDir},
    io::Result,
    os::unix::fs as unix,
    panic::Location,
    path::{Path, PathBuf},
};

thread_local! {
    static HAS_SHARDS: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as running shards, or not.
pub(crate) fn has_shards(shards: bool) {
    HAS_SHARDS.set(shards);
}

/// Asserts that this thread runs no shards, before work that waits for a disk outside of this module.
///
/// # Panics
/// On the thread of a shard, in a debug build.
#[track_caller]
pub fn off_shard() {
    if HAS_SHARDS.get() {
        let at = Location::caller();
        debug_assert!(false, "{at} waits for a disk on the thread of a shard; run it in a BlockingPool");
        tracing::error!(%at, "file system work on the thread of a shard");
    }
}

macro_rules! off_shard {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $out:ty = $call:expr;)*) => {$(
        #[doc = concat!("As `", stringify!($call), "`, on a thread that may wait.")]
        #[track_caller]
        pub fn $name($($argument: $type),*) -> $out {
            off_shard();
            $call
        }
    )*};
}

off_shard! {
    fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> = fs::read(path);
    fn read_to_string(path: impl AsRef<Path>) -> Result<String> = fs::read_to_string(path);
    fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> = fs::write(path, content);
    fn open(path: impl AsRef<Path>) -> Result<File> = File::open(path);
    fn open_with(options: &OpenOptions, path: impl AsRef<Path>) -> Result<File> = options.open(path);

    fn metadata(path: impl AsRef<Path>) -> Result<Metadata> = fs::metadata(path);
    fn symlink_metadata(path: impl AsRef<Path>) -> Result<Metadata> = fs::symlink_metadata(path);
    fn canonicalize(path: impl AsRef<Path>) -> Result<PathBuf> = fs::canonicalize(path);
    fn read_link(path: impl AsRef<Path>) -> Result<PathBuf> = fs::read_link(path);
    fn exists(path: impl AsRef<Path>) -> bool = path.as_ref().exists();
    fn is_file(path: impl AsRef<Path>) -> bool = path.as_ref().is_file();
    fn is_dir(path: impl AsRef<Path>) -> bool = path.as_ref().is_dir();

    fn read_dir(path: impl AsRef<Path>) -> Result<ReadDir> = fs::read_dir(path);
    fn create_dir(path: impl AsRef<Path>) -> Result<()> = fs::create_dir(path);
    fn create_dir_all(path: impl AsRef<Path>) -> Result<()> = fs::create_dir_all(path);
    fn create_dir_with(builder: &DirBuilder, path: impl AsRef<Path>) -> Result<()> = builder.create(path);
    fn remove_dir(path: impl AsRef<Path>) -> Result<()> = fs::remove_dir(path);
    fn remove_dir_all(path: impl AsRef<Path>) -> Result<()> = fs::remove_dir_all(path);
    fn remove_file(path: impl AsRef<Path>) -> Result<()> = fs::remove_file(path);

    fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> = fs::rename(from, to);
    fn hard_link(file: impl AsRef<Path>, link: impl AsRef<Path>) -> Result<()> = fs::hard_link(file, link);
    fn symlink(target: impl AsRef<Path>, link: impl AsRef<Path>) -> Result<()> = unix::symlink(target, link);
    fn set_permissions(path: impl AsRef<Path>, mode: Permissions) -> Result<()> = fs::set_permissions(path, mode);
    fn chown(path: impl AsRef<Path>, user: Option<u32>, group: Option<u32>) -> Result<()> = unix::chown(path, user, group);
    fn lchown(path: impl AsRef<Path>, user: Option<u32>, group: Option<u32>) -> Result<()> = unix::lchown(path, user, group);
}
