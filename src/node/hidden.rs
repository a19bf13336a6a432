//! Files of a node that are hidden from builds and apps, where the kernel can: they often run as the node's user.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use super::objects;
use crate::config::Settings;

/// Folders of secrets in containers, a pod's own tokens among them.
const SECRETS: [&str; 2] = ["/run/secrets", "/var/run/secrets"];
/// Folders where all programs have files, often without subfolders.
const SHARED: [&str; 3] = ["/dev/shm", "/tmp", "/var/tmp"];

/// The data folder, the objects, and all that holds secrets.
pub fn paths(settings: &Settings, data: &Path) -> Vec<PathBuf> {
    let cloud = env::vars_os().filter(|(name, _)| is_cloud_credential(name)).map(|(_, file)| PathBuf::from(file));
    let files: Vec<PathBuf> = settings.private.iter().cloned().chain(cloud).collect();
    let needed = needed();
    let folders = files.iter().flat_map(|file| folders_of(file)).filter(|folder| holds_only_files(folder, &needed));
    let mut hidden: BTreeSet<PathBuf> = folders.collect();
    hidden.extend(files);
    hidden.extend(SECRETS.map(PathBuf::from));
    hidden.insert(data.to_owned());
    hidden.extend(objects::folder(&settings.objects, data));
    hidden.into_iter().collect()
}

/// Whether a variable names the file of a pod's role, such as `AWS_WEB_IDENTITY_TOKEN_FILE`.
fn is_cloud_credential(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("AWS_") && name.ends_with("_FILE"))
}

/// The folder that names a file, and the one that it is in: mounted secrets are links.
fn folders_of(file: &Path) -> impl Iterator<Item = PathBuf> {
    let real = file.canonicalize().ok();
    [Some(file.to_owned()), real].into_iter().flatten().filter_map(|file| file.parent().map(Path::to_owned))
}

/// Whether a folder was made for a secret and its files, and is not one that programs use.
fn holds_only_files(folder: &Path, needed: &[PathBuf]) -> bool {
    let Ok(real) = folder.canonicalize() else { return false };
    let Ok(entries) = fs::read_dir(&real) else { return false };
    // The folder `..2026_11_21` has the files that those of a secret mounted by Kubernetes link to.
    let is_file = |entry: fs::DirEntry| {
        entry.file_name().as_encoded_bytes().starts_with(b"..")
            || fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file())
    };
    entries.flatten().all(is_file) && !needed.iter().any(|path| path.starts_with(&real))
}

/// Paths that builds and apps need, by the node's own variables.
fn needed() -> Vec<PathBuf> {
    let certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT"];
    let named = certificates.into_iter().chain(["HOME"]).filter_map(env::var_os).map(PathBuf::from);
    let programs = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let ours = [Some(env::temp_dir()), env::current_exe().ok()].into_iter().flatten();
    let all = named.chain(programs).chain(ours).chain(SHARED.map(PathBuf::from));
    all.filter_map(|path| path.canonicalize().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_of_secrets_is_told_from_one_that_programs_look_into() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for folder in ["keys", "mounted/..2026_11_21", "shared/ssl", "bin"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["keys/key", "keys/other", "mounted/..2026_11_21/key", "shared/key", "bin/program"] {
            fs::write(root.join(file), "").unwrap();
        }
        symlink("..2026_11_21", root.join("mounted/..data")).unwrap();
        symlink("..data/key", root.join("mounted/key")).unwrap();
        let needed = [root.join("bin/program")];
        for (folder, expected) in [("keys", true), ("mounted", true), ("shared", false), ("bin", false), ("no", false)]
        {
            assert_eq!(holds_only_files(&root.join(folder), &needed), expected, "{folder}");
        }
        let folders: Vec<_> = folders_of(&root.join("mounted/key")).collect();
        assert_eq!(folders, [root.join("mounted"), root.join("mounted/..2026_11_21")]);
    }

    #[test]
    fn a_file_by_which_a_pod_gets_its_role_is_known() {
        assert!(is_cloud_credential(OsStr::new("AWS_WEB_IDENTITY_TOKEN_FILE")));
        assert!(!is_cloud_credential(OsStr::new("SSL_CERT_FILE")) && !is_cloud_credential(OsStr::new("AWS_REGION")));
    }
}
