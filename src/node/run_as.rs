//! The user of builds and apps, and its access to the data folder.
//!
//! A node that is root runs them as nobody: what of the machine is root's is not theirs. That user passes through the
//! data folder to its own folders and finds everything else in it closed.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use callboard_deploy::process::trampoline::RunAs;

use crate::error::{Context, Error, Result};

/// `nobody` where there is no such name.
const NOBODY: RunAs = RunAs { uid: 65_534, gid: 65_534 };
/// Folders on the way to files of apps.
const PASSED: [&str; 4] = ["deploy", "deploy/instances", "deploy/processes", "deploy/work"];
/// Folders without files of apps.
const CLOSED: [&str; 4] = ["databases", "objects", "deploy/logs", "deploy/caches"];

/// The user of builds and apps.
///
/// `chosen` is `CALLBOARD_RUN_AS`. Without it, and where nobody can't get to the data folder, they run as the node.
pub fn choose(chosen: Option<RunAs>, data: &Path) -> Result<Option<RunAs>> {
    let is_root = nix::unistd::geteuid().is_root();
    let user = match (chosen, is_root) {
        (None, false) => return Ok(None),
        (Some(_), false) => {
            return Err(Error::usage("CALLBOARD_RUN_AS needs a node that runs as root")
                .hint("leave it out: builds and apps then run as the node's own user"));
        }
        (Some(root), true) if root.uid == 0 => return Ok(None),
        (Some(user), true) => user,
        (None, true) => nobody(),
    };
    match (barrier(data, user), chosen) {
        (None, _) => Ok(Some(user)),
        (Some(folder), Some(_)) => {
            let sentence = format!("user {} of CALLBOARD_RUN_AS can't pass through {}", user.uid, folder.display());
            Err(Error::usage(sentence).hint("put the data folder elsewhere, such as /var/lib/callboard"))
        }
        (Some(folder), None) => {
            tracing::warn!(
                "builds and apps run as root, because no other user can pass through {}; put the data folder \
                 elsewhere, such as /var/lib/callboard, and they run as user {}",
                folder.display(),
                user.uid
            );
            Ok(None)
        }
    }
}

fn nobody() -> RunAs {
    let user = nix::unistd::User::from_name("nobody").ok().flatten();
    user.map_or(NOBODY, |user| RunAs { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

/// The first folder above `data` that the user can't pass through.
fn barrier(data: &Path, user: RunAs) -> Option<PathBuf> {
    let mut above: Vec<&Path> = data.ancestors().skip(1).collect();
    above.reverse();
    let passes = |folder: &Path| fs::metadata(folder).is_ok_and(|metadata| user.may_search(&metadata));
    above.into_iter().find(|folder| !passes(folder)).map(Path::to_owned)
}

/// Lets that user pass through the data folder, which has its stores already.
pub fn open(data: &Path) -> Result {
    try_open(data).context(|| format!("let the apps' user pass through {}", data.display()))
}

/// Closes first, so that nothing is open at any time.
fn try_open(data: &Path) -> io::Result<()> {
    fs::create_dir_all(data.join("deploy/logs"))?;
    // With PostgreSQL there are no databases here.
    for folder in CLOSED.map(|folder| data.join(folder)).iter().filter(|folder| folder.exists()) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    for folder in PASSED {
        let folder = data.join(folder);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
    }
    let mode = fs::metadata(data)?.permissions().mode() & 0o7777;
    fs::set_permissions(data, fs::Permissions::from_mode(mode | 0o011))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const OTHER: RunAs = RunAs { uid: 12_345, gid: 12_345 };

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_folder_above_the_data_that_is_closed_to_others_is_named() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(barrier(&data, OTHER).as_deref(), Some(home.path()));
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(barrier(&data, OTHER), None);
    }

    #[test]
    fn only_the_way_to_the_apps_own_folders_is_opened() {
        let data = tempfile::tempdir().unwrap();
        fs::set_permissions(data.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(data.path().join("master.key"), "").unwrap();
        for store in ["databases", "objects", "deploy/caches"] {
            fs::create_dir_all(data.path().join(store)).unwrap();
        }
        open(data.path()).unwrap();
        assert_eq!(mode(data.path()), 0o711);
        for closed in CLOSED {
            assert_eq!(mode(&data.path().join(closed)), 0o700, "{closed}");
        }
        for passed in PASSED {
            assert_eq!(mode(&data.path().join(passed)), 0o711, "{passed}");
        }
    }
}
