//! The context of a shard: what its factory is given.

use std::{borrow::Cow, future::Future, panic::AssertUnwindSafe, rc::Rc, sync::Arc};

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::{
    blocking::panic_message,
    call::bus::Bus,
    events::Events,
    health::disk::Disk,
    live::Live,
    restart::Exit,
    shard::port::Port,
    supervise::{Services, Supervisor, SupervisorRef},
    tasks::anchored::Anchored,
    time::clock::Clock,
};

/// The context of one shard. It stays on the shard's thread; its parts may go anywhere.
#[derive(Clone)]
pub struct ShardContext {
    /// The domain.
    pub domain: &'static str,
    /// The node's clock.
    pub clock: Clock,
    /// The bus to all domains.
    pub bus: Bus,
    /// The live hub.
    pub live: Live,
    /// The node's events.
    pub events: Events,
    /// The disk that the node keeps its data on.
    pub disk: Disk,
    /// The index of this shard in its domain, from zero.
    pub index: usize,
    /// The number of shards of the domain, once every worker has attached.
    pub count: usize,
    /// The domain's supervisor, for children that start and stop at run time.
    pub supervisor: SupervisorRef,
    pub(crate) tasks: Tasks,
}

impl ShardContext {
    /// Runs `future` on the shard's thread until it ends, or this state of the shard does: a rebuilt state spawns its
    /// own. A panic in it is logged and counted, and affects nothing else.
    pub fn spawn(&self, name: impl Into<Cow<'static, str>>, future: impl Future<Output = ()> + 'static) {
        self.tasks.spawn(self.domain, name.into(), future);
    }

    /// Runs a supervisor on the shard's thread until this state of the shard ends, and shows its children below the
    /// shard. One that gives up is a fault of the shard, which rebuilds the state.
    pub fn supervise(&self, plan: Supervisor) {
        let (clock, bus, live) = (self.clock.clone(), self.bus.clone(), self.live.clone());
        let (events, disk) = (self.events.clone(), self.disk.clone());
        let running = plan.start(Services { clock, bus, live, events, disk });
        self.tasks.port.show(running.clone());
        let (tasks, domain) = (self.tasks.clone(), self.domain);
        actix_rt::spawn(async move {
            match tasks.stop.run_until_cancelled(running.ended()).await {
                Some(Exit::Abnormal(reason)) => {
                    tracing::error!(domain, %reason, "a supervisor of a shard gave up");
                    (tasks.fault)(&reason);
                }
                Some(_) => {}
                None => running.stop().await,
            }
        });
    }
}

/// The tasks of one state of a shard.
#[derive(Clone)]
pub(crate) struct Tasks {
    stop: CancellationToken,
    port: Arc<Port>,
    /// Faults the shard for a reason, which rebuilds the state.
    fault: Rc<dyn Fn(&str)>,
}

impl Tasks {
    pub(crate) fn new(port: Arc<Port>, fault: Rc<dyn Fn(&str)>) -> Self {
        Self { stop: CancellationToken::new(), port, fault }
    }

    fn spawn(&self, domain: &'static str, name: Cow<'static, str>, future: impl Future<Output = ()> + 'static) {
        let (stop, port) = (self.stop.clone(), self.port.clone());
        actix_rt::spawn(Anchored::new(async move {
            let guarded = AssertUnwindSafe(future).catch_unwind();
            if let Some(Err(panic)) = stop.run_until_cancelled(guarded).await {
                port.task_panicked();
                tracing::error!(domain, task = %name, panic = %panic_message(&*panic), "a task of a shard panicked");
            }
        }));
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}
