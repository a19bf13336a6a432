//! Pruning of expired rows: every hour, at one of the nodes.

use chrono::{DateTime, TimeDelta, Utc};

use callboard_supervisors::{
    db::{Database, Error},
    schedule::{Schedule, Slot},
};

use crate::lockout;

/// Expired rows stay for this long: another node's clock may be behind.
const CLOCKS: TimeDelta = TimeDelta::hours(1);
/// API keys that expired or were revoked stay for this long, for the question why a program is refused.
const ENDED_KEYS: TimeDelta = TimeDelta::days(30);
/// Rows removed by one statement, so that none holds the database for long.
const AT_ONCE: i64 = 1_000;

pub(crate) fn schedule() -> Schedule {
    Schedule::cron("prune", "37 * * * *", |slot: Slot| async move {
        let now = slot.clock.now();
        prune(&slot.database, now).await
    })
}

async fn prune(database: &Database, now: DateTime<Utc>) -> Result<(), Error> {
    let of = [
        // No token outlives its session, so that the deletion of a session cascades to none.
        (
            "DELETE FROM refresh_tokens WHERE token_hash IN
                (SELECT token_hash FROM refresh_tokens WHERE expires_at < $1 LIMIT $2)",
            CLOCKS,
        ),
        // Ended sessions too: until then a client may end one again.
        ("DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at < $1 LIMIT $2)", CLOCKS),
        // Spent ones too, and set-up tokens.
        ("DELETE FROM invitations WHERE id IN (SELECT id FROM invitations WHERE expires_at < $1 LIMIT $2)", CLOCKS),
        ("DELETE FROM api_keys WHERE id IN (SELECT id FROM api_keys WHERE expires_at < $1 LIMIT $2)", ENDED_KEYS),
        ("DELETE FROM api_keys WHERE id IN (SELECT id FROM api_keys WHERE revoked_at < $1 LIMIT $2)", ENDED_KEYS),
        (
            "DELETE FROM login_failures WHERE (email, address) IN
                (SELECT email, address FROM login_failures WHERE last_failed_at < $1 LIMIT $2)",
            lockout::FORGOTTEN_AFTER,
        ),
    ];
    for (sql, kept) in of {
        while database.query(sql).bind(now - kept).bind(AT_ONCE).execute().await? > 0 {}
    }
    Ok(())
}
