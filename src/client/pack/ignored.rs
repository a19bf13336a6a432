//! Files in the syntax of `.gitignore` that say what is left out: `.callboardignore`, and `.gitignore` itself where git
//! can't be asked.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, Result};

/// The files of one name in a folder and below it. Those above it are not asked: they were written for something else.
pub struct Ignored {
    root: PathBuf,
    name: &'static str,
    folders: HashMap<PathBuf, Gitignore>,
}

impl Ignored {
    pub fn new(root: &Path, name: &'static str) -> Self {
        Self { root: root.to_owned(), name, folders: HashMap::new() }
    }

    /// Whether they name `path`, or a folder that it is in. The path is relative to the root.
    pub fn names(&mut self, path: &Path, is_folder: bool) -> Result<bool> {
        let parents: Vec<&Path> = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
        for parent in parents.into_iter().rev() {
            if self.names_itself(parent, true)? {
                return Ok(true);
            }
        }
        self.names_itself(path, is_folder)
    }

    /// The file that is nearest to the path decides.
    fn names_itself(&mut self, path: &Path, is_folder: bool) -> Result<bool> {
        let full = self.root.join(path);
        for folder in path.ancestors().skip(1) {
            let matched = self.of_folder(folder)?.matched(&full, is_folder);
            if !matched.is_none() {
                return Ok(matched.is_ignore());
            }
        }
        Ok(false)
    }

    fn of_folder(&mut self, folder: &Path) -> Result<&Gitignore> {
        if !self.folders.contains_key(folder) {
            let read = self.read(&self.root.join(folder))?;
            self.folders.insert(folder.to_owned(), read);
        }
        Ok(self.folders.entry(folder.to_owned()).or_insert_with(Gitignore::empty))
    }

    fn read(&self, folder: &Path) -> Result<Gitignore> {
        let file = folder.join(self.name);
        if !file.is_file() {
            return Ok(Gitignore::empty());
        }
        let wrong = |error: ignore::Error| {
            Error::usage(format!("could not understand {}: {error}", file.display()))
                .hint("what it names would be sent otherwise, so nothing is")
        };
        let mut builder = GitignoreBuilder::new(folder);
        if let Some(error) = builder.add(&file) {
            return Err(wrong(error));
        }
        builder.build().map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_nearest_file_decides_and_what_is_in_a_named_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join(".ignored"), "*.log\n/only-here\nout/\n").unwrap();
        fs::write(folder.path().join("a/.ignored"), "!kept.log\n").unwrap();
        let mut ignored = Ignored::new(folder.path(), ".ignored");
        for (path, named) in [
            ("x.log", true),
            ("a/b/x.log", true),
            ("a/b/kept.log", false),
            ("kept.log", true),
            ("only-here", true),
            ("a/only-here", false),
            ("a/out/deep/file", true),
            ("out", false),
            (".ignored", false),
        ] {
            assert_eq!(ignored.names(Path::new(path), false).unwrap(), named, "{path}");
        }
        assert!(ignored.names(Path::new("out"), true).unwrap());
        fs::write(folder.path().join("a/b/.ignored"), "[z-a]\n").unwrap();
        let mut ignored = Ignored::new(folder.path(), ".ignored");
        assert!(ignored.names(Path::new("a/b/c"), false).unwrap_err().sentence.contains("could not understand"));
    }
}
