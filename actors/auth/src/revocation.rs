//! The count of revocations: raised in each transaction that revokes, and published to caches of valid credentials.

use callboard_messages::{
    CallError, Caller,
    auth::{AuthError, CredentialRevoked, GetRevocationCount, RevocationCount},
};
use callboard_supervisors::{
    Handle, Outcome,
    db::{Error, Transaction},
};
use chrono::{DateTime, Utc};

use crate::state::Auth;

/// Raises the count. Must be the last statement of its transaction: revocations wait for one another here, for the time
/// of a commit, and hold all other locks they need by then, so that there is no deadlock.
pub(crate) async fn raise(transaction: &mut Transaction, now: DateTime<Utc>) -> Result<u64, Error> {
    let count: i64 = transaction
        .query(
            "UPDATE revocation_count SET count = CASE WHEN count < $1 THEN $1 ELSE count + 1 END WHERE id = 1
             RETURNING count",
        )
        .bind(now.timestamp_micros())
        .fetch_scalar()
        .await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

impl Auth {
    /// Runs `work` in a transaction. It returns the revoked credentials beside its outcome; if there are any, the count is
    /// raised in the transaction, and published.
    pub(crate) async fn revoking<T>(
        &self,
        work: impl AsyncFn(&mut Transaction) -> Result<(T, Vec<CredentialRevoked>), Error>,
    ) -> Result<T, CallError<AuthError>> {
        let now = self.now();
        let revoke = async |transaction: &mut Transaction| -> Result<_, Error> {
            let (outcome, revoked) = work(transaction).await?;
            let count = if revoked.is_empty() { None } else { Some(raise(transaction, now).await?) };
            Ok((outcome, revoked, count))
        };
        let (outcome, revoked, count) = match self.database.transact(revoke).await {
            Ok(done) => done,
            Err(error) => {
                if error.is_unknown() {
                    self.revocations.doubt();
                }
                return Err(error.into());
            }
        };
        if let Some(count) = count {
            for revoked in &revoked {
                self.revocations.revoke(revoked, count);
            }
        }
        Ok(outcome)
    }
}

impl Handle<GetRevocationCount> for Auth {
    async fn handle(&self, _: &Caller, _: GetRevocationCount) -> Outcome<GetRevocationCount> {
        let count: i64 = self.database.query("SELECT count FROM revocation_count WHERE id = 1").fetch_scalar().await?;
        Ok(RevocationCount { count: u64::try_from(count).unwrap_or_default() })
    }
}
