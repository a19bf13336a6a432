//! Folders of an app that one build leaves to the next, such as `.next/cache`. They are moved, by descriptor and through no
//! link: what a build has put in their place leads nowhere.

use std::{
    ffi::OsStr,
    io,
    path::{Component, Path},
};

use super::{FOLDERS, short};
use crate::{
    build::detect::Cache,
    folder::{Dir, is_exchanged},
    process::trampoline::RunAs,
};

const MODE: u32 = 0o755;

/// Moves the folders of a former build of the same key into the app, where nothing is in their place. Returns how many.
pub(super) fn restore(cache_folder: &Path, app: &Path, cache: &Cache, user: Option<RunAs>) -> io::Result<usize> {
    let kept = Dir::open(cache_folder)?.open_dir(Path::new(FOLDERS));
    let kept = match kept.and_then(|kept| kept.open_dir(Path::new(&short(&[&cache.key])))) {
        Ok(kept) => kept,
        Err(error) if is_exchanged(&error) => return Ok(0),
        Err(error) => return Err(error),
    };
    let app = Dir::open(app)?;
    let mut restored = 0;
    for path in cache.folders.iter().filter(|path| is_inner(path)) {
        let name = name_of(path);
        let Ok(stat) = kept.stat(OsStr::new(&name)) else { continue };
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            continue;
        }
        match make_parents(&app, path, user).and_then(|()| kept.move_to(Path::new(&name), &app, path)) {
            Ok(()) => restored += 1,
            // The source has brought something of its own, or a link, on the way there.
            Err(error) if is_exchanged(&error) || is_taken(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(restored)
}

/// Moves the folders that the plan names out of the app into the cache; nothing of another key stays there.
pub(super) fn collect(cache_folder: &Path, source: &Dir, root: &Path, cache: &Cache) -> io::Result<Vec<String>> {
    let outer = Dir::open(cache_folder)?;
    outer.remove(OsStr::new(FOLDERS))?;
    if cache.folders.is_empty() {
        return Ok(Vec::new());
    }
    let app = match source.open_dir(root) {
        Ok(app) => app,
        // The build has put something else in its place, and packing says so.
        Err(error) if is_exchanged(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let place = Path::new(FOLDERS).join(short(&[&cache.key]));
    outer.create_dir(Path::new(FOLDERS), MODE)?;
    outer.create_dir(&place, MODE)?;
    let kept = outer.open_dir(&place)?;
    let mut notes = Vec::new();
    for path in &cache.folders {
        if !is_inner(path) {
            notes.push(format!("`{}` leads out of the app and is not kept for the next build", path.display()));
            continue;
        }
        match app.open_dir(path) {
            Ok(_) => app.move_to(path, &kept, Path::new(&name_of(path)))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if is_exchanged(&error) => notes.push(format!(
                "`{}` is a link or a file, or behind a link, and is not kept for the next build",
                path.display()
            )),
            Err(error) => return Err(error),
        }
    }
    Ok(notes)
}

/// The name of a folder of the app within the cache.
fn name_of(path: &Path) -> String {
    short(&[&path.to_string_lossy()])
}

fn is_inner(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Makes the folders above `path`, beneath the app.
fn make_parents(app: &Dir, path: &Path, user: Option<RunAs>) -> io::Result<()> {
    let parents: Vec<&Path> = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
    for parent in parents.into_iter().rev() {
        match app.create_dir(parent, MODE) {
            Ok(()) => {
                if let Some(user) = user {
                    app.open_dir(parent)?.give(user)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory
    )
}
