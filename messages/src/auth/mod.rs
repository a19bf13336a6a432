//! `auth`: who is calling, and may they.

mod accounts;
mod api_keys;
mod invitations;
mod registration;
mod revocation;
mod sessions;
mod signing_keys;
mod validation;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{DomainError, code::codes};

pub use accounts::{Account, Identity, UserRegistered, WhoAmI};
pub use api_keys::{ADMINISTER, ApiKey, ApiKeyWithSecret, CreateApiKey, IssueLocalKey, ListApiKeys, RevokeApiKey};
pub use invitations::{CreateInvitation, Invitation, IssueSetupToken};
pub use registration::Register;
pub use revocation::{CredentialRevoked, GetRevocationCount, RevocationCount};
pub use sessions::{ListSessions, Login, Logout, LogoutAll, RefreshToken, RevokeSession, Session, Tokens};
pub use signing_keys::{GetJwks, Jwk, Jwks, RotateSigningKey};
pub use validation::{ValidateToken, Validated};

/// What auth refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuthError {
    /// The same for an unknown account and a wrong password.
    #[error("the e-mail address or the password is wrong")]
    WrongCredentials,
    /// A token, key or session that is malformed, expired, revoked or forged.
    #[error("the token is not valid; sign in again")]
    InvalidToken,
    /// A spent refresh token was presented again: its whole family is revoked.
    #[error("this refresh token was used before, so its session has been ended; sign in again")]
    RefreshReused,
    /// Too many failures for this account from this address.
    #[error("too many failed attempts; try again later")]
    LockedOut {
        /// When the next attempt is allowed.
        retry_after: Duration,
    },
    /// The account exists already.
    #[error("an account with this e-mail address exists; sign in instead")]
    EmailTaken,
    /// Not an e-mail address.
    #[error("that is not an e-mail address")]
    InvalidEmail,
    /// Shorter than 10 characters, longer than 128, or easily guessed.
    #[error("{0}")]
    WeakPassword(String),
    /// Registration is by invitation or closed, and the token is missing, spent or expired.
    #[error("registration needs a valid invitation; ask an administrator for one")]
    InvitationRequired,
    /// Registration is closed on this node.
    #[error("registration is closed on this platform")]
    RegistrationClosed,
    /// A scope that the caller does not hold.
    #[error("you can't give a key the scope {0}, which you don't hold yourself")]
    InvalidScope(String),
    /// A field breaks its rule.
    #[error("{0}")]
    Invalid(String),
    /// No such session, key or organization of the caller's.
    #[error("there is no such {0}")]
    NotFound(String),
}

impl DomainError for AuthError {
    codes! {
        Self::WrongCredentials | Self::InvalidToken | Self::RefreshReused => Unauthenticated,
        Self::LockedOut { .. } => RateLimited,
        Self::EmailTaken => Conflict,
        Self::InvalidEmail | Self::WeakPassword(_) | Self::Invalid(_) => Invalid,
        Self::InvitationRequired | Self::RegistrationClosed | Self::InvalidScope(_) => Forbidden,
        Self::NotFound(_) => NotFound,
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::LockedOut { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}
