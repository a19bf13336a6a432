//! From a queued deployment to a release: the queue's builders, the pipeline that each build runs, and its steps.
//!
//! A source is unpacked ([`archive`]) or fetched ([`fetch`]); [`detect`] makes a plan of it for the node's [`tools`], [`executor`] runs the plan's
//! steps, and [`package`] makes an immutable release of the result. These know nothing of the database or of messages.

pub mod archive;
pub(crate) mod builders;
pub mod cache;
pub mod detect;
pub mod executor;
pub mod fetch;
mod identity;
mod lfs;
pub mod package;
mod pipeline;
mod publish;
pub(crate) mod requeue;
pub mod tools;
