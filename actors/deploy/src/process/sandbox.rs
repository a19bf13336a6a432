//! Keeps a child out of the node's own folders, processes and signals, by Landlock.
//!
//! A child often runs as the node's own user, which may read the master key and the node's memory. Landlock takes that
//! away from a process and all its descendants, needs no privilege, and can't be undone by one: what is hidden can't be
//! opened, and only the child's own processes can be traced, signalled or inspected.
//!
//! Landlock only knows what is allowed, so everything beside a hidden path, at each level above it, is allowed one by
//! one. What appears there later is not; a program finds a place for its files in `HOME` and `TMPDIR`.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use callboard_supervisors::fs;
use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _, RulesetError, Scope,
};
use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
};

/// Hides `hidden`, apart from `own`, from this process for good. Returns whether the kernel supports it.
///
/// The folders above what is hidden can be listed with `may_list`, and with them, as far as Landlock is concerned, all
/// folders: the right to list one includes those in it.
pub(super) fn hide(hidden: &[PathBuf], own: &[PathBuf], may_list: bool) -> Result<bool, RulesetError> {
    let hidden = outermost(hidden.iter().filter_map(|path| fs::canonicalize(path).ok()).collect());
    if hidden.is_empty() {
        return Ok(true);
    }
    let Ok(mut rules) = rules() else { return Ok(false) };
    for path in beside(&hidden).iter().chain(own) {
        // Removed meanwhile, or not accessible to the node: then not to the child either.
        let Ok(descriptor) = open(path) else { continue };
        rules = rules.add_rule(PathBeneath::new(descriptor, AccessFs::from_all(ABI::V3)))?;
    }
    if may_list && let Ok(root) = open(Path::new("/")) {
        rules = rules.add_rule(PathBeneath::new(root, AccessFs::ReadDir))?;
    }
    rules.restrict_self()?;
    Ok(true)
}

/// Opens the path itself, without following a link that a program may have put in its place meanwhile.
fn open(path: &Path) -> Result<OwnedFd, Errno> {
    #[expect(clippy::disallowed_methods, reason = "this process becomes a program, and nothing else waits for it")]
    let descriptor = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&descriptor)?.st_mode);
    if kind.is_symlink() { Err(Errno::LOOP) } else { Ok(descriptor) }
}

/// The capabilities that programs of root keep, as in most containers: over their own files and ports, not the machine.
const KEPT: [Capability; 11] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SETFCAP,
];

/// Bounds the capabilities of the node's children, where the node is root.
pub(super) fn bound_privileges() -> Result<(), CapsError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let kept = CapsHashSet::from(KEPT);
    for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
        caps::drop(None, CapSet::Bounding, *capability)?;
    }
    Ok(())
}

/// Whether this kernel has Landlock.
pub(super) fn is_supported() -> bool {
    rules().is_ok()
}

fn rules() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        // Version 1 forbids moving files between folders, which package managers do.
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::Truncate)?
        .scope(Scope::Signal)?
        .create()
}

/// Those of `hidden` that lie in no other: what is beside an inner one is in the outer one, and hidden too.
fn outermost(mut hidden: Vec<PathBuf>) -> Vec<PathBuf> {
    // Sorted by components, a folder comes right before all that is in it.
    hidden.sort_unstable();
    hidden.dedup_by(|path, before| path.starts_with(before));
    hidden
}

/// The entries beside `hidden` and beside the folders above it. Links are left out: one could lead into what is hidden,
/// and its target is allowed where it is.
fn beside(hidden: &[PathBuf]) -> Vec<PathBuf> {
    let mut above: Vec<&Path> = hidden.iter().flat_map(|folder| folder.ancestors().skip(1)).collect();
    above.sort_unstable();
    above.dedup();
    let entries = above.into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()));
    real.map(|entry| entry.path()).filter(|path| !hidden.iter().any(|folder| folder.starts_with(path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_place_of_what_is_allowed_allows_nothing() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("data")).unwrap();
        std::os::unix::fs::symlink(root.path().join("data"), root.path().join("link")).unwrap();
        assert!(open(&root.path().join("data")).is_ok());
        assert_eq!(open(&root.path().join("link")).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn all_but_what_is_hidden_and_the_way_to_it_is_allowed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("home/node/data/objects")).unwrap();
        fs::create_dir_all(root.join("home/other")).unwrap();
        fs::write(root.join("home/node/file"), "").unwrap();
        std::os::unix::fs::symlink(root.join("home/node/data"), root.join("home/link")).unwrap();
        let mut allowed = beside(&[root.join("home/node/data")]);
        allowed.retain(|path| path.starts_with(&root));
        allowed.sort();
        assert_eq!(allowed, [root.join("home/node/file"), root.join("home/other")]);
    }

    #[test]
    fn what_is_hidden_twice_opens_nothing_of_what_is_around_it() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let hidden = ["/run/secrets/key", "/data/objects", "/data-2", "/data", "/run/secrets", "/data/objects/x"];
        assert_eq!(outermost(paths(&hidden)), paths(&["/data", "/data-2", "/run/secrets"]));
    }
}
