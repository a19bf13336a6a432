//! What a build depends on, as one name: what has the same name need not be built again.

use callboard_messages::project::BuildConfig;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{detect::Plan, package};
use crate::folder::Dir;

/// Everything that decides what a build makes.
#[derive(Serialize)]
struct Key<'a> {
    /// Detection and packing of another version may differ.
    version: &'static str,
    machine: &'static str,
    source: &'a str,
    /// The steps, and with them and its key of the cache the tools and their versions.
    plan: &'a Plan,
    config: &'a BuildConfig,
    /// Stands for the variables: a hash of their values would say something about them to whoever reads it.
    environment_version: i64,
    /// Variables of the node's own that builds see.
    passed_through: &'a [String],
}

/// The name of a build of this source. `None` when the source can't be read as a whole; then it is built. Blocks.
pub(super) fn build_key(
    source: &Dir,
    plan: &Plan,
    config: &BuildConfig,
    environment_version: i64,
    passed_through: &[String],
) -> Option<String> {
    let content = match package::content_of(source) {
        Ok(content) => content,
        Err(error) => {
            tracing::debug!(%error, "the content of a source has no name");
            return None;
        }
    };
    let key = Key {
        version: env!("CARGO_PKG_VERSION"),
        machine: std::env::consts::ARCH,
        source: &content,
        plan,
        config,
        environment_version,
        passed_through,
    };
    Some(hex::encode(Sha256::digest(serde_json::to_vec(&key).ok()?)))
}
