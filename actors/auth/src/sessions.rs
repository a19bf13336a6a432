//! Sessions: started with a first pair of tokens, listed, ended.

use callboard_messages::{
    CallError, Caller, OrganizationId, Secret, SessionId, UserId,
    auth::{Account, AuthError, CredentialRevoked, ListSessions, Logout, LogoutAll, RevokeSession, Session, Tokens},
};
use callboard_supervisors::{
    Handle, Outcome,
    db::{Error, Transaction},
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{opaque, origins::Origin, refresh, state::Auth};

const USER_AGENT_LONGEST: usize = 200;

/// How a session starts.
pub(crate) struct Start {
    /// The organization that a request acts for by default.
    pub(crate) organization_id: OrganizationId,
    pub(crate) origin: Origin,
    /// The refresh token of a former session that this one replaces.
    pub(crate) replaces: Option<Secret>,
}

impl Auth {
    /// Starts a session of `account`, whose password or registration was just accepted.
    pub(crate) async fn start_session(
        &self,
        caller: &Caller,
        account: Account,
        start: Start,
    ) -> Result<Tokens, CallError<AuthError>> {
        let Start { organization_id, origin, replaces } = start;
        let now = self.now();
        let expires_at = now + self.settings.refresh_token_lifetime;
        let (session_id, refresh_token) = (SessionId::new(), opaque::random(refresh::PREFIX));
        let user_agent = caller.user_agent.as_deref().map(|agent| {
            agent.chars().filter(|character| !character.is_control()).take(USER_AGENT_LONGEST).collect::<String>()
        });
        self.revoking(async |transaction| {
            transaction
                .query(
                    "INSERT INTO sessions (id, account_id, address, user_agent, created_at, last_seen_at, expires_at)
                     VALUES ($1, $2, $3, $4, $5, $5, $6)",
                )
                .bind(session_id)
                .bind(account.id)
                .bind(caller.address.map(|address| address.to_string()))
                .bind(user_agent.clone())
                .bind(now)
                .bind(expires_at)
                .execute()
                .await?;
            refresh::insert(transaction, &refresh_token, session_id, expires_at).await?;
            Ok(((), replace(transaction, replaces.as_ref(), now).await?))
        })
        .await?;
        tracing::info!(target: "callboard::security", user_id = %account.id, %session_id, "a session was started");
        let device = match origin {
            Origin::Device { device, .. } => device,
            Origin::Network(_) => Uuid::now_v7(),
        };
        let device = self.shared.devices.token(account.id, device);
        let tokens = self.tokens(account, session_id, organization_id, refresh_token).await?;
        Ok(Tokens { device: Some(device), ..tokens })
    }

    /// The pair of tokens for a start or a refresh.
    pub(crate) async fn tokens(
        &self,
        account: Account,
        session_id: SessionId,
        organization_id: OrganizationId,
        refresh_token: Secret,
    ) -> Result<Tokens, CallError<AuthError>> {
        let access_token = self.access_token(account.id, session_id, organization_id).await?;
        Ok(Tokens {
            access_token,
            refresh_token,
            token_type: "Bearer".to_owned(),
            expires_in: self.settings.access_token_lifetime.as_secs(),
            session_id,
            account,
            device: None,
        })
    }

    /// Ends the live sessions of `user_id`, or `only` that one. Returns whether there was any.
    pub(crate) async fn end_sessions(
        &self,
        user_id: UserId,
        only: Option<SessionId>,
    ) -> Result<bool, CallError<AuthError>> {
        let now = self.now();
        self.revoking(async |transaction| {
            let ended = transaction
                .query(
                    "UPDATE sessions SET revoked_at = $3
                     WHERE account_id = $1 AND ($2 IS NULL OR id = $2) AND revoked_at IS NULL",
                )
                .bind(user_id)
                .bind(only)
                .bind(now)
                .execute()
                .await?;
            let revoked = only.map_or(CredentialRevoked::User(user_id), CredentialRevoked::Session);
            Ok((ended > 0, (ended > 0).then_some(revoked).into_iter().collect()))
        })
        .await
    }

    /// Ends one session of `user_id`. Returns whether it exists, live or ended before.
    async fn end_session(&self, user_id: UserId, session_id: SessionId) -> Result<bool, CallError<AuthError>> {
        if self.end_sessions(user_id, Some(session_id)).await? {
            return Ok(true);
        }
        let there: Option<(SessionId,)> = self
            .database
            .query("SELECT id FROM sessions WHERE id = $1 AND account_id = $2")
            .bind(session_id)
            .bind(user_id)
            .fetch_optional()
            .await?;
        Ok(there.is_some())
    }
}

/// Ends the session of this refresh token, of whatever account: the holder of the token gives it up.
async fn replace(
    transaction: &mut Transaction,
    refresh_token: Option<&Secret>,
    now: DateTime<Utc>,
) -> Result<Vec<CredentialRevoked>, Error> {
    let Some(refresh_token) = refresh_token else { return Ok(Vec::new()) };
    let ended: Vec<(SessionId,)> = transaction
        .query(
            "UPDATE sessions SET revoked_at = $2
             WHERE revoked_at IS NULL AND id IN (SELECT session_id FROM refresh_tokens WHERE token_hash = $1)
             RETURNING id",
        )
        .bind(opaque::hash(refresh_token.expose()))
        .bind(now)
        .fetch_all()
        .await?;
    Ok(ended.into_iter().map(|(id,)| CredentialRevoked::Session(id)).collect())
}

impl Handle<Logout> for Auth {
    async fn handle(&self, caller: &Caller, _: Logout) -> Outcome<Logout> {
        let user_id = caller.person()?;
        let Some(session_id) = caller.session_id else {
            return Err(
                AuthError::Invalid("an API key has no session to end; revoke the key instead".to_owned()).into()
            );
        };
        self.end_session(user_id, session_id).await?;
        Ok(())
    }
}

impl Handle<LogoutAll> for Auth {
    async fn handle(&self, caller: &Caller, _: LogoutAll) -> Outcome<LogoutAll> {
        self.end_sessions(caller.person()?, None).await?;
        Ok(())
    }
}

impl Handle<ListSessions> for Auth {
    async fn handle(&self, caller: &Caller, _: ListSessions) -> Outcome<ListSessions> {
        let sessions: Vec<Session> = self
            .database
            .read()
            .query(
                "SELECT id, address, user_agent, created_at, last_seen_at, COALESCE(id = $4, FALSE) AS current
                 FROM sessions
                 WHERE account_id = $1 AND revoked_at IS NULL AND expires_at > $2
                 ORDER BY id DESC LIMIT $3",
            )
            .bind(caller.person()?)
            .bind(self.now())
            .bind(ListSessions::MOST as i64)
            .bind(caller.session_id)
            .fetch_all()
            .await?;
        Ok(sessions)
    }
}

impl Handle<RevokeSession> for Auth {
    async fn handle(&self, caller: &Caller, message: RevokeSession) -> Outcome<RevokeSession> {
        if self.end_session(caller.person()?, message.session_id).await? {
            Ok(())
        } else {
            Err(AuthError::NotFound("session".to_owned()).into())
        }
    }
}
