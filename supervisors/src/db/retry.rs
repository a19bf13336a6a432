//! Transactions that are retried when they conflict with others.

use std::time::Duration;

use super::{Database, Error, Transaction};

/// Most runs of a transaction.
const ATTEMPTS: u32 = 5;

/// The longest pause before the second run; it doubles with each.
const PAUSE: Duration = Duration::from_millis(10);

impl Database {
    /// Runs `work` in a transaction and commits it. When it conflicts with another transaction (a deadlock, a
    /// serialization failure), all of it was rolled back, and it is retried a few times after a pause of random length.
    /// `work` must therefore do nothing but query this transaction.
    ///
    /// # Errors
    /// Those of `work`, which roll everything back, and of the commit. A commit whose outcome is unknown is never
    /// retried.
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
            tracing::debug!(domain = self.domain(), attempt, error, "a transaction conflicted with another; retrying");
            tokio::time::sleep(PAUSE.mul_f64(f64::from(1 << attempt) * rand::random::<f64>())).await;
            attempt += 1;
        }
    }
}
