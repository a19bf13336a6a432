//! Events within one process, without a broker.

use std::{collections::HashMap, sync::Arc};

use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, join_all},
};
use parking_lot::RwLock;

use super::{Catalogue, CloudEvent, EventSink, EventTransport, PublishError, Untaken};

/// Delivers each event to the domains of this process that react to it, and confirms it when every one of them has
/// applied or buried it: the outbox is the queue. After a crash the relay publishes again what was not confirmed, and
/// the inboxes drop what was applied already.
#[derive(Clone, Default)]
pub struct InProcess(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    catalogue: Catalogue,
    sinks: HashMap<&'static str, EventSink>,
}

impl InProcess {
    fn sink(&self, domain: &str) -> Result<EventSink, PublishError> {
        let sink = self.0.read().sinks.get(domain).cloned();
        sink.ok_or_else(|| PublishError::Unroutable(format!("this process does not host {domain}")))
    }
}

impl EventTransport for InProcess {
    fn declare(&self, catalogue: Catalogue) {
        self.0.write().catalogue = catalogue;
    }

    fn subscribe(&self, sink: EventSink) {
        self.0.write().sinks.insert(sink.subscription().domain, sink);
    }

    fn publish(&self, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>> {
        let catalogue = self.0.read().catalogue.clone();
        let sinks = catalogue.subscribers(&event.kind).map(|domain| self.sink(domain)).collect::<Result<Vec<_>, _>>();
        async move {
            let deliveries = sinks?.into_iter().map(|sink| deliver(sink, event.clone()));
            join_all(deliveries).await.into_iter().collect()
        }
        .boxed_local()
    }

    fn redeliver(&self, domain: &str, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>> {
        let sink = self.sink(domain);
        async move { deliver(sink?, event).await }.boxed_local()
    }
}

/// Retries for as long as the relay does: no other node hosts the domain.
async fn deliver(sink: EventSink, event: CloudEvent) -> Result<(), PublishError> {
    let mut attempts = 0;
    loop {
        match sink.deliver(&event, &mut attempts).await {
            Ok(()) => return Ok(()),
            Err(Untaken::Later { after, .. }) => sink.pause(after).await,
            Err(Untaken::Unknown(reason)) => {
                sink.bury(&event, reason, attempts + 1).await;
                return Ok(());
            }
        }
    }
}
