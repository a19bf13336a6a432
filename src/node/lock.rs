//! One node per data folder.
//!
//! The kernel holds the lock for as long as the process lives, so that a node that was killed leaves none behind.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

use crate::error::{Context, Error, Result};

/// The lock, held while the node runs.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Locks the folder, which is created if it does not exist; the error names the process that has it.
pub fn take(data: &Path) -> Result<Lock> {
    make_private_folder(data).context(|| format!("make the data folder {}", data.display()))?;
    let path = data.join("lock");
    let mut file = File::options()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .context(|| format!("write in the data folder {}", data.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            drop(file.read_to_string(&mut holder));
            let data = data.display();
            return Err(Error::failure(format!(
                "another node runs on the data folder {data} (process {})",
                holder.trim()
            ))
            .hint("stop it, or start this one with another --data"));
        }
        Err(TryLockError::Error(error)) => {
            return Err(Error::failure(format!("could not lock {}: {error}", path.display()))
                .hint("the data folder must be on a file system that supports locks"));
        }
    }
    let write = |mut file: &File| -> std::io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&file).context(|| format!("write {}", path.display()))?;
    Ok(Lock { _file: file })
}

/// Creates a folder for its owner only; the rights of an existing one are its owner's business.
fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_node_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = take(folder.path()).unwrap();
        let refused = take(folder.path()).unwrap_err();
        assert!(refused.sentence.contains(&format!("process {}", std::process::id())), "{}", refused.sentence);
        drop(first);
        take(folder.path()).unwrap();
    }
}
