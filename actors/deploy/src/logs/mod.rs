//! The logs of apps and deployments, from a program's output to the reader: cleaned and bounded lines, journals on the
//! node's disk, chunks in the object store.
//!
//! [`log`] writes to a journal and to the live topic with the same ids; [`journal`] reads and writes the files, [`chunks`]
//! the object store.

pub(crate) mod chunks;
pub(crate) mod excerpt;
pub(crate) mod journal;
pub(crate) mod last_words;
pub(crate) mod log;
pub(crate) mod mask;
pub mod output;
pub(crate) mod sweep;
pub mod terminal;
