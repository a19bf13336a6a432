//! The node itself.

use std::path::PathBuf;

use callboard_messages::Secret;
use callboard_supervisors::seal::MasterKey;

use super::reader::Reader;

/// Settings of the node itself.
#[derive(Debug)]
pub struct NodeSettings {
    /// `CALLBOARD_DATA`: the folder of everything the node keeps.
    pub data: PathBuf,
    /// `CALLBOARD_LOG`: what is logged.
    pub log: String,
    /// `CALLBOARD_MASTER_KEY`, or `_FILE`: wraps the keys that seal the apps' secrets.
    pub master_key: Option<Secret>,
}

impl NodeSettings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let settings = Self {
            data: reader.value("CALLBOARD_DATA", "The folder of everything the node keeps.", "data"),
            log: reader.value(
                "CALLBOARD_LOG",
                "What is logged: error, warn, info, debug or trace, or a list such as callboard_deploy=debug,info.",
                "info,actix_server=warn,lapin=off",
            ),
            master_key: reader.secret(
                "CALLBOARD_MASTER_KEY",
                "32 bytes in base64 that wrap the keys of the apps' secrets; made in the data folder when not set.",
            ),
        };
        let wrong = settings.master_key.as_ref().and_then(|key| MasterKey::from_base64(key.expose()).err());
        reader.require(wrong.is_none(), || {
            let why = wrong.map(|wrong| wrong.to_string()).unwrap_or_default();
            format!("CALLBOARD_MASTER_KEY is not usable: {why}")
        });
        settings
    }
}
