//! The actors of a bridge, as the runtime runs and shows them.

use std::{future::ready, sync::Arc};

use callboard_supervisors::{ChildContext, ChildSpec, Domain, Exit, Intensity, ShardContext, Supervisor};

use crate::{connection, dead, events, hosts, live, outgoing::Installed, replies, requests, shared::Shared};

/// The domain's name.
const DOMAIN: &str = "bridge";

/// The state of the bridge on a worker thread.
struct Thread;

pub(crate) fn domain(shared: &Arc<Shared>) -> Domain {
    let (on_every_thread, broker) = (shared.clone(), shared.clone());
    let child = |name: &'static str, run: fn(ChildContext, Arc<Shared>) -> Work| {
        let shared = shared.clone();
        ChildSpec::new(name, move |context| run(context, shared.clone()))
    };
    Domain::new(DOMAIN)
        .answering::<Thread>()
        .shared(move |context: ShardContext| {
            context.supervise(thread(&on_every_thread));
            ready(Ok(Thread))
        })
        .requires(move || broker.away())
        .child(child("connection", |context, shared| Box::pin(connection::run(context, shared))))
        .child(child("hosts", |context, shared| Box::pin(hosts::run(context, shared))))
        .child(child("replies", |context, shared| Box::pin(replies::run(context, shared))))
        .child(child("live", |context, shared| Box::pin(live::run(context, shared))))
        .child(child("dead letters", |context, shared| Box::pin(dead::run(context, shared))))
        .child(child("events", |context, shared| Box::pin(events::run(context, shared))))
        .build()
}

type Work = std::pin::Pin<Box<dyn Future<Output = Exit>>>;

/// The supervisor of a thread's flusher and request consumer.
fn thread(shared: &Arc<Shared>) -> Supervisor {
    let (sending, taking) = (shared.clone(), shared.clone());
    Supervisor::new("thread")
        .intensity(Intensity::default())
        .child(ChildSpec::new("sender", move |context: ChildContext| {
            let shared = sending.clone();
            async move {
                let place = Installed::new(shared);
                tokio::select! {
                    () = context.stopping() => Exit::Shutdown,
                    () = place.outgoing.keep_flushing() => Exit::Normal,
                }
            }
        }))
        .child(ChildSpec::new("requests", move |context| requests::run(context, taking.clone())))
}
