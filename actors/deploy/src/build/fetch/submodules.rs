//! Submodules of a fetched repository.
//!
//! Their paths come from the commit, and their addresses from its `.gitmodules`; both are read as data, and git is
//! never told to act on them. Each is then fetched like the repository itself: an address that is judged, one protocol,
//! one commit, no configuration of its own. They count into the same limits.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use callboard_supervisors::fs;
use url::Url;

use super::{
    FetchError, GitSource,
    git::Git,
    source::{allow, shown},
};
use crate::{folder, pools};

/// Most levels of submodules within submodules.
const DEPTH: usize = 4;
/// Most submodules of a repository, on all levels.
const COUNT: usize = 64;

/// A submodule of a commit.
struct Submodule {
    /// Its path in its repository.
    path: PathBuf,
    commit: String,
    url: Option<String>,
    /// Its `update` in `.gitmodules`.
    update: Option<String>,
}

/// Fetches the submodules of a fetched repository, on all levels. Returns the folders of those that were fetched.
pub(super) async fn fetch(top: &Git<'_>) -> Result<Vec<PathBuf>, FetchError> {
    let mut fetched = Vec::new();
    // The root is the repository itself.
    let mut parents = VecDeque::from([(0, top.at(top.folder.clone(), top.allowed.clone()))]);
    while let Some((depth, parent)) = parents.pop_front() {
        for submodule in parent.submodules().await? {
            let folder = parent.folder.join(&submodule.path);
            let path = shown(&folder.strip_prefix(top.target).unwrap_or(&folder).to_string_lossy());
            let outcome = if depth == DEPTH {
                Err(Refusal::Skip(format!("submodules are fetched {DEPTH} deep")))
            } else if fetched.len() == COUNT {
                Err(Refusal::Skip(format!("{COUNT} submodules are fetched, and no more")))
            } else {
                parent.fetch_submodule(&submodule, folder.clone(), &path).await
            };
            match outcome {
                Ok(git) => {
                    fetched.push(folder);
                    parents.push_back((depth + 1, git));
                }
                Err(Refusal::Skip(reason)) => {
                    top.sink.say(format!("The submodule `{path}` is not fetched, its files are not there: {reason}"));
                }
                Err(Refusal::Fail(error)) => return Err(error),
            }
        }
    }
    Ok(fetched)
}

/// Why a submodule was not fetched.
enum Refusal {
    /// For good: it is named in the log.
    Skip(String),
    /// For now, so that another attempt would deploy other files; or the whole fetch has failed.
    Fail(FetchError),
}

impl Refusal {
    fn of(error: FetchError, path: &str) -> Self {
        match error {
            FetchError::Refused { .. }
            | FetchError::NotFound(_)
            | FetchError::Redirected(_)
            | FetchError::NoReference(_) => Self::Skip(error.to_string()),
            FetchError::Unresolved { .. } | FetchError::Failed(_) => {
                Self::Fail(FetchError::Submodule { path: path.to_owned(), error: Box::new(error) })
            }
            _ => Self::Fail(error),
        }
    }
}

fn failed(error: io::Error) -> Refusal {
    Refusal::Fail(error.into())
}

impl Git<'_> {
    async fn fetch_submodule(&self, submodule: &Submodule, folder: PathBuf, path: &str) -> Result<Self, Refusal> {
        let skip = |reason: &str| Err(Refusal::Skip(reason.to_owned()));
        if submodule.update.as_deref() == Some("none") {
            return skip("its `update` in .gitmodules is `none`");
        }
        let Some(url) = &submodule.url else { return skip("the file .gitmodules gives no address for it") };
        let pool = &self.settings.launcher.pools.prompt;
        let (target, empty) = (self.target.to_owned(), folder.clone());
        if !pools::io(pool, move || Ok(is_empty_folder(&target, &empty))).await.map_err(failed)? {
            return skip("there is no empty folder in its place");
        }
        let Some(url) = resolved(&self.allowed.url, url) else {
            return skip("its address is relative and leads out of its host");
        };
        let source = GitSource { url, reference: Some(submodule.commit.clone()) };
        let private = self.settings.allow_private_sources;
        let allowed = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(Refusal::Fail(FetchError::Cancelled)),
            allowed = allow(&source, private, &self.settings.resolve) => allowed,
        };
        let git = self.at(folder, allowed.map_err(|error| Refusal::of(error, path))?);
        match git.fetch().await {
            Ok(commit) if commit.id == submodule.commit => Ok(git),
            outcome => {
                // Its folder is left empty, as the checkout left it.
                let folder = git.folder.clone();
                let emptied = move || folder::remove(&folder).and_then(|()| fs::create_dir(&folder));
                pools::io(&self.settings.launcher.pools.archives, emptied).await.map_err(failed)?;
                match outcome {
                    Ok(_) => skip("its host answered another commit"),
                    Err(error) => Err(Refusal::of(error, path)),
                }
            }
        }
    }

    /// The submodules of the fetched commit.
    async fn submodules(&self) -> Result<Vec<Submodule>, FetchError> {
        let tree = self.git(&["ls-tree", "-r", "-z", "--full-tree", "HEAD"], false).await?;
        let gitlinks = gitlinks(&tree);
        if gitlinks.is_empty() {
            return Ok(Vec::new());
        }
        let pattern = r"^submodule\..*\.(path|url|update)$";
        let settings = ["config", "--blob", "HEAD:.gitmodules", "-z", "--get-regexp", pattern];
        let settings = match self.git(&settings, false).await {
            Ok(settings) => settings,
            Err(
                error @ (FetchError::Cancelled | FetchError::TimedOut(_) | FetchError::TooLarge(_) | FetchError::Io(_)),
            ) => return Err(error),
            // The file does not exist, is empty, or can't be read.
            Err(_) => Vec::new(),
        };
        let mut settings = settings_by_path(&settings);
        let submodule = |(path, commit): (PathBuf, String)| {
            let Settings { url, update } = settings.remove(path.as_os_str()).unwrap_or_default();
            Submodule { path, commit, url, update }
        };
        Ok(gitlinks.into_iter().map(submodule).collect())
    }
}

/// Paths and commits of the submodules in the output of `git ls-tree -z`.
fn gitlinks(tree: &[u8]) -> Vec<(PathBuf, String)> {
    let entries = tree.split(|byte| *byte == 0).filter_map(|entry| {
        let (commit, path) = split(entry.strip_prefix(b"160000 commit ")?, b'\t')?;
        let commit = String::from_utf8(commit.to_vec()).ok()?;
        let path = PathBuf::from(OsStr::from_bytes(path));
        is_plain(&path).then_some((path, commit))
    });
    entries.collect()
}

/// The settings of one submodule in `.gitmodules`.
#[derive(Default)]
struct Settings {
    url: Option<String>,
    update: Option<String>,
}

/// The settings in the output of `git config -z`, by the path of the submodule.
fn settings_by_path(config: &[u8]) -> BTreeMap<OsString, Settings> {
    let mut by_name: BTreeMap<String, (Option<&OsStr>, Settings)> = BTreeMap::new();
    for setting in config.split(|byte| *byte == 0) {
        let Some((key, value)) = split(setting, b'\n') else { continue };
        let key = String::from_utf8_lossy(key);
        let Some((name, variable)) = key.strip_prefix("submodule.").and_then(|key| key.rsplit_once('.')) else {
            continue;
        };
        let (path, settings) = by_name.entry(name.to_owned()).or_default();
        let text = || Some(String::from_utf8_lossy(value).into_owned());
        match variable {
            "path" => *path = Some(OsStr::from_bytes(value)),
            "url" => settings.url = text(),
            "update" => settings.update = text(),
            _ => {}
        }
    }
    by_name.into_values().filter_map(|(path, settings)| Some((path?.to_owned(), settings))).collect()
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|byte| *byte == at)?;
    Some((bytes.get(..position)?, bytes.get(position + 1..)?))
}

/// Whether a path stays below the folder and outside of `.git`.
fn is_plain(path: &Path) -> bool {
    let mut components = path.components().peekable();
    components.peek().is_some()
        && components.all(|component| match component {
            Component::Normal(name) => !name.eq_ignore_ascii_case(".git"),
            _ => false,
        })
}

/// Whether the checkout has made an empty folder there, and no link is on its path.
fn is_empty_folder(target: &Path, folder: &Path) -> bool {
    let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    folder.ancestors().take_while(|ancestor| *ancestor != target).all(is_folder)
        && folder.starts_with(target)
        && fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// The address of a submodule. One that begins with `./` or `../` is relative to the repository's.
fn resolved(parent: &Url, url: &str) -> Option<String> {
    if !url.starts_with("./") && !url.starts_with("../") {
        return Some(url.to_owned());
    }
    let mut segments: Vec<&str> = parent.path().trim_matches('/').split('/').collect();
    let mut rest = url;
    loop {
        if let Some(above) = rest.strip_prefix("../") {
            segments.pop()?;
            rest = above;
        } else if let Some(here) = rest.strip_prefix("./") {
            rest = here;
        } else {
            break;
        }
    }
    segments.push(rest);
    Some(format!("{}/{}", parent.origin().ascii_serialization(), segments.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_addresses_stay_on_their_host() {
        let parent = Url::parse("https://git.example/you/app.git").unwrap();
        for (url, address) in [
            ("../lib.git", Some("https://git.example/you/lib.git")),
            ("./lib.git", Some("https://git.example/you/app.git/lib.git")),
            ("../../they/lib", Some("https://git.example/they/lib")),
            (".././../they/lib", Some("https://git.example/they/lib")),
            ("../../../lib", None),
            ("https://other.example/lib", Some("https://other.example/lib")),
            ("git@git.example:you/lib.git", Some("git@git.example:you/lib.git")),
        ] {
            assert_eq!(resolved(&parent, url).as_deref(), address, "{url}");
        }
        // An address that climbs out in another way is judged as a whole.
        let tricky = resolved(&parent, "../a/../../../b").unwrap();
        assert_eq!(Url::parse(&tricky).unwrap().host_str(), Some("git.example"));
    }

    #[test]
    fn gitlinks_that_lead_elsewhere_are_none() {
        let tree = b"100644 blob 00\tfile\x00160000 commit 0a\tlib\x00160000 commit 0b\t../out\x00160000 commit 0c\t\
                     a/.GIT/hooks\x00160000 commit 0d\t/abs\x00160000 commit 0e\ttwo\nlines\x00";
        let found: Vec<String> =
            gitlinks(tree).into_iter().map(|(path, commit)| format!("{commit} {path:?}")).collect();
        assert_eq!(found, ["0a \"lib\"", "0e \"two\\nlines\""]);
    }

    #[test]
    fn settings_are_taken_by_the_path_they_name() {
        let config = b"submodule.a.b.path\nlib\0submodule.a.b.url\n../lib.git\0submodule.x.url\nhttps://x\0\
                         submodule.y.path\ny\0submodule.y.update\n!touch /tmp/x\0";
        let settings = settings_by_path(config);
        assert_eq!(settings.len(), 2);
        assert_eq!(settings[OsStr::new("lib")].url.as_deref(), Some("../lib.git"));
        assert_eq!(settings[OsStr::new("y")].update.as_deref(), Some("!touch /tmp/x"));
    }
}
