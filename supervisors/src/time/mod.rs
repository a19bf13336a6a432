//! The clock that all of a node goes by, and what is tried again as it passes.

pub(crate) mod clock;
pub(crate) mod retry;
