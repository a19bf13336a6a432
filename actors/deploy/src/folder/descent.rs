//! Descents into folders and back up.

use std::{ffi::OsStr, io, path::Path};

use super::dir::{Dir, Identity};

/// Most folders above that stay open.
const HELD: usize = 64;

/// A descent into a folder and back, to any depth: few descriptors are open at a time, and nothing recurses.
pub(crate) struct Descent {
    here: Dir,
    above: Vec<Above>,
}

enum Above {
    Open(Dir),
    /// A closed one, found again by the `..` of the folder below it.
    Known(Identity),
}

/// The outcome of going up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Up {
    /// The folder above.
    Outer,
    /// The folder where the descent began.
    Root,
    /// A folder was moved meanwhile, and its `..` is another one. The descent is over.
    Moved,
}

impl Descent {
    pub(crate) const fn new(root: Dir) -> Self {
        Self { here: root, above: Vec::new() }
    }

    pub(crate) const fn here(&self) -> &Dir {
        &self.here
    }

    /// Number of folders above this one.
    pub(crate) const fn depth(&self) -> usize {
        self.above.len()
    }

    /// Enters a folder of this one; stays here when that can't be opened.
    pub(crate) fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        let inner = self.here.open_dir(Path::new(name))?;
        self.enter_opened(inner)
    }

    /// The same for an open folder.
    pub(crate) fn enter_opened(&mut self, inner: Dir) -> io::Result<()> {
        if let Some(far) = self.above.len().checked_sub(HELD).and_then(|index| self.above.get_mut(index))
            && let Above::Open(dir) = far
        {
            *far = Above::Known(dir.identity()?);
        }
        self.above.push(Above::Open(std::mem::replace(&mut self.here, inner)));
        Ok(())
    }

    /// Returns to the folder above.
    pub(crate) fn leave(&mut self) -> io::Result<Up> {
        let Some(above) = self.above.pop() else { return Ok(Up::Root) };
        self.here = match above {
            Above::Open(dir) => dir,
            Above::Known(identity) => {
                let outer = self.here.outer()?;
                if outer.identity()? != identity {
                    return Ok(Up::Moved);
                }
                outer
            }
        };
        Ok(Up::Outer)
    }
}
