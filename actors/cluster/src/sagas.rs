//! The sagas of all domains, for an operator.

use std::time::Duration;

use callboard_messages::{
    CallError, Caller, Code, Page, SagaError, SagaView,
    cluster::{ClusterError, ListSagas, RetrySaga},
};
use callboard_supervisors::{Handle, Outcome, saga::SagasOf};
use futures_util::future::join_all;

use crate::Cluster;

/// How long a domain may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl Handle<ListSagas> for Cluster {
    /// Ids are ordered by time and those of no two sagas are the same, so that one cursor holds for every domain: each is
    /// asked for a whole page below it.
    async fn handle(&self, caller: &Caller, message: ListSagas) -> Outcome<ListSagas> {
        let ListSagas { domain, status, limit, cursor } = message;
        let asked: Vec<SagasOf> =
            self.bus.sagas().filter(|sagas| domain.as_deref().is_none_or(|domain| sagas.domain() == domain)).collect();
        if asked.is_empty() && domain.is_some() {
            return Err(ClusterError::NotFound("domain with sagas".to_owned()).into());
        }
        let caller = caller.clone().with_deadline(self.clock.instant() + PATIENCE);
        let pages = asked.iter().map(async |sagas| {
            let page = sagas.list(&caller, status, limit, cursor).await;
            page.map_err(|error| refused(sagas.domain(), error))
        });
        let pages: Vec<Page<SagaView>> = join_all(pages).await.into_iter().collect::<Result<_, _>>()?;
        Ok(Page::merged(pages, limit, |saga| saga.id))
    }
}

impl Handle<RetrySaga> for Cluster {
    /// One domain has it, so that the others refuse.
    async fn handle(&self, caller: &Caller, message: RetrySaga) -> Outcome<RetrySaga> {
        let caller = caller.clone().with_deadline(self.clock.instant() + PATIENCE);
        let asked: Vec<SagasOf> = self.bus.sagas().collect();
        let retries = asked.iter().map(async |sagas| (sagas.domain(), sagas.retry(&caller, message.saga_id).await));
        let mut away = None;
        for (domain, outcome) in join_all(retries).await {
            match outcome {
                Ok(saga) => return Ok(saga),
                Err(CallError::Refused(SagaError::NoSuchSaga)) => {}
                Err(error @ CallError::Refused(_)) => return Err(refused(domain, error)),
                Err(CallError::Failed(failure)) if !failure.is_certain() => return Err(failure.into()),
                // It may be the one that has it.
                Err(error) => away = Some(refused(domain, error)),
            }
        }
        Err(away.unwrap_or_else(|| ClusterError::NotFound("saga".to_owned()).into()))
    }
}

/// The refusal or failure of a domain as that of the cluster, which names the domain.
fn refused(domain: &str, error: CallError<SagaError>) -> CallError<ClusterError> {
    let (code, retry_after) = (error.code(), error.retry_after());
    let reason = match &error {
        // A retry whose outcome is unknown is told as such before: this only reads.
        CallError::Failed(failure) if !failure.is_certain() => "it did not answer in time".to_owned(),
        error => error.public_message().into_owned(),
    };
    match error {
        CallError::Refused(SagaError::NotStuck(status)) => ClusterError::NotStuck(status).into(),
        CallError::Refused(_) => ClusterError::NotFound("saga".to_owned()).into(),
        CallError::Failed(_) if matches!(code, Code::Overloaded | Code::Unavailable | Code::Timeout) => {
            ClusterError::SagasAway { domain: domain.to_owned(), reason, retry_after }.into()
        }
        CallError::Failed(failure) => failure.into(),
    }
}
