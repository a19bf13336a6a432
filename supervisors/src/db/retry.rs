//! Transactions that are run again when the database could not fit them in beside others.

use std::time::Duration;

use super::{Database, Error, Transaction};

/// How often a transaction is run, all in all.
const ATTEMPTS: u32 = 5;

/// The pause before the second attempt, at most; it doubles with each.
const PAUSE: Duration = Duration::from_millis(10);

impl Database {
    /// Runs `work` in a transaction and commits it. When another transaction stood in its way (a deadlock, a
    /// serialization failure), all of it was taken back, and it is run again after a pause of random length, a few times.
    /// `work` must therefore do nothing but ask this transaction.
    ///
    /// # Errors
    /// Those of `work`, which take everything back, and of the commit. A commit whose outcome nobody knows is never run
    /// again.
    pub async fn transact<T, E: From<Error>>(
        &self,
        mut work: impl AsyncFnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempt = 1;
        loop {
            let mut transaction = self.begin().await?;
            let error = match work(&mut transaction).await {
                Ok(value) => match transaction.commit().await {
                    Ok(()) => return Ok(value),
                    Err(error) if error.is_clash() && attempt < ATTEMPTS => error.to_string(),
                    Err(error) => return Err(error.into()),
                },
                Err(_) if transaction.has_clashed() && attempt < ATTEMPTS => {
                    transaction.rollback_quietly().await;
                    "a statement of it".to_owned()
                }
                Err(error) => return Err(error),
            };
            tracing::debug!(domain = self.domain(), attempt, error, "a transaction clashed and is run again");
            tokio::time::sleep(PAUSE.mul_f64(f64::from(1 << attempt) * rand::random::<f64>())).await;
            attempt += 1;
        }
    }
}
