//! Counters and spans of calls and background work.

pub(crate) mod background;
pub(crate) mod stats;
pub mod trace;
