//! The domain's sagas, for an operator.

use callboard_messages::{
    Caller, Cursor, Page,
    project::{ListSagas, ProjectError, RetrySaga},
};
use callboard_supervisors::{Handle, Outcome, saga::RetryError};

use crate::projects::Projects;

impl Handle<ListSagas> for Projects {
    async fn handle(&self, _: &Caller, message: ListSagas) -> Outcome<ListSagas> {
        let sagas = self.sagas.list(message.status, Cursor::below(message.cursor), message.limit.rows()).await?;
        Ok(Page::of(sagas, message.limit, |saga| saga.id))
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
