//! Access tokens: JWTs, RS256, a quarter of an hour.
//!
//! What is accepted is exactly what is issued. The header holds `typ`, `alg` and `kid` and nothing else, so that no token
//! can name a key of its own; every claim is required, once, in its own type. Expiry has no leeway; `iat` and `nbf` have
//! [`LEEWAY`], for nodes whose clocks differ.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use callboard_messages::{CallError, Failure, OrganizationId, Secret, SessionId, UserId, auth::AuthError};
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    settings::AuthSettings,
    signing_keys::{Ring, SigningKey},
    state::Auth,
};

/// How far another node's clock may be ahead.
pub(crate) const LEEWAY: Duration = Duration::from_secs(5);

/// Longest accepted token: four times any of ours. A longer one is not even decoded.
const LONGEST: usize = 4096;
const KIND: &str = "at+jwt";
const ALGORITHM: &str = "RS256";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenHeader {
    typ: String,
    alg: String,
    pub(crate) kid: String,
}

/// The claims of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) aud: String,
    /// The account.
    pub(crate) sub: UserId,
    /// The session.
    pub(crate) sid: SessionId,
    /// The organization to act for by default.
    pub(crate) org: OrganizationId,
    /// The id of this token.
    pub(crate) jti: Uuid,
    /// Seconds since 1970, like the two after it.
    pub(crate) iat: i64,
    pub(crate) nbf: i64,
    pub(crate) exp: i64,
}

impl Claims {
    pub(crate) fn expires_at(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.exp, 0).unwrap_or(DateTime::UNIX_EPOCH)
    }
}

impl Auth {
    /// A new access token of the session.
    pub(crate) async fn access_token(
        &self,
        user_id: UserId,
        session_id: SessionId,
        organization_id: OrganizationId,
    ) -> Result<Secret, CallError<AuthError>> {
        let ring = self.shared.signing_keys.current(&self.settings, &self.database, &self.context.clock).await?;
        let now = self.now().timestamp();
        let lifetime = i64::try_from(self.settings.access_token_lifetime.as_secs()).unwrap_or(i64::MAX);
        let claims = Claims {
            iss: self.settings.issuer.clone(),
            aud: self.settings.audience.clone(),
            sub: user_id,
            sid: session_id,
            org: organization_id,
            jti: Uuid::now_v7(),
            iat: now,
            nbf: now,
            exp: now.saturating_add(lifetime),
        };
        Ok(sign(&ring.signing, &claims)?)
    }

    /// The claims of a token that was issued here and has not expired.
    pub(crate) async fn verified_claims(&self, token: &str) -> Result<Claims, CallError<AuthError>> {
        let header = header(token).ok_or(AuthError::InvalidToken)?;
        let keys = &self.shared.signing_keys;
        let ring = keys.holding(&header.kid, &self.settings, &self.database, &self.context.clock).await?;
        Ok(verify(&ring, &self.settings, self.now(), token, &header)?)
    }
}

/// Issues the token.
pub(crate) fn sign(key: &SigningKey, claims: &Claims) -> Result<Secret, Failure> {
    let broken = |error: serde_json::Error| Failure::Internal(format!("an access token: {error}"));
    let header = TokenHeader { typ: KIND.to_owned(), alg: ALGORITHM.to_owned(), kid: key.kid.clone() };
    let header = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).map_err(broken)?);
    let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).map_err(broken)?);
    let message = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes())?);
    Ok(Secret::new(format!("{message}.{signature}")))
}

/// The header, if it has only our fields. It is not verified yet.
fn header(token: &str) -> Option<TokenHeader> {
    if token.len() > LONGEST {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header: TokenHeader = serde_json::from_slice(&bytes).ok()?;
    (header.typ == KIND && header.alg == ALGORITHM).then_some(header)
}

fn verify(
    ring: &Ring,
    settings: &AuthSettings,
    now: DateTime<Utc>,
    token: &str,
    header: &TokenHeader,
) -> Result<Claims, AuthError> {
    let invalid = |reason: &str| {
        tracing::debug!(target: "callboard::security", reason, "an access token was refused");
        AuthError::InvalidToken
    };
    let key = ring.verifying(&header.kid, now).ok_or_else(|| invalid("unknown key"))?;
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_issuer(&[&settings.issuer]);
    validation.set_audience(&[&settings.audience]);
    validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
    // Checked below, by the node's clock.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let claims: Claims =
        jsonwebtoken::decode(token, &key.key, &validation).map_err(|error| invalid(&error.to_string()))?.claims;

    let (now, leeway) = (now.timestamp(), i64::try_from(LEEWAY.as_secs()).unwrap_or(0));
    if claims.exp <= now {
        return Err(invalid("expired"));
    }
    if claims.nbf > now + leeway || claims.iat > now + leeway {
        return Err(invalid("not valid yet"));
    }
    Ok(claims)
}
