//! Lockout: failed sign-ins delay the next one to this account from this origin.
//!
//! The first few failures cost nothing; then the delay doubles from a second to a quarter of an hour. It is never a
//! lock that somebody else could cause for ever: another address, or a device that the account knows, is not affected,
//! and failures expire after a day. Accounts that do not exist are treated alike.

use std::time::Duration;

use callboard_messages::{CallError, auth::AuthError};
use callboard_supervisors::db::{Database, Error, Transaction};
use chrono::{DateTime, TimeDelta, Utc};

use crate::origins::Origin;

/// Failures without a delay.
const FREE: i64 = 4;
const LONGEST: Duration = Duration::from_secs(15 * 60);
pub(crate) const FORGOTTEN_AFTER: TimeDelta = TimeDelta::hours(24);

/// The failures of one account from one origin.
pub(crate) struct Lockout<'a> {
    database: &'a Database,
    email: &'a str,
    /// The key of the origin.
    address: String,
}

impl<'a> Lockout<'a> {
    pub(crate) fn new(database: &'a Database, email: &'a str, origin: &Origin) -> Self {
        Self { database, email, address: origin.key() }
    }

    /// Refuses during a delay.
    pub(crate) async fn check(&self, now: DateTime<Utc>) -> Result<(), CallError<AuthError>> {
        let row: Option<(DateTime<Utc>,)> = self
            .database
            .query("SELECT locked_until FROM login_failures WHERE email = $1 AND address = $2")
            .bind(self.email.to_owned())
            .bind(self.address.clone())
            .fetch_optional()
            .await?;
        match row {
            Some((locked_until,)) if locked_until > now => {
                let retry_after = (locked_until - now).to_std().unwrap_or_default();
                Err(AuthError::LockedOut { retry_after }.into())
            }
            _ => Ok(()),
        }
    }

    /// Counts a failure; refuses instead if concurrent failures have caused a delay meanwhile.
    pub(crate) async fn failed(&self, now: DateTime<Utc>) -> Result<(), CallError<AuthError>> {
        let count = async |transaction: &mut Transaction| -> Result<Option<i64>, Error> {
            transaction
                .query("DELETE FROM login_failures WHERE email = $1 AND address = $2 AND last_failed_at < $3")
                .bind(self.email.to_owned())
                .bind(self.address.clone())
                .bind(now - FORGOTTEN_AFTER)
                .execute()
                .await?;
            let failures: Option<(i64,)> = transaction
                .query(
                    "INSERT INTO login_failures (email, address, failures, last_failed_at, locked_until)
                     VALUES ($1, $2, 1, $3, $3)
                     ON CONFLICT (email, address) DO UPDATE
                     SET failures = login_failures.failures + 1, last_failed_at = excluded.last_failed_at
                     WHERE login_failures.locked_until <= excluded.last_failed_at
                     RETURNING failures",
                )
                .bind(self.email.to_owned())
                .bind(self.address.clone())
                .bind(now)
                .fetch_optional()
                .await?;
            let Some((failures,)) = failures else { return Ok(None) };
            let delay = delay(failures);
            if !delay.is_zero() {
                transaction
                    .query("UPDATE login_failures SET locked_until = $3 WHERE email = $1 AND address = $2")
                    .bind(self.email.to_owned())
                    .bind(self.address.clone())
                    .bind(now + delay)
                    .execute()
                    .await?;
            }
            Ok(Some(failures))
        };
        let Some(failures) = self.database.transact(count).await? else { return self.check(now).await };
        let delay = delay(failures);
        if !delay.is_zero() {
            tracing::warn!(
                target: "callboard::security",
                email = self.email, address = self.address, failures, delay_seconds = delay.as_secs(),
                "sign-in is delayed after failed attempts"
            );
        }
        Ok(())
    }

    /// Forgets the failures: the right password was given outside of a delay.
    pub(crate) async fn succeeded(&self) -> Result<(), Error> {
        self.database
            .query("DELETE FROM login_failures WHERE email = $1 AND address = $2")
            .bind(self.email.to_owned())
            .bind(self.address.clone())
            .execute()
            .await?;
        Ok(())
    }
}

fn delay(failures: i64) -> Duration {
    let doublings = match failures - FREE - 1 {
        ..0 => return Duration::ZERO,
        doublings => u32::try_from(doublings).unwrap_or(u32::MAX),
    };
    Duration::from_secs(1).saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_from_a_second_to_a_quarter_of_an_hour() {
        let seconds = |failures| delay(failures).as_secs();
        assert_eq!([1, 4, 5, 6, 7, 14, 15, 100, i64::MAX].map(seconds), [0, 0, 1, 2, 4, 512, 900, 900, 900]);
    }
}
