//! The folder of a site that a build has made: looked for when the build has ended, so that what is wrong with it is told
//! there and not by a site that answers 404.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::detect::{Command, Plan};
use crate::folder::{Dir, What};

/// The page that makes a folder a site.
const INDEX: &str = "index.html";
/// Names that a sentence lists.
const LISTED: usize = 12;

/// Makes the folder of a site that is served as it is the folder that its release holds.
pub(super) fn imply(plan: &mut Plan) {
    if plan.publish.is_some() || plan.release.is_some() {
        return;
    }
    let mut roots = plan.processes.values().map(|command| match command {
        Command::StaticSite { root, .. } if !root.as_os_str().is_empty() => Some(root.clone()),
        _ => None,
    });
    if let Some(Some(first)) = roots.next()
        && roots.all(|root| root.as_ref() == Some(&first))
    {
        plan.publish = Some(first);
    }
}

/// What is at the place of a folder.
enum At {
    /// A folder, at this path without links; whether it has a page.
    Folder(PathBuf, bool),
    Empty,
    Nothing,
    File,
    Outside,
}

/// Finds the folder that the plan publishes. Returns a sentence when it is another one than the first that was looked for.
/// Blocks.
///
/// # Errors
/// A sentence that says what was found instead, and what to do.
pub(super) fn settle(source: &Dir, plan: &mut Plan) -> Result<Option<String>, String> {
    let Some(wanted) = plan.publish.clone().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(None) };
    let candidates = std::iter::once(&wanted).chain(&plan.publish_alternatives);
    let looked: Vec<(PathBuf, At)> =
        candidates.map(|folder| (folder.clone(), look(source, &plan.root, folder))).collect();
    let found = |page: bool| {
        looked.iter().find_map(|(folder, at)| match at {
            At::Folder(path, has_page) if !page || *has_page => Some((folder.clone(), path.clone())),
            _ => None,
        })
    };
    let Some((named, real)) = found(true).or_else(|| found(false)) else {
        let at = looked.first().map_or(&At::Nothing, |(_, at)| at);
        return Err(refusal(source, &plan.root, &wanted, at));
    };
    let Ok(path) = real.strip_prefix(&plan.root) else {
        return Err(refusal(source, &plan.root, &wanted, &At::Outside));
    };
    let note = (named != wanted).then(|| {
        let (wanted, named) = (wanted.display(), named.display());
        format!("the build has made `{named}` and no `{wanted}` with a page: `{named}` is published")
    });
    plan.publish_from(path);
    Ok(note)
}

fn look(source: &Dir, root: &Path, folder: &Path) -> At {
    match source.follow(&root.join(folder), |_| true) {
        Ok(found) => match found.what {
            What::File(_) => At::File,
            What::Folder(dir) if dir.is_empty().unwrap_or(false) => At::Empty,
            What::Folder(dir) => At::Folder(found.path, has_page(&dir)),
        },
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => At::Outside,
        Err(_) => At::Nothing,
    }
}

fn has_page(folder: &Dir) -> bool {
    folder.follow(Path::new(INDEX), |_| true).is_ok_and(|found| matches!(found.what, What::File(_)))
}

fn refusal(source: &Dir, root: &Path, wanted: &Path, at: &At) -> String {
    let wanted = wanted.display();
    let what = match at {
        At::Outside => {
            return format!(
                "the folder to publish, `{wanted}`, leads out of the app; let the build put the site into a folder of \
                 the app, and name that one as `publish` in callboard.toml"
            );
        }
        At::File => format!("`{wanted}` is a file and no folder"),
        At::Empty => format!("the build has left nothing in `{wanted}`"),
        At::Nothing | At::Folder(..) => format!("the build has made no folder `{wanted}`"),
    };
    let (sites, all) = inventory(source, root);
    let found = match (sites.as_slice(), all.as_slice()) {
        ([], []) => "there is no folder at all".to_owned(),
        ([], _) => format!("there are {}", all.join(", ")),
        ([site], _) => format!("`{site}` has an {INDEX}"),
        (sites, _) => format!("{} have an {INDEX}", sites.join(", ")),
    };
    format!("{what}; {found}. Set the folder that the build makes: `publish = \"…\"` in callboard.toml")
}

/// The folders at the top of the app: those with a page, and all of them.
fn inventory(source: &Dir, root: &Path) -> (Vec<String>, Vec<String>) {
    let Ok(app) = source.open_dir(root) else { return (Vec::new(), Vec::new()) };
    let mut all: Vec<String> = app
        .entries()
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.kind.is_dir() && entry.name != "node_modules" && entry.name != ".git")
        .map(|entry| entry.name.to_string_lossy().into_owned())
        .collect();
    all.sort();
    let sites = all.iter().filter(|name| app.open_dir(Path::new(name)).is_ok_and(|folder| has_page(&folder)));
    let sites: Vec<String> = sites.take(LISTED).cloned().collect();
    all.truncate(LISTED);
    (sites, all)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use indexmap::IndexMap;

    use super::*;
    use crate::build::detect::{Language, StaticOptions};

    fn plan(publish: &str, alternatives: &[&str]) -> Plan {
        let site = Command::StaticSite { root: publish.into(), options: StaticOptions::default() };
        Plan {
            language: Language::Static,
            root: PathBuf::from("app"),
            processes: IndexMap::from([("web".to_owned(), site)]),
            publish: Some(publish.into()),
            publish_alternatives: alternatives.iter().map(PathBuf::from).collect(),
            ..Plan::empty()
        }
    }

    fn source(files: &[&str]) -> (tempfile::TempDir, Dir) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("app")).unwrap();
        for file in files {
            let path = folder.path().join("app").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let dir = Dir::open(folder.path()).unwrap();
        (folder, dir)
    }

    #[test]
    fn the_folder_that_the_build_has_made_is_published() {
        let (_folder, dir) = source(&["dist/index.html"]);
        let mut found = plan("dist", &["build"]);
        assert_eq!(settle(&dir, &mut found), Ok(None));
        let (_folder, dir) = source(&["build/index.html", "dist/data.json"]);
        let note = settle(&dir, &mut found).unwrap().unwrap();
        assert!(note.contains("`build`"), "{note}");
        assert_eq!(found.publish, Some("build".into()));
        assert!(matches!(&found.processes["web"], Command::StaticSite { root, .. } if root == Path::new("build")));
        // Without a page there may be files of all kinds.
        let (_folder, dir) = source(&["files/data.json"]);
        assert_eq!(settle(&dir, &mut plan("files", &[])), Ok(None));
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_with_what_is_there_instead() {
        for (files, says) in [
            (&["out/index.html", "lib/a.js"][..], "made no folder `dist`; `out` has an index.html"),
            (&["lib/a.js"], "made no folder `dist`; there are lib"),
            (&["dist"], "`dist` is a file and no folder; there is no folder at all"),
        ] {
            let (_folder, dir) = source(files);
            let error = settle(&dir, &mut plan("dist", &["build"])).unwrap_err();
            assert!(error.contains(says) && error.contains("callboard.toml"), "{error}");
        }
        let (folder, dir) = source(&[]);
        fs::create_dir(folder.path().join("app/dist")).unwrap();
        assert!(settle(&dir, &mut plan("dist", &[])).unwrap_err().contains("left nothing in `dist`"));
    }

    #[test]
    fn a_folder_that_leads_out_of_the_app_is_refused_and_a_link_within_it_is_followed() {
        let (folder, dir) = source(&["made/here/index.html"]);
        fs::create_dir(folder.path().join("other")).unwrap();
        fs::write(folder.path().join("other/index.html"), "x").unwrap();
        for (target, link) in [("made/here", "inner"), ("../other", "beside"), ("/etc", "outer")] {
            symlink(target, folder.path().join("app").join(link)).unwrap();
        }
        let mut found = plan("inner", &[]);
        assert_eq!(settle(&dir, &mut found), Ok(None));
        assert_eq!(found.publish, Some("made/here".into()));
        for link in ["beside", "outer"] {
            let error = settle(&dir, &mut plan(link, &[])).unwrap_err();
            assert!(error.contains("leads out of the app"), "{error}");
        }
    }

    #[test]
    fn a_site_that_is_served_as_it_is_is_released_alone() {
        let mut site = Plan { publish: None, ..plan("public", &[]) };
        imply(&mut site);
        assert_eq!(site.publish, Some("public".into()));
        let mut whole = Plan { publish: None, ..plan("", &[]) };
        imply(&mut whole);
        assert_eq!(whole.publish, None);
        let mut released = Plan { publish: None, release: Some(Command::Shell("x".into())), ..plan("public", &[]) };
        imply(&mut released);
        assert_eq!(released.publish, None);
    }
}
