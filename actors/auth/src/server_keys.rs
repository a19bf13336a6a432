//! Symmetric keys of the domain: created at the first start, sealed by the master key, never shown.

use callboard_supervisors::{StartError, db::Database, seal::MasterKey};
use chrono::{DateTime, Utc};

/// The key for `purpose`, the same on every node.
pub(crate) async fn ensure(
    database: &Database,
    master_key: &MasterKey,
    purpose: &str,
    now: DateTime<Utc>,
) -> Result<[u8; 32], StartError> {
    let identity = format!("auth/server_keys/{purpose}");
    if let Some(stored) = find(database, purpose).await? {
        return open(master_key, &identity, &stored);
    }
    let (wrapped, data_key) = master_key.wrap_new_key(identity.as_bytes()).map_err(StartError::new)?;
    let sealed = data_key.seal(&rand::random::<[u8; 32]>(), identity.as_bytes()).map_err(StartError::new)?;
    database
        .query(
            "INSERT INTO server_keys (purpose, wrapped_key, sealed_key, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
        )
        .bind(purpose.to_owned())
        .bind(wrapped)
        .bind(sealed)
        .bind(now)
        .execute()
        .await
        .map_err(StartError::new)?;
    // Of two nodes that start together, both use the key that was stored first.
    let stored = find(database, purpose).await?.ok_or_else(|| StartError::from("a key of auth vanished"))?;
    open(master_key, &identity, &stored)
}

type Stored = (Vec<u8>, Vec<u8>);

async fn find(database: &Database, purpose: &str) -> Result<Option<Stored>, StartError> {
    database
        .query("SELECT wrapped_key, sealed_key FROM server_keys WHERE purpose = $1")
        .bind(purpose.to_owned())
        .fetch_optional()
        .await
        .map_err(StartError::new)
}

fn open(master_key: &MasterKey, identity: &str, (wrapped, sealed): &Stored) -> Result<[u8; 32], StartError> {
    master_key
        .unwrap(wrapped, identity.as_bytes())
        .and_then(|data_key| data_key.open(sealed, identity.as_bytes()))
        .map_err(wrong_master_key)?
        .try_into()
        .map_err(|_| StartError::from("a key of auth has another length than it was made with"))
}

/// The likely reason why a sealed key of auth does not open.
pub(crate) fn wrong_master_key(_: impl std::error::Error) -> StartError {
    StartError::from(
        "the keys of auth were sealed with another master key: set CALLBOARD_MASTER_KEY to the one this database was \
         first used with",
    )
}
