//! What is kept of an app's builds for its next one: the download caches of tools, and folders that the plan names.
//!
//! A cache belongs to one project and one line of sources: the uploads, or one reference of one repository. Only builds of
//! these write in it, so that what a build of another branch or project has left never reaches this one. A build takes the
//! cache of its line by moving it into its own folder, which one build at most can do, and the others go without; it
//! is moved back when the build has succeeded. Nothing is copied, nothing is shared, and what a crash interrupts is lost.

mod folders;
mod store;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use callboard_messages::{ProjectId, deploy::DeploymentSource};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub(crate) use self::store::Caches;
use crate::{build::detect::Cache, folder::Dir, process::trampoline::RunAs};

/// The folder of a cache in which tools keep what they have downloaded.
const TOOLS: &str = "tools";
/// The folder of a cache for folders of the app.
const FOLDERS: &str = "folders";

/// Bounds of the build caches of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheLimits {
    /// The largest cache that is kept, in bytes; none is when it is zero. Default: 1 GiB.
    pub app: u64,
    /// Files, folders and links in a cache. Default: 200,000.
    pub entries: u64,
    /// All caches of the node together, in bytes; those that were used longest ago go first. Default: 10 GiB.
    pub node: u64,
}

impl Default for CacheLimits {
    fn default() -> Self {
        const GIB: u64 = 1024 * 1024 * 1024;
        Self { app: GIB, entries: 200_000, node: 10 * GIB }
    }
}

/// The name of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheName {
    project_id: ProjectId,
    /// `<generation>-<line of sources>`.
    line: String,
    generation: i64,
}

impl CacheName {
    /// The cache for builds of this source. A higher generation is an empty cache.
    pub(crate) fn of(project_id: ProjectId, generation: i64, source: Option<&DeploymentSource>) -> Self {
        let line = match source {
            Some(DeploymentSource::Git { url, reference }) => {
                format!("git {}", short(&[url.as_str(), reference.as_deref().unwrap_or_default()]))
            }
            Some(DeploymentSource::Archive { .. }) | None => "uploads".to_owned(),
        };
        Self { project_id, line: format!("{generation}-{}", line.replace(' ', "-")), generation }
    }
}

/// A cache in the hands of a build.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    /// Its folder, beside the build's source.
    pub(crate) folder: PathBuf,
    /// Whether a former build has left something in it.
    pub(crate) is_warm: bool,
}

impl Taken {
    /// The variables by which tools find their download caches.
    pub(crate) fn variables(&self, prefer_offline: bool) -> Vec<(String, String)> {
        let tools = self.folder.join(TOOLS);
        let at = |folder: &str| tools.join(folder).display().to_string();
        let folders = [
            ("npm_config_cache", "npm"),
            // Its store is in there.
            ("PNPM_HOME", "pnpm"),
            ("YARN_CACHE_FOLDER", "yarn"),
            ("YARN_GLOBAL_FOLDER", "yarn-berry"),
            ("BUN_INSTALL_CACHE_DIR", "bun"),
            ("COREPACK_HOME", "corepack"),
            ("PIP_CACHE_DIR", "pip"),
            ("UV_CACHE_DIR", "uv"),
            ("POETRY_CACHE_DIR", "poetry"),
            ("PIPENV_CACHE_DIR", "pipenv"),
            ("CARGO_HOME", "cargo"),
            ("GOMODCACHE", "go/mod"),
            ("GOCACHE", "go/build"),
            ("BUNDLE_USER_CACHE", "bundle"),
            ("COMPOSER_CACHE_DIR", "composer"),
            ("DENO_DIR", "deno"),
            ("GRADLE_USER_HOME", "gradle"),
            // Whatever else keeps to the rules.
            ("XDG_CACHE_HOME", "cache"),
        ];
        let mut all: Vec<(String, String)> =
            folders.iter().map(|(name, folder)| ((*name).to_owned(), at(folder))).collect();
        // Go makes the modules it has downloaded read-only, and a folder that can't be written to can't be emptied.
        all.push(("GOFLAGS".to_owned(), "-modcacherw".to_owned()));
        all.push(("MAVEN_ARGS".to_owned(), format!("-Dmaven.repo.local={}", at("maven"))));
        if prefer_offline && self.is_warm {
            all.push(("npm_config_prefer_offline".to_owned(), "true".to_owned()));
        }
        all
    }

    /// Puts the folders that the plan names into the app, as a former build of the same key has left them. Blocks.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn restore(&self, app: &Path, cache: &Cache, user: Option<RunAs>) -> std::io::Result<usize> {
        folders::restore(&self.folder, app, cache, user)
    }

    /// Takes the folders that the plan names out of the app, at `root` in the source. Returns a sentence for each that can't be kept. Blocks.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn collect(&self, source: &Dir, root: &Path, cache: &Cache) -> std::io::Result<Vec<String>> {
        folders::collect(&self.folder, source, root, cache)
    }
}

/// A name of few letters for some texts.
fn short(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    let mut digest = hex::encode(hash.finalize());
    digest.truncate(16);
    digest
}
