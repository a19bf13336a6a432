//! What every node of a cluster must have in common, as the cluster's database remembers it.
//!
//! The first node records what it has; whoever differs is told so before it does anything. A secret is never recorded:
//! its fingerprint is a keyed hash, which is of use to nobody who has not got the secret.

use callboard_supervisors::db::{Database, Databases, Error};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::DOMAIN;

/// A part under which no setting is recorded, but a random text that goes into the fingerprints: those of two clusters
/// with the same secret differ.
const SALT: &str = "salt";

/// A fingerprint as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Fingerprint {
    /// Of what.
    pub part: String,
    /// A text that is the same for the same setting.
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
    /// Those in the database of `cluster`, whose schema is up to date.
    ///
    /// # Errors
    /// When the database can't be opened.
    pub async fn open(databases: &Databases) -> Result<Self, Error> {
        Ok(Self { database: databases.open(DOMAIN).await? })
    }

    /// The text that goes into the fingerprints of this cluster.
    ///
    /// # Errors
    /// When the database can't tell.
    pub async fn salt(&self) -> Result<String, Error> {
        let random = Uuid::now_v7().simple().to_string();
        Ok(self.record(SALT, &random, Utc::now()).await?.fingerprint)
    }

    /// All of them.
    ///
    /// # Errors
    /// When the database can't tell.
    pub async fn all(&self) -> Result<Vec<Fingerprint>, Error> {
        self.database
            .query("SELECT part, fingerprint, recorded_at FROM fingerprints WHERE part <> $1 ORDER BY part")
            .bind(SALT)
            .fetch_all()
            .await
    }

    /// What is recorded of a part, if anything is.
    ///
    /// # Errors
    /// When the database can't tell.
    pub async fn get(&self, part: &str) -> Result<Option<Fingerprint>, Error> {
        self.database
            .query("SELECT part, fingerprint, recorded_at FROM fingerprints WHERE part = $1")
            .bind(part.to_owned())
            .fetch_optional()
            .await
    }

    /// Records a part unless it is recorded; what is then.
    ///
    /// # Errors
    /// When the database can't tell.
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

    /// Records another fingerprint of a part in the place of `before`; false when that is not what is recorded.
    ///
    /// # Errors
    /// When the database can't tell.
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

    /// Forgets a part, which the next node to start then records; false when nothing was recorded.
    ///
    /// # Errors
    /// When the database can't tell.
    pub async fn forget(&self, part: &str) -> Result<bool, Error> {
        let forgotten =
            self.database.query("DELETE FROM fingerprints WHERE part = $1").bind(part.to_owned()).execute().await?;
        Ok(forgotten > 0)
    }
}
