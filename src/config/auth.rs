//! Accounts and sessions.

use std::time::Duration;

use callboard_auth::{AuthSettings, Registration};
use callboard_supervisors::seal::MasterKey;

use super::{reader::Reader, value::Value};

/// Settings of auth, before the platform's URL and the master key are known.
#[derive(Debug)]
pub struct AuthChoice {
    /// `CALLBOARD_REGISTRATION`: open, invite or closed.
    pub registration: Registration,
    /// `CALLBOARD_ACCESS_TOKEN_LIFETIME`.
    pub access_token_lifetime: Duration,
    /// `CALLBOARD_REFRESH_TOKEN_LIFETIME`.
    pub refresh_token_lifetime: Duration,
    /// `CALLBOARD_BCRYPT_COST`: logarithm of the rounds.
    pub bcrypt_cost: u32,
}

impl Value for Registration {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "open" => Ok(Self::Open),
            "invite" => Ok(Self::Invite),
            "closed" => Ok(Self::Closed),
            _ => Err("open, invite or closed".to_owned()),
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Open => "open".to_owned(),
            Self::Invite => "invite".to_owned(),
            Self::Closed => "closed".to_owned(),
        }
    }
}

impl AuthChoice {
    pub(super) fn read(reader: &mut Reader) -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            registration: reader.value(
                "CALLBOARD_REGISTRATION",
                "Who may make an account: open (anybody), invite (whoever an administrator invited) or closed.",
                Registration::default(),
            ),
            access_token_lifetime: reader.within(
                "CALLBOARD_ACCESS_TOKEN_LIFETIME",
                "How long an access token is valid.",
                15 * MINUTE,
                MINUTE..=DAY,
            ),
            refresh_token_lifetime: reader.within(
                "CALLBOARD_REFRESH_TOKEN_LIFETIME",
                "How long a session lasts after its last use.",
                7 * DAY,
                MINUTE..=365 * DAY,
            ),
            bcrypt_cost: reader.within(
                "CALLBOARD_BCRYPT_COST",
                "Logarithm of the rounds of bcrypt for new passwords.",
                12,
                4..=16,
            ),
        }
    }

    /// As auth takes it.
    pub fn settings(&self, issuer: &str, master_key: MasterKey) -> AuthSettings {
        AuthSettings {
            registration: self.registration,
            access_token_lifetime: self.access_token_lifetime,
            refresh_token_lifetime: self.refresh_token_lifetime,
            bcrypt_cost: self.bcrypt_cost,
            ..AuthSettings::new(issuer, master_key)
        }
    }
}
