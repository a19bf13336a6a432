//! The clock of a node, and retries by it.

pub(crate) mod clock;
pub(crate) mod retry;
