//! Validation of credentials, which the gateway asks for once per token.

use std::time::Duration;

use callboard_messages::{
    CallError, Caller, OrganizationId, Principal,
    auth::{ADMINISTER, AuthError, ValidateToken, Validated},
    organization::Permissions,
};
use callboard_supervisors::{Handle, Outcome};
use serde::{Deserialize, Serialize};

use crate::{
    access_tokens::Claims,
    api_keys::{self, ApiKeyRow},
    state::Auth,
};

/// How long a validated API key may be cached, so that its last use is known to the minute.
const KEY_REMEMBERED: Duration = Duration::from_secs(60);

/// What a live session may do in an organization: known to the store and to `organization`, and not part of the token.
///
/// After each revocation every worker thread of every gateway asks about every token it has cached. So the answer is
/// cached here for all of them, with the count of revocations in its key: a revocation makes all earlier entries
/// unreachable, on every node that knows of it, also when Redis does not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Standing {
    administrator: bool,
    permissions: Permissions,
}

impl Handle<ValidateToken> for Auth {
    async fn handle(&self, caller: &Caller, message: ValidateToken) -> Outcome<ValidateToken> {
        let token = message.token.expose();
        if token.starts_with(api_keys::PREFIX) {
            self.validate_api_key(caller, token, message.organization_id).await
        } else {
            self.validate_access_token(caller, token, message.organization_id, message.revocation_count).await
        }
    }
}

impl Auth {
    async fn validate_access_token(
        &self,
        caller: &Caller,
        token: &str,
        organization_id: Option<OrganizationId>,
        revocation_count: u64,
    ) -> Outcome<ValidateToken> {
        let claims = self.verified_claims(token).await?;
        let user_id = claims.sub;
        let standing = match self.known_standing(caller, &claims, organization_id, revocation_count).await {
            // The token's own organization is gone, or the person was removed from it: sign in again.
            Err(CallError::Refused(AuthError::NotFound(_))) if organization_id.is_none() => {
                return Err(AuthError::InvalidToken.into());
            }
            other => other?,
        };
        let Standing { administrator, permissions } = standing;
        Ok(Validated {
            expires_at: claims.expires_at(),
            caller: Caller {
                principal: Principal::User,
                user_id: Some(user_id),
                organization_id: Some(permissions.organization_id),
                session_id: Some(claims.sid),
                api_key_id: None,
                scopes: permissions.scopes,
                administrator,
                ..caller.clone()
            },
        })
    }

    /// The standing, cached since the last known revocation, or read.
    async fn known_standing(
        &self,
        caller: &Caller,
        claims: &Claims,
        organization_id: Option<OrganizationId>,
        revocation_count: u64,
    ) -> Result<Standing, CallError<AuthError>> {
        let wanted = organization_id.unwrap_or(claims.org);
        let is_current = self.revocations.is_current();
        let count = self.revocations.count();
        if !self.shared.is_shared || !is_current || count < revocation_count {
            return self.standing(caller, claims, wanted).await;
        }
        let key = format!("{}:{}:{}:{count}", claims.sub, claims.sid, wanted.0);
        let load = async || self.standing(caller, claims, wanted).await.map(Some);
        self.shared.standings.get(&key, load).await?.ok_or_else(|| AuthError::InvalidToken.into())
    }

    async fn standing(
        &self,
        caller: &Caller,
        claims: &Claims,
        organization_id: OrganizationId,
    ) -> Result<Standing, CallError<AuthError>> {
        let administrator = self.live_session(claims).await?.ok_or(AuthError::InvalidToken)?;
        let permissions = self.permissions(caller, claims.sub, Some(organization_id)).await?;
        Ok(Standing { administrator, permissions })
    }

    /// Whether the person administers the platform; `None` when the session was ended.
    async fn live_session(&self, claims: &Claims) -> Result<Option<bool>, CallError<AuthError>> {
        let session: Option<(bool,)> = self
            .database
            .query(
                "SELECT a.administrator FROM sessions s JOIN accounts a ON a.id = s.account_id
                 WHERE s.id = $1 AND s.account_id = $2 AND s.revoked_at IS NULL AND s.expires_at > $3",
            )
            .bind(claims.sid)
            .bind(claims.sub)
            .bind(self.now())
            .fetch_optional()
            .await?;
        Ok(session.map(|(administrator,)| administrator))
    }

    async fn validate_api_key(
        &self,
        caller: &Caller,
        token: &str,
        organization_id: Option<OrganizationId>,
    ) -> Outcome<ValidateToken> {
        let now = self.now();
        let key = self.find_api_key(token).await?.ok_or(AuthError::InvalidToken)?;
        let ApiKeyRow { key, account_id: user_id, administrator, .. } = key;
        let own = key.organization_id;
        if organization_id.is_some_and(|wanted| wanted != own) {
            return Err(AuthError::NotFound("organization".to_owned()).into());
        }
        let permissions = match self.permissions(caller, user_id, Some(own)).await {
            Err(CallError::Refused(AuthError::NotFound(_))) => return Err(AuthError::InvalidToken.into()),
            other => other?,
        };
        self.note_use(&key, now);
        let scopes = key.scopes.both(&permissions.scopes);
        let remembered_until = now + KEY_REMEMBERED;
        Ok(Validated {
            expires_at: key.expires_at.map_or(remembered_until, |expires_at| expires_at.min(remembered_until)),
            caller: Caller {
                principal: Principal::ApiKey,
                user_id: Some(user_id),
                organization_id: Some(own),
                session_id: None,
                api_key_id: Some(key.id),
                // An administrator's key administers only with that scope.
                administrator: administrator && scopes.allows(ADMINISTER),
                scopes,
                ..caller.clone()
            },
        })
    }
}
