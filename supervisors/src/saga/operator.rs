//! Sagas as an operator sees and retries them.

use callboard_messages::{CallError, DomainError, Failure, SagaStatus, SagaView};
use uuid::Uuid;

use super::{SagaEngine, log};
use crate::db::Error;

/// Why a saga is not retried.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// There is none.
    #[error("there is no such saga")]
    NotFound,
    /// It goes on by itself, or has ended.
    #[error("the saga is {}", .0.as_str())]
    NotStuck(SagaStatus),
    /// The database could not tell.
    #[error(transparent)]
    Database(#[from] Error),
}

impl RetryError {
    /// As a domain answers it: `refuse` makes a refusal of what is the operator's own doing.
    pub fn told<E: DomainError>(self, refuse: impl FnOnce(Self) -> E) -> CallError<E> {
        match self {
            Self::Database(error) => Failure::from(error).into(),
            other => refuse(other).into(),
        }
    }
}

impl SagaEngine {
    /// A page of them, the newest first: up to `limit` with this status, or that have not ended, below this id.
    ///
    /// # Errors
    /// When the database can't tell.
    pub async fn list(&self, status: Option<SagaStatus>, before: Uuid, limit: i64) -> Result<Vec<SagaView>, Error> {
        let rows = log::list(&self.database, status, before, limit).await?;
        Ok(rows.iter().map(|row| self.view(row)).collect())
    }

    /// Lets a stuck saga go on where it is: some node takes it within a second or two.
    ///
    /// # Errors
    /// When it is not there, or not stuck.
    pub async fn retry(&self, id: Uuid) -> Result<SagaView, RetryError> {
        let unstuck = log::unstick(&self.database, id, self.clock.now()).await?;
        let row = log::get(&self.database, id).await?.ok_or(RetryError::NotFound)?;
        if !unstuck {
            return Err(RetryError::NotStuck(row.status()));
        }
        Ok(self.view(&row))
    }

    fn view(&self, row: &log::Row) -> SagaView {
        let progress = row.progress();
        SagaView {
            id: row.id,
            name: row.name.clone(),
            status: progress.status,
            step: self.sagas.plan(&row.name).and_then(|plan| plan.step_at(&progress)).map(str::to_owned),
            undoing: progress.refusal.is_some(),
            trouble: progress.trouble,
            correlation_id: row.caller.0.correlation_id(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
