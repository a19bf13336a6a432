//! A small file system of a test's own, which can be full.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// A tmpfs. It is unmounted when it is dropped.
pub struct Volume(PathBuf);

impl Volume {
    /// Mounts one at a folder, which is made. None where the system does not let a test mount: only root may.
    pub fn mount(at: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "callboard-test"]).arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.to_owned()))
    }

    /// Leaves no byte of room.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        let chunk = vec![1_u8; 1 << 20];
        for size in [chunk.len(), 4096] {
            let error = loop {
                if let Err(error) = file.write_all(&chunk[..size]) {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        }
    }

    /// Gives the room back.
    pub fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: what was killed a moment ago may still have it as its working folder.
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.0.display());
        }
    }
}
