//! Settings of auth.

use std::{num::NonZero, thread, time::Duration};

use callboard_supervisors::seal::MasterKey;

/// Who may register. Before the first administrator exists, only the holder of the set-up token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// Anybody.
    Open,
    /// People with an invitation.
    #[default]
    Invite,
    /// Nobody.
    Closed,
}

/// The settings of auth, each with its default in [`AuthSettings::new`].
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// `iss` of every token, and the address of the discovery documents: the platform's own URL.
    pub issuer: String,
    /// `aud` of every token. Default: `callboard`.
    pub audience: String,
    /// Default: 15 minutes.
    pub access_token_lifetime: Duration,
    /// Counted from the last refresh. Default: 7 days.
    pub refresh_token_lifetime: Duration,
    /// Default: by invitation.
    pub registration: Registration,
    /// Logarithm of the rounds of bcrypt. Default: 12.
    pub bcrypt_cost: u32,
    /// Threads that compute bcrypt. Default: half of the processors, so that a burst of sign-ins leaves the rest of the
    /// node its share.
    pub bcrypt_threads: usize,
    /// Sign-ins and registrations that may wait for such a thread; further ones are refused at once. Default: 16 for
    /// each thread, at most [`WAITING_MOST`].
    pub bcrypt_queue: usize,
    /// How many of them may be from one address (IPv6: one /64), or from the devices that one account knows. Default:
    /// half.
    pub bcrypt_share: usize,
    /// Seals secrets at rest. With another key than before auth refuses to start.
    pub master_key: MasterKey,
}

/// Most sign-ins that may wait for bcrypt: each holds a permit of its shard meanwhile.
pub const WAITING_MOST: usize = 64;

impl AuthSettings {
    /// The defaults.
    pub fn new(issuer: impl Into<String>, master_key: MasterKey) -> Self {
        let threads = (thread::available_parallelism().map_or(1, NonZero::get) / 2).max(1);
        let queue = (16 * threads).min(WAITING_MOST);
        Self {
            issuer: issuer.into(),
            audience: "callboard".to_owned(),
            access_token_lifetime: Duration::from_secs(15 * 60),
            refresh_token_lifetime: Duration::from_secs(7 * 24 * 60 * 60),
            registration: Registration::default(),
            bcrypt_cost: 12,
            bcrypt_threads: threads,
            bcrypt_queue: queue,
            bcrypt_share: queue / 2,
            master_key,
        }
    }

    /// Checks the settings together.
    ///
    /// # Errors
    /// A sentence for each invalid one.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let mut wrong = Vec::new();
        if self.issuer.trim().is_empty() {
            wrong.push("auth: the issuer must be the platform's URL".to_owned());
        }
        if self.audience.trim().is_empty() {
            wrong.push("auth: the audience must not be empty".to_owned());
        }
        if !(Duration::from_secs(60)..=DAY).contains(&self.access_token_lifetime) {
            wrong.push("auth: an access token must live between a minute and a day".to_owned());
        }
        if self.refresh_token_lifetime < self.access_token_lifetime || self.refresh_token_lifetime > 365 * DAY {
            wrong.push("auth: a refresh token must live longer than an access token, and a year at most".to_owned());
        }
        if !(4..=16).contains(&self.bcrypt_cost) {
            wrong.push("auth: the cost of bcrypt must be between 4 and 16; 12 is right for most machines".to_owned());
        }
        if self.bcrypt_threads == 0 {
            wrong.push("auth: bcrypt needs at least one thread".to_owned());
        }
        if !(1..=WAITING_MOST).contains(&self.bcrypt_queue) || !(1..=self.bcrypt_queue).contains(&self.bcrypt_share) {
            wrong.push(format!(
                "auth: 1 to {WAITING_MOST} may wait for bcrypt, and of one address at least 1 and no more than all"
            ));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_every_mistake_has_its_sentence() {
        let settings = AuthSettings::new("http://localhost:8080", MasterKey::generate().unwrap());
        assert_eq!(settings.validate(), Ok(()));
        let wrong = AuthSettings {
            issuer: String::new(),
            audience: " ".to_owned(),
            access_token_lifetime: Duration::ZERO,
            refresh_token_lifetime: Duration::from_secs(400 * 24 * 60 * 60),
            bcrypt_cost: 3,
            bcrypt_threads: 0,
            bcrypt_share: WAITING_MOST + 1,
            ..settings
        };
        assert_eq!(wrong.validate().unwrap_err().len(), 7);
    }
}
