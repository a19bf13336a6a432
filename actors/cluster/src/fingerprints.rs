//! Fingerprints of settings that every node of a cluster must have in common, in the cluster's database.
//!
//! The first node records its own; another that differs does not start. A secret is never recorded: its fingerprint is
//! a keyed hash, which is useless without the secret.

use callboard_supervisors::db::{Database, Databases, Error};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::DOMAIN;

/// The part with a random text that goes into the fingerprints, so that those of two clusters with the same secret
/// differ.
const SALT: &str = "salt";

/// A recorded fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Fingerprint {
    /// The setting.
    pub part: String,
    /// A text that is the same for the same value.
    pub fingerprint: String,
    /// UTC.
    pub recorded_at: DateTime<Utc>,
}

/// The fingerprints of one cluster.
#[derive(Debug, Clone)]
pub struct Fingerprints {
    database: Database,
}

impl Fingerprints {
    /// The fingerprints in the database of `cluster`, which must have been migrated.
    ///
    /// # Errors
    /// When the database can't be opened.
    pub async fn open(databases: &Databases) -> Result<Self, Error> {
        Ok(Self { database: databases.open(DOMAIN).await? })
    }

    /// The salt of this cluster's fingerprints.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn salt(&self) -> Result<String, Error> {
        let random = Uuid::now_v7().simple().to_string();
        Ok(self.record(SALT, &random, Utc::now()).await?.fingerprint)
    }

    /// All fingerprints.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn all(&self) -> Result<Vec<Fingerprint>, Error> {
        self.database
            .query("SELECT part, fingerprint, recorded_at FROM fingerprints WHERE part <> $1 ORDER BY part")
            .bind(SALT)
            .fetch_all()
            .await
    }

    /// The fingerprint of a part, if one is recorded.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, part: &str) -> Result<Option<Fingerprint>, Error> {
        self.database
            .query("SELECT part, fingerprint, recorded_at FROM fingerprints WHERE part = $1")
            .bind(part.to_owned())
            .fetch_optional()
            .await
    }

    /// Records a part unless it is recorded. Returns the recorded one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record(&self, part: &str, fingerprint: &str, now: DateTime<Utc>) -> Result<Fingerprint, Error> {
        self.database
            .query(
                "INSERT INTO fingerprints (part, fingerprint, recorded_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            )
            .bind(part.to_owned())
            .bind(fingerprint.to_owned())
            .bind(now)
            .execute()
            .await?;
        self.database
            .query("SELECT part, fingerprint, recorded_at FROM fingerprints WHERE part = $1")
            .bind(part.to_owned())
            .fetch_one()
            .await
    }

    /// Replaces the fingerprint `before` of a part; false when another is recorded.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replace(&self, part: &str, before: &str, after: &str, now: DateTime<Utc>) -> Result<bool, Error> {
        let replaced = self
            .database
            .query("UPDATE fingerprints SET fingerprint = $3, recorded_at = $4 WHERE part = $1 AND fingerprint = $2")
            .bind(part.to_owned())
            .bind(before.to_owned())
            .bind(after.to_owned())
            .bind(now)
            .execute()
            .await?;
        Ok(replaced > 0)
    }

    /// Removes a part, which the next node that starts then records; false when none was recorded.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget(&self, part: &str) -> Result<bool, Error> {
        let forgotten =
            self.database.query("DELETE FROM fingerprints WHERE part = $1").bind(part.to_owned()).execute().await?;
        Ok(forgotten > 0)
    }
}
