//! Pointers of Git LFS, in the place of large files that were not fetched.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use callboard_supervisors::fs;

/// Upper bound of a pointer's size, by its specification.
const POINTER_BYTES: u64 = 1024;
/// Most names in the warning; the rest is counted.
const NAMED: usize = 5;

/// A warning that names the pointers in a source; `None` without any. Only for a source that nothing but the node has
/// written. Blocks; follows no links.
pub(crate) fn look_for(source: &Path) -> Option<String> {
    let mut found = Vec::new();
    let mut folders = vec![source.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() && metadata.len() < POINTER_BYTES && is_pointer(&entry.path()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    let relative = |path: &PathBuf| path.strip_prefix(source).unwrap_or(path).display().to_string();
    let mut names: Vec<String> = found.iter().take(NAMED).map(relative).collect();
    let files = match found.len() {
        0 => return None,
        1 => "1 file is a pointer of Git LFS and not the file that is meant".to_owned(),
        count => format!("{count} files are pointers of Git LFS and not the files that are meant"),
    };
    if found.len() > NAMED {
        names.push(format!("and {} more", found.len() - NAMED));
    }
    let names = names.join(", ");
    Some(format!("{files}: {names}. Nodes do not fetch them: run `git lfs pull` in a clone and deploy that folder"))
}

fn is_pointer(path: &Path) -> bool {
    let mut text = Vec::new();
    let read = fs::open(path).and_then(|file| file.take(POINTER_BYTES).read_to_end(&mut text));
    let has = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    read.is_ok() && text.starts_with(b"version https://git-lfs.github.com/spec/") && has(b"\noid ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_named_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let pointer =
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n", "0".repeat(64));
        fs::create_dir(folder.path().join("img")).unwrap();
        fs::write(folder.path().join("about-lfs.md"), "version https://git-lfs.github.com/spec/v1 is its first line")
            .unwrap();
        fs::write(folder.path().join("large"), pointer.clone() + &"x".repeat(1024)).unwrap();
        assert_eq!(look_for(folder.path()), None);
        fs::write(folder.path().join("img/a.png"), &pointer).unwrap();
        let sentence = look_for(folder.path()).unwrap();
        assert!(sentence.starts_with("1 file is a pointer of Git LFS and not the file that is meant: img/a.png. "));
        (0..7).for_each(|n| fs::write(folder.path().join(format!("{n}.bin")), &pointer).unwrap());
        let sentence = look_for(folder.path()).unwrap();
        assert!(
            sentence.starts_with("8 files are") && sentence.contains(": 0.bin, 1.bin, 2.bin, 3.bin, 4.bin, and 3 more")
        );
        assert!(sentence.contains("git lfs pull"));
    }
}
