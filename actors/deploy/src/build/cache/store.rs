//! The caches of a node: `<project>/<line>/content` with `state.json` beside it, in a folder that only the node writes in.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use callboard_messages::ProjectId;
use callboard_supervisors::fs;
use serde::{Deserialize, Serialize};

use super::{CacheLimits, CacheName, TOOLS, Taken};
use crate::{
    folder::{self, Dir, trash::Trash},
    pools::{self, Pools},
    process::trampoline::RunAs,
};

/// The folder that builds write in.
const CONTENT: &str = "content";
/// What the node knows of it.
const STATE: &str = "state.json";

/// The caches of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Caches {
    folder: PathBuf,
    limits: CacheLimits,
    trash: Trash,
    pools: Pools,
}

/// What the node knows of a cache.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    bytes: u64,
    /// Milliseconds since 1970: the end of the last build that has used it.
    used_at: u64,
}

/// A cache on the disk.
struct Found {
    folder: PathBuf,
    state: State,
}

impl Caches {
    pub(crate) fn new(folder: PathBuf, limits: CacheLimits, trash: Trash, pools: Pools) -> Self {
        Self { folder, limits, trash, pools }
    }

    /// Moves the cache of this name to `into`, a path beside the build's source; an empty one when there is none, or another
    /// build has it. `None` when the node keeps no caches.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) async fn take(&self, name: &CacheName, into: PathBuf, user: Option<RunAs>) -> io::Result<Option<Taken>> {
        if self.limits.app == 0 {
            return Ok(None);
        }
        let (this, name) = (self.clone(), name.clone());
        let taken = pools::io(&self.pools.prompt, move || this.take_now(&name, into, user));
        taken.await.map(Some)
    }

    fn take_now(&self, name: &CacheName, into: PathBuf, user: Option<RunAs>) -> io::Result<Taken> {
        let project = self.project(name.project_id);
        // Those of former generations were cleared, maybe while this node was away.
        let current = format!("{}-", name.generation);
        for entry in fs::read_dir(&project).into_iter().flatten().flatten() {
            if !entry.file_name().to_string_lossy().starts_with(&current) {
                self.trash.discard_soon(entry.path());
            }
        }
        let place = project.join(&name.line);
        match Dir::open(&place.join(CONTENT)) {
            Ok(_) => {
                fs::rename(place.join(CONTENT), &into)?;
                return Ok(Taken { folder: into, is_warm: true });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(folder = %place.display(), %error, "a build cache is no folder; it is removed and not used");
                self.trash.discard_soon(place);
            }
        }
        folder::make_private(&into, &[TOOLS], user)?;
        Ok(Taken { folder: into, is_warm: false })
    }

    /// Moves a cache back after a build, unless it is too large or there is another one by now. Returns a sentence when it
    /// is not kept.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) async fn give_back(&self, name: &CacheName, taken: Taken) -> io::Result<Option<String>> {
        let (this, name) = (self.clone(), name.clone());
        pools::io(&self.pools.measures, move || this.give_back_now(&name, &taken.folder)).await
    }

    fn give_back_now(&self, name: &CacheName, from: &Path) -> io::Result<Option<String>> {
        let limits = &self.limits;
        // The build may have put something else in its place.
        if let Err(error) = Dir::open(from) {
            return Ok(Some(format!("the build cache is not kept: it is no folder any more ({error})")));
        }
        let size = folder::measure(from, limits.app, limits.entries);
        if size.bytes > limits.app {
            let mib = limits.app / 1_048_576;
            return Ok(Some(format!(
                "the build cache is not kept: it is larger than {mib} MiB (CALLBOARD_BUILD_CACHE)"
            )));
        }
        if size.entries > limits.entries {
            return Ok(Some(format!("the build cache is not kept: it holds more than {} files", limits.entries)));
        }
        let place = self.project(name.project_id).join(&name.line);
        // Only the node enters these folders: a build is given its cache by a move out of them.
        fs::create_dir_with(DirBuilder::new().recursive(true).mode(0o700), &place)?;
        let content = place.join(CONTENT);
        if fs::symlink_metadata(&content).is_ok() {
            // Another build of the same line was quicker.
            return Ok(None);
        }
        fs::rename(from, &content)?;
        let state = State { bytes: size.bytes, used_at: now() };
        fs::write(place.join(STATE), serde_json::to_vec(&state).map_err(io::Error::other)?)?;
        self.evict(&place);
        Ok(None)
    }

    /// Removes the caches that were used longest ago until the others are within the limit; the one at `newest` stays.
    fn evict(&self, newest: &Path) {
        let mut all = self.all();
        all.sort_unstable_by_key(|found| found.state.used_at);
        let mut total: u64 = all.iter().map(|found| found.state.bytes).sum();
        for found in all.into_iter().filter(|found| found.folder != newest) {
            if total <= self.limits.node {
                return;
            }
            total = total.saturating_sub(found.state.bytes);
            tracing::info!(folder = %found.folder.display(), "a build cache was used longest ago and makes room for others");
            self.trash.discard_soon(found.folder);
        }
    }

    fn all(&self) -> Vec<Found> {
        let inner = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let places = inner(&self.folder).flat_map(|project| inner(&project).collect::<Vec<_>>());
        let state = |place: &Path| {
            let text = fs::read(place.join(STATE)).ok()?;
            serde_json::from_slice(&text).ok()
        };
        // One whose state can't be read was interrupted, and counts as the oldest.
        places.map(|folder| Found { state: state(&folder).unwrap_or_default(), folder }).collect()
    }

    /// Removes all caches of a project on this node.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) async fn remove(&self, project_id: ProjectId) -> io::Result<()> {
        self.trash.discard(self.project(project_id)).await
    }

    /// The projects of which this node keeps caches.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) async fn projects(&self) -> io::Result<Vec<ProjectId>> {
        let folder = self.folder.clone();
        pools::io(&self.pools.prompt, move || {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let id =
                |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok().map(ProjectId);
            Ok(entries.filter_map(id).collect())
        })
        .await
    }

    fn project(&self, id: ProjectId) -> PathBuf {
        self.folder.join(id.to_string())
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
