//! The domain's sagas, for an operator.

use callboard_messages::{
    Caller, Page, page_limit,
    project::{ListSagas, ProjectError, RetrySaga},
};
use callboard_supervisors::{Handle, Outcome, saga::RetryError};
use uuid::Uuid;

use crate::projects::Projects;

impl Handle<ListSagas> for Projects {
    async fn handle(&self, _: &Caller, message: ListSagas) -> Outcome<ListSagas> {
        let limit = page_limit(message.limit).map_err(ProjectError::Invalid)?;
        let before = message.cursor.map_or(Uuid::max(), |cursor| cursor.0);
        let sagas = self.sagas.list(message.status, before, limit + 1).await?;
        Ok(Page::from_rows(sagas, limit, |saga| saga.id))
    }
}

impl Handle<RetrySaga> for Projects {
    async fn handle(&self, caller: &Caller, message: RetrySaga) -> Outcome<RetrySaga> {
        let retried = self.sagas.retry(message.saga_id).await.map_err(|error| {
            error.told(|error| match error {
                RetryError::NotStuck(status) => ProjectError::NotStuck(status.as_str().to_owned()),
                _ => ProjectError::NoSuchSaga,
            })
        })?;
        tracing::info!(saga = %retried.id, by = ?caller.user_id, "an operator retries a saga");
        Ok(retried)
    }
}
