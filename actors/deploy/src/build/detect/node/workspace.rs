//! Workspaces: packages of one repository that are installed together, by one lock file.

use std::path::{Path, PathBuf};

use super::{App, DetectError, package::Package};

/// Most members that are looked at.
const MOST_MEMBERS: usize = 200;

/// The folder of the workspace that an app is a member of; the app's own when there is none.
pub(super) fn root(app: &App) -> Result<PathBuf, DetectError> {
    for above in app.root.ancestors().skip(1) {
        let workspace = app.at(above);
        let Some(package) = Package::read(&workspace)? else { continue };
        let Some(patterns) = patterns(&workspace, &package)? else { continue };
        let inside = app.root.strip_prefix(above).unwrap_or(&app.root);
        if members(&workspace, &patterns).iter().any(|member| member == inside) {
            return Ok(above.to_owned());
        }
    }
    Ok(app.root.clone())
}

/// The patterns of a workspace's members; nothing when the folder is none.
pub(super) fn patterns(app: &App, package: &Package) -> Result<Option<Vec<String>>, DetectError> {
    let Some(text) = app.read("pnpm-workspace.yaml")? else { return Ok(package.workspaces()) };
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
    Ok(Some(patterns).filter(|patterns| !patterns.is_empty()).or_else(|| package.workspaces()))
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches(['\'', '"']).trim_start_matches("./").trim_end_matches('/').to_owned()
}

/// The folders of a workspace's members. Of patterns, `*` and `**` as whole names are known.
pub(super) fn members(workspace: &App, patterns: &[String]) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for pattern in patterns.iter().filter(|pattern| !pattern.starts_with('!')) {
        let mut folders = vec![PathBuf::new()];
        for part in Path::new(&unquoted(pattern)).components() {
            let part = part.as_os_str().to_string_lossy().into_owned();
            folders =
                folders.into_iter().flat_map(|folder| matching(workspace, &folder, &part)).take(MOST_MEMBERS).collect();
        }
        all.extend(folders);
    }
    all.retain(|folder| !folder.as_os_str().is_empty() && workspace.has(folder.join("package.json")));
    all.sort();
    all.dedup();
    all.truncate(MOST_MEMBERS);
    all
}

fn matching(workspace: &App, folder: &Path, part: &str) -> Vec<PathBuf> {
    match part.split_once('*') {
        None => vec![folder.join(part)],
        Some(("", "*")) => {
            let below = workspace.folders(folder).into_iter().flat_map(|below| {
                let deeper = workspace.folders(&below);
                std::iter::once(below).chain(deeper)
            });
            std::iter::once(folder.to_owned()).chain(below).collect()
        }
        Some((start, end)) => {
            let fits = |path: &PathBuf| {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                name.starts_with(start) && name.ends_with(end)
            };
            workspace.folders(folder).into_iter().filter(fits).collect()
        }
    }
}
