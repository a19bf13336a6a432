//! Which folders of a `PATH` a child may search.

use std::{
    env,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use callboard_supervisors::fs;
use nix::unistd::{AccessFlags, access};

use crate::process::trampoline::RunAs;

/// The part of `path` that a child running as `user`, or else as this process does, may search. Blocks.
///
/// A shell reports a missing program as "may not be executed" when `PATH` has a folder that it may not search.
pub(super) fn searchable(path: &str, user: Option<RunAs>, hidden: &[PathBuf]) -> String {
    let is_open = |folder: &PathBuf| {
        folder.is_absolute() && !hidden.iter().any(|hidden| folder.starts_with(hidden)) && may_search(folder, user)
    };
    let folders = env::split_paths(path).filter(is_open);
    // No folder holds the separator: they were split at it.
    env::join_paths(folders).unwrap_or_default().to_string_lossy().into_owned()
}

/// True also of a folder that does not exist.
fn may_search(folder: &Path, user: Option<RunAs>) -> bool {
    let Some(user) = user else {
        return !matches!(access(folder, AccessFlags::X_OK), Err(nix::errno::Errno::EACCES));
    };
    let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let all = folder.ancestors().chain(real.ancestors());
    all.into_iter().all(|folder| match fs::metadata(folder) {
        Ok(metadata) => user.may_search(&metadata),
        Err(error) => error.kind() == ErrorKind::NotFound,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn folders_that_the_user_may_not_search_are_left_out_and_others_stay_in_order() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str, mode: u32| {
            let folder = root.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            folder.display().to_string()
        };
        let (open, closed, hidden) = (folder("open", 0o755), folder("closed", 0o700), folder("hidden", 0o755));
        let inside = format!("{closed}/bin");
        fs::create_dir(&inside).unwrap();
        let link = root.path().join("link").display().to_string();
        std::os::unix::fs::symlink(&inside, &link).unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let missing = format!("{open}/missing");
        let path = [&closed, &missing, "relative", "", &inside, &hidden, &link, "/usr/bin", &open]
            .map(str::to_owned)
            .join(":");
        let other = RunAs { uid: 12_345, gid: 12_345 };
        let hidden = [PathBuf::from(hidden)];
        assert_eq!(searchable(&path, Some(other), &hidden), format!("{missing}:/usr/bin:{open}"));
        let own = searchable(&path, None, &hidden);
        assert!(
            own.starts_with(&closed) && own.ends_with(&format!("/usr/bin:{open}")) && !own.contains("relative"),
            "{own}"
        );
    }
}
