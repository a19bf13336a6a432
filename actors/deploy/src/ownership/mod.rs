//! Which node runs an app: claims with fencing tokens, handover when a node stops, takeover when one is gone, and recovery
//! at the start.
//!
//! An app belongs to the node that has claimed its row ([`claim`]); every node that runs apps scans for those that no node
//! owns, or whose owner is gone ([`watcher`]). Builds belong to the node that claimed them in the same way.

pub(crate) mod claim;
pub(crate) mod handover;
pub(crate) mod lifecycle;
pub(crate) mod nodes;
pub(crate) mod recovery;
pub(crate) mod watcher;
pub(crate) mod work;
