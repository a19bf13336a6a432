//! The trash: removes folders in the background.
//!
//! Removing a folder of a hundred thousand files takes minutes. So it is moved into the trash of the same disk, which
//! is one call whatever is in it; a thread of its own empties the trash.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use callboard_supervisors::fs;
use uuid::Uuid;

use crate::{
    folder,
    pools::{self, Pools},
};

/// The trash of a disk. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trash {
    folder: Arc<Path>,
    pools: Pools,
    /// Whether a removal is queued that has not begun.
    called: Arc<AtomicBool>,
}

impl Trash {
    /// A trash in `folder`, which is created when it is needed, for folders on the same disk.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, pools: Pools) -> Self {
        Self { folder: folder.into().into(), pools, called: Arc::default() }
    }

    /// Moves a folder or file into the trash; it need not exist. Its space is freed later.
    ///
    /// # Errors
    /// When it can't be moved; it stays where it was then.
    pub async fn discard(&self, path: impl Into<PathBuf>) -> io::Result<()> {
        let (path, trash) = (path.into(), self.folder.clone());
        pools::io(&self.pools.prompt, move || take(&path, &trash)).await?;
        self.empty();
        Ok(())
    }

    /// The same for whoever can't wait. What can't be moved is logged, and found by the next start of the node.
    pub fn discard_soon(&self, path: PathBuf) {
        let (trash, folder) = (self.clone(), self.folder.clone());
        let begun = self.pools.prompt.begin(move || match take(&path, &folder) {
            Ok(()) => trash.empty(),
            Err(error) => tracing::warn!(path = %path.display(), %error, "moving a folder into the trash failed"),
        });
        if let Err(failure) = begun {
            tracing::warn!(%failure, "moving a folder into the trash failed");
        }
    }

    /// Begins to remove its content, also that of an earlier run of the node.
    pub fn empty(&self) {
        if self.called.swap(true, Ordering::AcqRel) {
            return;
        }
        let (trash, called) = (self.folder.clone(), self.called.clone());
        let begun = self.pools.removals.begin(move || {
            // A discard from now on queues another removal.
            called.store(false, Ordering::Release);
            empty(&trash);
        });
        if begun.is_err() {
            self.called.store(false, Ordering::Release);
        }
    }
}

fn take(path: &Path, trash: &Path) -> io::Result<()> {
    let place = trash.join(Uuid::now_v7().to_string());
    let mut taken = fs::rename(path, &place);
    if matches!(&taken, Err(error) if error.kind() == io::ErrorKind::NotFound) {
        if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(());
        }
        match folder::make_private(trash, &[], None) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        taken = fs::rename(path, &place);
    }
    if matches!(&taken, Err(error) if error.kind() == io::ErrorKind::PermissionDenied) {
        // A folder whose owner, the node's own user, has no rights to it can't be moved.
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
        taken = fs::rename(path, &place);
    }
    taken
}

fn empty(trash: &Path) {
    for entry in fs::read_dir(trash).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder { folder::remove(&path) } else { fs::remove_file(&path) };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "emptying the trash failed");
        }
    }
}
