//! Workspaces: packages of one repository that are installed together, by one lock file.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use super::{App, DetectError, package::Package};
use crate::build::detect::app::relative;

/// The largest number of members of a workspace that detection reads.
const MOST_MEMBERS: usize = 200;
/// Most patterns of members.
const MOST_PATTERNS: usize = 100;
/// Most folders in a pattern, one below the other.
const DEEPEST: usize = 32;

/// The folder of the workspace that an app is a member of; the app's own when there is none.
pub(super) fn root(app: &App) -> Result<PathBuf, DetectError> {
    let mut listings = Listings::default();
    for above in app.root.ancestors().skip(1) {
        let workspace = app.at(above);
        let Some(package) = Package::read(&workspace)? else { continue };
        let Some(patterns) = patterns(&workspace, &package)? else { continue };
        let inside = app.root.strip_prefix(above).unwrap_or(&app.root);
        if listings.members(&workspace, &patterns).iter().any(|member| member == inside) {
            return Ok(above.to_owned());
        }
    }
    Ok(app.root.clone())
}

/// The patterns of a workspace's members; nothing when the folder is none.
pub(super) fn patterns(app: &App, package: &Package) -> Result<Option<Vec<String>>, DetectError> {
    let Some(text) = app.read("pnpm-workspace.yaml")? else {
        return package.workspaces().map(|patterns| checked("package.json", patterns)).transpose();
    };
    // A list of texts, in one of the two forms that YAML has for it; all other settings are pnpm's.
    let mut patterns = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or(line);
        let is_member = line.starts_with([' ', '-', '\t']) || line.trim().is_empty();
        if let Some(rest) = line.strip_prefix("packages:") {
            is_inside = true;
            let list = rest.trim().trim_start_matches('[').trim_end_matches(']');
            patterns.extend(list.split(',').map(unquoted).filter(|pattern| !pattern.is_empty()));
        } else if !is_member {
            is_inside = false;
        } else if is_inside && let Some(pattern) = line.trim().strip_prefix('-') {
            patterns.push(unquoted(pattern));
        }
    }
    match patterns.is_empty() {
        true => package.workspaces().map(|patterns| checked("package.json", patterns)).transpose(),
        false => checked("pnpm-workspace.yaml", patterns).map(Some),
    }
}

/// The patterns of a file without repetitions, unless there are too many.
fn checked(file: &str, mut patterns: Vec<String>) -> Result<Vec<String>, DetectError> {
    let mut known = BTreeSet::new();
    patterns.retain(|pattern| known.insert(pattern.clone()));
    if patterns.len() > MOST_PATTERNS {
        let count = patterns.len();
        return Err(DetectError::bad(
            file,
            format!(
                "it has {count} patterns for the packages of the workspace, and at most {MOST_PATTERNS} are looked at; name folders by `*`"
            ),
        ));
    }
    Ok(patterns)
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches(['\'', '"']).trim_start_matches("./").trim_end_matches('/').to_owned()
}

/// The folders of a workspace's members. Of patterns, `*` and `**` as whole names are known.
pub(super) fn members(workspace: &App, patterns: &[String]) -> Vec<PathBuf> {
    Listings::default().members(workspace, patterns)
}

/// The folders in folders of a source, each of which is read once however many patterns name it. Links are not followed:
/// one that leads up would have no end.
#[derive(Debug, Default)]
struct Listings(HashMap<PathBuf, Vec<String>>);

impl Listings {
    fn members(&mut self, workspace: &App, patterns: &[String]) -> Vec<PathBuf> {
        let mut all = BTreeSet::new();
        for pattern in patterns.iter().filter(|pattern| !pattern.starts_with('!')) {
            let Some(pattern) = relative(&unquoted(pattern)) else { continue };
            let mut folders = vec![PathBuf::new()];
            // Nothing lies so deep that a longer pattern has to be followed.
            for part in pattern.components().take(DEEPEST) {
                let part = part.as_os_str().to_string_lossy().into_owned();
                let mut found = BTreeSet::new();
                for folder in folders {
                    found.extend(self.matching(workspace, &folder, &part));
                    if found.len() >= MOST_MEMBERS {
                        break;
                    }
                }
                folders = found.into_iter().take(MOST_MEMBERS).collect();
            }
            let is_member =
                |folder: &PathBuf| !folder.as_os_str().is_empty() && workspace.has(folder.join("package.json"));
            all.extend(folders.into_iter().filter(is_member));
            if all.len() >= MOST_MEMBERS {
                break;
            }
        }
        all.into_iter().take(MOST_MEMBERS).collect()
    }

    fn matching(&mut self, workspace: &App, folder: &Path, part: &str) -> Vec<PathBuf> {
        match part.split_once('*') {
            None => vec![folder.join(part)],
            Some(("", "*")) => {
                let mut all = vec![folder.to_owned()];
                for below in self.below(workspace, folder, |_| true) {
                    let deeper = self.below(workspace, &below, |_| true);
                    all.push(below);
                    all.extend(deeper);
                    if all.len() >= MOST_MEMBERS {
                        break;
                    }
                }
                all
            }
            Some((start, end)) => {
                let fits = |name: &str| {
                    name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
                };
                self.below(workspace, folder, fits)
            }
        }
    }

    /// The folders in a folder whose names fit.
    fn below(&mut self, workspace: &App, folder: &Path, fits: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let names = self.0.entry(workspace.root.join(folder)).or_insert_with(|| workspace.own_folders(folder));
        names.iter().filter(|name| fits(name)).map(|name| folder.join(name)).collect()
    }
}
