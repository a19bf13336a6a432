//! The programs of this machine that builds and apps need: which are there, and in which versions.
//!
//! They are looked for in the `PATH` of children, and where the usual version managers put further versions. Each is asked
//! for its version once, without a shell, within a bounded time, and again when its file has changed.

mod catalog;
mod probe;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use callboard_supervisors::fs;
use parking_lot::Mutex;

pub use self::catalog::Tool;
use self::probe::{Answer, Stamp};

/// A program that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Numbers with dots.
    pub version: String,
    /// Its file; of an interpreter behind a version manager, the interpreter's own.
    pub path: PathBuf,
    /// Whether its name alone, in `PATH`, leads to it.
    pub is_default: bool,
    /// Of Python: whether it has pip.
    pub has_pip: bool,
}

/// The tools of one machine. Cheap to clone; clones share what they know.
#[derive(Debug, Clone)]
pub struct Tools(Arc<Kind>);

#[derive(Debug)]
enum Kind {
    Machine { path: String, known: Mutex<HashMap<PathBuf, (Stamp, Option<Answer>)>> },
    Given(BTreeMap<Tool, Vec<Installed>>),
}

impl Tools {
    /// Those in a `PATH`.
    #[must_use]
    pub fn of_path(path: impl Into<String>) -> Self {
        Self(Arc::new(Kind::Machine { path: path.into(), known: Mutex::default() }))
    }

    /// Exactly these, by name alone, the first of each the default; Python with pip.
    #[must_use]
    pub fn given(tools: &[(Tool, &str)]) -> Self {
        let mut all: BTreeMap<Tool, Vec<Installed>> = BTreeMap::new();
        for (tool, version) in tools {
            let known = all.entry(*tool).or_default();
            let is_default = known.is_empty();
            let folder =
                if is_default { "/usr/bin".to_owned() } else { format!("/opt/{}-{version}/bin", tool.program()) };
            known.push(Installed {
                version: (*version).to_owned(),
                path: Path::new(&folder).join(tool.program()),
                is_default,
                has_pip: *tool == Tool::Python,
            });
        }
        Self(Arc::new(Kind::Given(all)))
    }

    /// The version that a tool's name leads to, or the first other one. Blocks.
    #[must_use]
    pub fn default(&self, tool: Tool) -> Option<Installed> {
        match &*self.0 {
            Kind::Machine { .. } => self.search(tool, true).into_iter().next(),
            Kind::Given(tools) => tools.get(&tool)?.first().cloned(),
        }
    }

    /// All versions of a tool, the default first, then the newest first. Blocks.
    #[must_use]
    pub fn all(&self, tool: Tool) -> Vec<Installed> {
        match &*self.0 {
            Kind::Machine { .. } => self.search(tool, false),
            Kind::Given(tools) => tools.get(&tool).cloned().unwrap_or_default(),
        }
    }

    /// Whether there is any version of a tool. Blocks.
    #[must_use]
    pub fn has(&self, tool: Tool) -> bool {
        self.default(tool).is_some()
    }

    fn search(&self, tool: Tool, first_only: bool) -> Vec<Installed> {
        let Kind::Machine { path, known } = &*self.0 else { return Vec::new() };
        let mut found: Vec<Installed> = Vec::new();
        let mut seen = HashSet::new();
        let mut is_shadowed = false;
        for candidate in candidates(tool, path) {
            let is_first = candidate.in_path && candidate.has_own_name && !is_shadowed;
            is_shadowed |= is_first;
            let Some(answer) = ask(tool, &candidate.file, path, known) else { continue };
            let path = answer.executable.unwrap_or_else(|| candidate.file.clone());
            // `/bin` is often a link to `/usr/bin`, and one name of a program a link to another.
            if !seen.insert(fs::canonicalize(&path).unwrap_or_else(|_| path.clone())) {
                continue;
            }
            // A version manager's stand-in chooses by the folder it runs in: only the program itself is dependable.
            let is_default = is_first && path == candidate.file;
            found.push(Installed { version: answer.version, path, is_default, has_pip: answer.has_pip });
            if first_only {
                break;
            }
        }
        if let Some((_, others)) = found.split_first_mut() {
            others.sort_by_key(|tool| std::cmp::Reverse(numbers(&tool.version)));
        }
        found
    }
}

/// The numbers of a version, for comparison.
pub(super) fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map_while(|number| number.parse().ok()).collect()
}

struct Candidate {
    file: PathBuf,
    in_path: bool,
    has_own_name: bool,
}

/// Files that may be a tool: those in `PATH` first, then those of version managers that are in `PATH`.
fn candidates(tool: Tool, path: &str) -> Vec<Candidate> {
    let folders: Vec<PathBuf> = env::split_paths(path).filter(|folder| folder.is_absolute()).collect();
    let mut all = Vec::new();
    for folder in &folders {
        // Stand-ins are there for every version, whether it is chosen or not.
        let is_stand_in = folder.ends_with("shims");
        for name in tool.programs() {
            let has_own_name = name == tool.program();
            if has_own_name || !is_stand_in {
                all.push(Candidate { file: folder.join(name), in_path: true, has_own_name });
            }
        }
    }
    for folder in folders.iter().flat_map(|folder| beside(folder)) {
        all.push(Candidate { file: folder.join(tool.program()), in_path: false, has_own_name: true });
    }
    all.retain(|candidate| probe::is_program(&candidate.file));
    all
}

/// Folders in which the version manager that a folder of `PATH` belongs to keeps its versions.
fn beside(folder: &Path) -> Vec<PathBuf> {
    let up = |levels: usize| folder.ancestors().nth(levels).map(Path::to_owned);
    let (versions, inside) = match folder.file_name().and_then(|name| name.to_str()) {
        // pyenv, rbenv, nodenv: `<root>/shims` and `<root>/versions/<version>/bin`.
        Some("shims") => (up(1).map(|root| root.join("versions")), "bin"),
        // nvm, fnm, n: `<versions>/<version>/bin`.
        Some("bin") if folder.parent().and_then(Path::parent).is_some_and(is_of_versions) => (up(2), "bin"),
        // rustup: `~/.cargo/bin` and `~/.rustup/toolchains/<name>/bin`.
        Some("bin") if up(1).is_some_and(|root| root.ends_with(".cargo")) => {
            (up(2).map(|home| home.join(".rustup/toolchains")), "bin")
        }
        _ => return Vec::new(),
    };
    let Some(versions) = versions else { return Vec::new() };
    let Ok(entries) = fs::read_dir(&versions) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path().join(inside)).collect();
    folders.sort();
    folders
}

/// Whether a folder holds versions: `versions`, or `versions/node`.
fn is_of_versions(folder: &Path) -> bool {
    folder.ends_with("versions") || folder.parent().is_some_and(|parent| parent.ends_with("versions"))
}

fn ask(
    tool: Tool,
    file: &Path,
    path: &str,
    known: &Mutex<HashMap<PathBuf, (Stamp, Option<Answer>)>>,
) -> Option<Answer> {
    let stamp = probe::stamp(file)?;
    if let Some((former, answer)) = known.lock().get(file)
        && *former == stamp
    {
        return answer.clone();
    }
    let answer = probe::version(tool, file, path);
    known.lock().insert(file.to_owned(), (stamp, answer.clone()));
    answer
}
