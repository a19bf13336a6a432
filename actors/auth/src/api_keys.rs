//! API keys for programs: `cb_<prefix>_<secret>`, shown once.
//!
//! The prefix finds the key and identifies it in lists; of the secret, 192 random bits, only the hash is stored. A key
//! never allows more than its owner may do at that moment.

use std::time::Duration;

use callboard_messages::{
    ApiKeyId, Caller, NodeId, OrganizationId, Scopes, Secret, UserId,
    auth::{ApiKey, ApiKeyWithSecret, AuthError, CreateApiKey, CredentialRevoked, ListApiKeys, RevokeApiKey},
};
use callboard_supervisors::{
    Handle, Outcome,
    db::{Error, Transaction},
};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::types::Json;

use crate::{opaque, scopes::Permissions, state::Auth};

/// Prefix of every key.
pub(crate) const PREFIX: &str = "cb_";

const LONGEST: usize = 128;
const NAME_LONGEST: usize = 100;
const SCOPES_MOST: usize = 50;
/// Precision of the time of last use.
const USE_NOTED: Duration = Duration::from_secs(60);

/// A key with what only auth may know of it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct ApiKeyRow {
    #[sqlx(flatten)]
    pub(crate) key: ApiKey,
    pub(crate) account_id: UserId,
    secret_hash: String,
    /// Whether its owner administers the platform.
    pub(crate) administrator: bool,
}

/// A key to create.
#[derive(Clone)]
pub(crate) struct NewKey {
    pub(crate) account_id: UserId,
    pub(crate) organization_id: OrganizationId,
    pub(crate) name: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    /// For the command line on the node's own machine.
    pub(crate) local: bool,
    /// The node of that machine.
    pub(crate) node: Option<NodeId>,
}

/// Stores a new key.
pub(crate) async fn insert(
    transaction: &mut Transaction,
    key: NewKey,
    now: DateTime<Utc>,
) -> Result<ApiKeyWithSecret, Error> {
    let prefix = hex::encode(rand::random::<[u8; 5]>());
    let secret = hex::encode(rand::random::<[u8; 24]>());
    let secret = Secret::new(format!("{PREFIX}{prefix}_{secret}"));
    let api_key = ApiKey {
        id: ApiKeyId::new(),
        name: key.name,
        prefix,
        organization_id: key.organization_id,
        scopes: Scopes::new(key.scopes),
        created_at: now,
        expires_at: key.expires_at,
        last_used_at: None,
    };
    transaction
        .query(
            "INSERT INTO api_keys
                 (id, account_id, organization_id, name, prefix, secret_hash, scopes, local, created_at, expires_at,
                  node)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(api_key.id)
        .bind(key.account_id)
        .bind(api_key.organization_id)
        .bind(api_key.name.clone())
        .bind(api_key.prefix.clone())
        .bind(opaque::hash(secret.expose()))
        .bind(Json(api_key.scopes.clone()))
        .bind(key.local)
        .bind(api_key.created_at)
        .bind(api_key.expires_at)
        .bind(key.node)
        .execute()
        .await?;
    Ok(ApiKeyWithSecret { api_key, secret })
}

impl Auth {
    /// The live key of this text.
    pub(crate) async fn find_api_key(&self, token: &str) -> Result<Option<ApiKeyRow>, Error> {
        let Some((prefix, _)) = token.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')) else {
            return Ok(None);
        };
        if token.len() > LONGEST {
            return Ok(None);
        }
        let row: Option<ApiKeyRow> = self
            .database
            .query(
                "SELECT k.id, k.account_id, k.organization_id, k.name, k.prefix, k.secret_hash, k.scopes, k.created_at,
                        k.expires_at, k.last_used_at, a.administrator
                 FROM api_keys k JOIN accounts a ON a.id = k.account_id
                 WHERE k.prefix = $1 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $2)",
            )
            .bind(prefix.to_owned())
            .bind(self.now())
            .fetch_optional()
            .await?;
        let given = opaque::hash(token);
        Ok(row.filter(|row| opaque::equal(&row.secret_hash, &given)))
    }

    /// Notes the key's use in the background, and at most once a minute.
    pub(crate) fn note_use(&self, key: &ApiKey, now: DateTime<Utc>) {
        let due = now - USE_NOTED;
        if key.last_used_at.is_some_and(|last| last > due) {
            return;
        }
        let (database, id) = (self.database.clone(), key.id);
        self.context.spawn("note the use of an API key", async move {
            let noted = database
                .query(
                    "UPDATE api_keys SET last_used_at = $2
                     WHERE id = $1 AND (last_used_at IS NULL OR last_used_at <= $3)",
                )
                .bind(id)
                .bind(now)
                .bind(due)
                .execute()
                .await;
            if let Some(error) = noted.as_ref().err().and_then(callboard_supervisors::db::Error::outside_outage) {
                tracing::warn!(%error, api_key_id = %id, "the use of an API key could not be noted");
            }
        });
    }
}

fn check(
    caller: &Caller,
    message: &CreateApiKey,
    permissions: &Permissions,
    now: DateTime<Utc>,
) -> Result<(), AuthError> {
    let name = message.name.trim();
    if !(1..=NAME_LONGEST).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(AuthError::Invalid(format!(
            "a key's name is 1 to {NAME_LONGEST} characters without control characters"
        )));
    }
    if !(1..=SCOPES_MOST).contains(&message.scopes.len()) {
        return Err(AuthError::Invalid(format!("a key has 1 to {SCOPES_MOST} scopes")));
    }
    for scope in &message.scopes {
        permissions.check(scope, caller)?;
    }
    // PostgreSQL's last year is smaller than chrono's.
    let last = now + TimeDelta::days(100 * 366);
    if message.expires_at.is_some_and(|expires_at| expires_at <= now || expires_at > last) {
        return Err(AuthError::Invalid("a key must expire in the future, within a hundred years".to_owned()));
    }
    Ok(())
}

impl Handle<CreateApiKey> for Auth {
    async fn handle(&self, caller: &Caller, message: CreateApiKey) -> Outcome<CreateApiKey> {
        let (user_id, organization_id) = (caller.person()?, caller.tenant()?);
        let now = self.now();
        check(caller, &message, &Permissions::of(&self.context.bus), now)?;
        let key = NewKey {
            account_id: user_id,
            organization_id,
            name: message.name.trim().to_owned(),
            scopes: message.scopes,
            expires_at: message.expires_at.and_then(|at| DateTime::from_timestamp_micros(at.timestamp_micros())),
            local: false,
            node: None,
        };
        let create = async |transaction: &mut Transaction| -> Outcome<CreateApiKey> {
            Ok(insert(transaction, key.clone(), now).await?)
        };
        let created = self.database.once::<CreateApiKey>(caller, &self.context.clock, create).await?;
        tracing::info!(
            target: "callboard::security",
            user_id = %user_id, api_key_id = %created.api_key.id, "an API key was created"
        );
        Ok(created)
    }
}

impl Handle<ListApiKeys> for Auth {
    async fn handle(&self, caller: &Caller, _: ListApiKeys) -> Outcome<ListApiKeys> {
        let keys: Vec<ApiKey> = self
            .database
            .read()
            .query(
                "SELECT id, organization_id, name, prefix, scopes, created_at, expires_at, last_used_at
                 FROM api_keys
                 WHERE account_id = $1 AND organization_id = $2 AND revoked_at IS NULL
                 ORDER BY id DESC LIMIT $3",
            )
            .bind(caller.person()?)
            .bind(caller.tenant()?)
            .bind(ListApiKeys::MOST as i64)
            .fetch_all()
            .await?;
        Ok(keys)
    }
}

impl Handle<RevokeApiKey> for Auth {
    async fn handle(&self, caller: &Caller, message: RevokeApiKey) -> Outcome<RevokeApiKey> {
        let (user_id, organization_id) = (caller.person()?, caller.tenant()?);
        let now = self.now();
        let revoked = self
            .revoking(async |transaction| {
                let revoked = transaction
                    .query(
                        "UPDATE api_keys SET revoked_at = $4
                         WHERE id = $1 AND account_id = $2 AND organization_id = $3 AND revoked_at IS NULL",
                    )
                    .bind(message.api_key_id)
                    .bind(user_id)
                    .bind(organization_id)
                    .bind(now)
                    .execute()
                    .await?;
                let credential = CredentialRevoked::ApiKey(message.api_key_id);
                Ok((revoked > 0, (revoked > 0).then_some(credential).into_iter().collect()))
            })
            .await?;
        if revoked {
            return Ok(());
        }
        let there: Option<(ApiKeyId,)> = self
            .database
            .query("SELECT id FROM api_keys WHERE id = $1 AND account_id = $2 AND organization_id = $3")
            .bind(message.api_key_id)
            .bind(user_id)
            .bind(organization_id)
            .fetch_optional()
            .await?;
        match there {
            Some(_) => Ok(()),
            None => Err(AuthError::NotFound("API key".to_owned()).into()),
        }
    }
}
