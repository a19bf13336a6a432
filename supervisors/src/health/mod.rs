//! Health of a node's surroundings: dependencies, parts that a domain requires, the disk, and outages in the log.

pub(crate) mod condition;
pub(crate) mod dependency;
pub mod disk;
pub(crate) mod outage;
