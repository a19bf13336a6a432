//! Transactions that are retried when they conflict with others.

use std::time::Duration;

use futures_util::future::BoxFuture;

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
            let outcome = work(&mut transaction).await;
            match end(transaction, outcome.is_ok(), attempt).await {
                Ending::Ended => return outcome,
                Ending::Retried => attempt += 1,
                Ending::Failed(error) => return Err(error.into()),
            }
        }
    }
}

/// How one run of a transaction ended.
enum Ending {
    /// As its work did.
    Ended,
    /// Rolled back by a conflict, and due again.
    Retried,
    /// Its work succeeded, and its commit failed.
    Failed(Error),
}

/// Ends a run. Boxed: without the types of its work it is compiled once.
fn end(transaction: Transaction, has_worked: bool, attempt: u32) -> BoxFuture<'static, Ending> {
    Box::pin(async move {
        let domain = transaction.origin().clone();
        let is_last = attempt >= ATTEMPTS;
        let conflict = if has_worked {
            match transaction.commit().await {
                Ok(()) => return Ending::Ended,
                Err(error) if error.is_clash() && !is_last => error.to_string(),
                Err(error) => return Ending::Failed(error),
            }
        } else if transaction.has_clashed() && !is_last {
            transaction.rollback_quietly().await;
            "a statement of it".to_owned()
        } else {
            return Ending::Ended;
        };
        let domain = &domain.domain;
        tracing::debug!(domain, attempt, error = conflict, "a transaction conflicted with another; retrying");
        tokio::time::sleep(PAUSE.mul_f64(f64::from(1 << attempt) * rand::random::<f64>())).await;
        Ending::Retried
    })
}
