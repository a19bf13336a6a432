//! What is well and what is away: the parts that a domain needs, what stands outside of the node and whether it answers,
//! the disk, and outages as the log tells them.

pub(crate) mod condition;
pub(crate) mod dependency;
pub mod disk;
pub(crate) mod outage;
