//! The disk of a node's data folder, and whether it is full: one state for the whole process.
//!
//! A write that finds it full reports that ([`Disk::met_full`]), and a thread checks every second how much is free. The
//! disk is full from the first of either until a file could be written there again with some room to spare. Both
//! transitions are logged once, however many writes fail in between.

use std::{
    error::Error,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus::{
    Gauge, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::blocking::fs;

/// Interval of checking the disk.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time without a failed write after which it may have room again: a quota shows itself in writes only.
const CALM: Duration = Duration::from_secs(2);
/// The part of the disk that is reserved, and the largest reserve in bytes.
const RESERVE_PART: u64 = 64;
const RESERVE_AT_MOST: u64 = 64 * 1024 * 1024;
/// Largest reserve of files, where the file system counts them.
const FILES_AT_MOST: u64 = 1024;
/// Content of the file that is written to find out whether there is room.
static PROBE: [u8; 128 * 1024] = [0x55; 128 * 1024];
const PROBE_NAME: &str = ".room";

/// The disk of a folder. Cheap to clone. The default has no folder, and is never full.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    folder: Option<PathBuf>,
    is_full: AtomicBool,
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    /// When a write last found it full.
    met: Instant,
}

/// The room on a disk, as the system reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
    /// Files that may still be created, and in all; zero where they are not counted.
    files: (u64, u64),
}

impl Room {
    /// The room below `folder`.
    ///
    /// # Errors
    /// When the system reports none.
    #[expect(clippy::disallowed_methods, reason = "the kernel knows it without asking the disk")]
    pub fn below(folder: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(folder)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Self { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks), files: (stat.f_favail, stat.f_files) })
    }

    /// Whether less is free than `times` the reserve.
    fn is_below(&self, times: u64) -> bool {
        let (left, files) = self.files;
        self.free < times * (self.total / RESERVE_PART).min(RESERVE_AT_MOST)
            || left < times * (files / RESERVE_PART).min(FILES_AT_MOST)
    }

    /// Whether the reserve is reached, so that a node takes on no work that writes.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.is_below(1)
    }
}

impl Disk {
    /// The disk of `folder`, which must exist. It is checked until the last clone is dropped.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn below(folder: &Path) -> io::Result<Self> {
        let disk = Self::unwatched(folder);
        let watched = Arc::downgrade(&disk.0);
        disk.look(Instant::now());
        thread::Builder::new().name("disk".to_owned()).spawn(move || watch(&watched))?;
        Ok(disk)
    }

    fn unwatched(folder: &Path) -> Self {
        Self(Arc::new(Inner { folder: Some(folder.to_owned()), ..Inner::default() }))
    }

    /// Whether it is full: a node then takes no builds, and says so.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.is_full.load(Ordering::Acquire)
    }

    /// The room now, as the system reports it; `None` without a folder.
    #[must_use]
    pub fn room(&self) -> Option<Room> {
        Room::below(self.0.folder.as_deref()?).ok()
    }

    /// Reports that a write found it full.
    pub fn met_full(&self) {
        self.fill(Instant::now(), "a write found no room");
    }

    /// Whether `error`, or one of its sources, is that of a full disk; reports that.
    pub fn met(&self, error: &(dyn Error + 'static)) -> bool {
        let is_full = tells_no_room(error);
        if is_full {
            self.met_full();
        }
        is_full
    }

    /// Whether the system reports now that the reserve is reached: for an error that does not say why a write failed.
    pub(crate) fn is_used_up(&self) -> bool {
        self.room().is_some_and(|room| room.is_used_up())
    }

    /// Whether it is full, or will be found full at the next check.
    #[must_use]
    pub fn has_no_room(&self) -> bool {
        self.is_full() || self.is_used_up()
    }

    /// Registers its metrics. Once a node.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(DiskMetrics::new(self.clone())?))
    }

    fn fill(&self, now: Instant, why: &str) {
        let Some(folder) = &self.0.folder else { return };
        let mut outage = self.0.outage.lock();
        if let Some(outage) = &mut *outage {
            outage.met = now;
            return;
        }
        *outage = Some(Outage { since: now, met: now });
        self.0.is_full.store(true, Ordering::Release);
        drop(outage);
        let room = self.room();
        tracing::error!(
            folder = %folder.display(),
            free_bytes = room.map(|room| room.free),
            total_bytes = room.map(|room| room.total),
            why,
            "the disk of this node is full: it takes no builds and refuses what would write until there is room; make \
             room there, and it goes on by itself"
        );
    }

    fn look(&self, now: Instant) {
        let room = self.room();
        if room.is_some_and(|room| room.is_used_up()) {
            return self.fill(now, "the system tells so");
        }
        let Some(Outage { since, met }) = *self.0.outage.lock() else { return };
        let is_calm = now.saturating_duration_since(met) >= CALM;
        if !is_calm || room.is_some_and(|room| room.is_below(2)) || self.probe().is_err() {
            return;
        }
        let mut outage = self.0.outage.lock();
        // A write may have found it full since the check.
        if outage.is_none_or(|outage| outage.met != met) {
            return;
        }
        *outage = None;
        self.0.is_full.store(false, Ordering::Release);
        drop(outage);
        let seconds = now.saturating_duration_since(since).as_secs();
        tracing::warn!(seconds, "the disk of this node has room again");
    }

    /// Writes a file and removes it.
    fn probe(&self) -> io::Result<()> {
        let Some(folder) = &self.0.folder else { return Ok(()) };
        let path = folder.join(PROBE_NAME);
        let written =
            fs::open_with(OpenOptions::new().write(true).create(true).truncate(true), &path).and_then(|mut file| {
                io::Write::write_all(&mut file, &PROBE)?;
                file.sync_all()
            });
        fs::remove_file(&path).and(written)
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, which nobody waits for")]
fn watch(disk: &Weak<Inner>) {
    loop {
        thread::sleep(LOOK_EVERY);
        let Some(disk) = disk.upgrade() else { return };
        Disk(disk).look(Instant::now());
    }
}

/// Whether this error, or one of its sources, is that of a full disk or an exceeded quota.
#[must_use]
pub fn tells_no_room(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let below = error.downcast_ref::<io::Error>();
        if matches!(below.map(io::Error::kind), Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        // `source` of an `io::Error` skips the error that it wraps.
        let wrapped = below.and_then(io::Error::get_ref).map(|error| error as &(dyn Error + 'static));
        next = wrapped.or_else(|| error.source());
    }
    false
}

struct DiskMetrics {
    disk: Disk,
    full: Gauge,
    free: Gauge,
}

impl DiskMetrics {
    fn new(disk: Disk) -> Result<Self, prometheus::Error> {
        let full = Opts::new("callboard_disk_full", "1 while the disk below the data folder is full");
        let free = Opts::new("callboard_disk_free_bytes", "What may still be written below the data folder");
        Ok(Self { disk, full: Gauge::with_opts(full)?, free: Gauge::with_opts(free)? })
    }
}

impl Collector for DiskMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [self.full.desc(), self.free.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.full.set(f64::from(u8::from(self.disk.is_full())));
        let mut families = self.full.collect();
        if let Some(room) = self.disk.room() {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            self.free.set(room.free as f64);
            families.extend(self.free.collect());
        }
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn room(free: u64, total: u64, files: (u64, u64)) -> Room {
        Room { free, total, files }
    }

    #[test]
    fn a_small_disk_has_a_small_reserve_and_a_large_one_no_huge_one() {
        const MIB: u64 = 1024 * 1024;
        let small = |free| room(free, 64 * MIB, (0, 0));
        assert!(small(MIB - 1).is_used_up() && !small(MIB).is_used_up());
        let large = |free| room(free, 1 << 50, (0, 0));
        assert!(large(64 * MIB - 1).is_used_up() && !large(64 * MIB).is_used_up());
        assert!(room(0, 0, (0, 0)).free == 0 && !room(0, 0, (0, 0)).is_used_up(), "what has no size is never full");
        let files = |left| room(MIB, MIB, (left, 1 << 40));
        assert!(files(1023).is_used_up() && !files(1024).is_used_up());
        assert!(room(MIB, MIB, (0, 640)).is_used_up() && !room(MIB, MIB, (10, 640)).is_used_up());
    }

    #[test]
    fn it_is_full_from_the_first_write_without_room_until_a_while_after_the_last() {
        let folder = std::env::temp_dir().join(format!("callboard-disk-{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir(&folder).unwrap();
        let disk = Disk::unwatched(&folder);
        assert!(!disk.met(&io::Error::other("something else")) && !disk.is_full());
        let below = io::Error::other(io::Error::from(io::ErrorKind::StorageFull));
        assert!(disk.met(&below) && disk.clone().is_full());
        let first = disk.0.outage.lock().unwrap().met;
        disk.look(first + CALM - Duration::from_millis(1));
        assert!(disk.is_full(), "it may just be that nobody wrote");
        disk.fill(first + CALM, "again");
        disk.look(first + CALM);
        assert!(disk.is_full());
        disk.look(first + 2 * CALM);
        assert!(!disk.is_full());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing is left behind");

        disk.met_full();
        fs::remove_dir(&folder).unwrap();
        disk.look(Instant::now() + CALM);
        assert!(disk.is_full(), "no file can be written there");
    }

    #[test]
    fn it_is_looked_at_no_longer_than_somebody_holds_it() {
        let folder = std::env::temp_dir();
        let disk = Disk::below(&folder).unwrap();
        let watched = Arc::downgrade(&disk.0);
        assert!(disk.room().is_some_and(|room| room.total > 0));
        drop(disk);
        let deadline = Instant::now() + Duration::from_secs(30);
        while watched.strong_count() > 0 {
            assert!(Instant::now() < deadline, "the thread holds it");
            thread::yield_now();
        }
    }
}
