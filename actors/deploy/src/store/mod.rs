//! The domain's tables, a file for each noun: their rows, and the statements that several actors share.
//!
//! A deployment moves only by conditional updates: whoever finds it no longer where it expected has lost, so a cancel
//! and a completion can't both happen, on any number of nodes.

pub(crate) mod apps;
pub(crate) mod archives;
pub(crate) mod caches;
pub(crate) mod deployments;
pub(crate) mod owners;
pub(crate) mod release_runs;
pub(crate) mod releases;
pub(crate) mod sources;
pub(crate) mod steps;
