//! The runtime of one node: checks its domains, runs their shards, and stops them in order.

mod heartbeat;
mod metrics;
pub(crate) mod operator;
pub(crate) mod tree;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use actix_rt::{Arbiter, System};
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    breaker::Force,
    call::{
        bus::{Bus, ClusterLink},
        remote::Transport,
    },
    domain::{Domain, Shards, core::DomainCore, topic::LiveTopic},
    events::{Catalogue, EventSink, EventTransport, Events, InProcess},
    health::disk::Disk,
    live::Live,
    runtime::{
        heartbeat::Heartbeat,
        metrics::{NodeCollector, PoolCollector},
        operator::Readiness,
        tree::TreeView,
    },
    shard::{Control, Shard, local},
    supervise::Services,
    telemetry::background::BackgroundStats,
    time::clock::Clock,
};

/// Time limit of a thread's start.
const START_WITHIN: Duration = Duration::from_secs(10);
/// Time after its deadline in which a shard may still report its stop.
const STOP_GRACE: Duration = Duration::from_millis(500);

static NEXT_NODE: AtomicU64 = AtomicU64::new(0);

/// A node's runtime. Cheap to clone.
#[derive(Clone)]
pub struct Runtime(Arc<Node>);

struct Node {
    number: u64,
    services: Services,
    registry: Registry,
    domains: Vec<Arc<DomainCore>>,
    arbiters: Mutex<Vec<Arbiter>>,
    _heartbeat: Heartbeat,
}

/// Settings of a [`Runtime`].
pub struct RuntimeBuilder {
    clock: Clock,
    workers: Option<usize>,
    link: ClusterLink,
    events: Arc<dyn EventTransport>,
    disk: Disk,
}

impl Default for RuntimeBuilder {
    fn default() -> Self {
        Self {
            clock: Clock::default(),
            workers: None,
            link: ClusterLink::default(),
            events: Arc::new(InProcess::default()),
            disk: Disk::default(),
        }
    }
}

impl RuntimeBuilder {
    /// Sets the clock. Default: the system's.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets how many threads will [`attach`](Runtime::attach). Default: one per core.
    #[must_use]
    pub const fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Sets the node's id. Default: a new one.
    #[must_use]
    pub const fn node(mut self, node: Uuid) -> Self {
        self.link.node = node;
        self
    }

    /// Sets the transport to other nodes. Default: none.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.link.transport = Some(transport);
        self
    }

    /// Sets the transport of events. Default: within this process.
    #[must_use]
    pub fn events(mut self, events: Arc<dyn EventTransport>) -> Self {
        self.events = events;
        self
    }

    /// Sets the disk that the node keeps its data on. Default: one that is never full.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disk = disk;
        self
    }

    /// Checks everything and starts the threads of `dedicated` domains. Needs an actix system on this thread.
    ///
    /// # Errors
    /// A sentence for each invalid part; nothing was started then.
    pub fn build(self, domains: Vec<Domain>) -> Result<Runtime, Vec<String>> {
        let workers = self.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let mut wrong: Vec<String> = domains.iter().flat_map(Domain::validate).collect();
        for (index, domain) in domains.iter().enumerate() {
            if domains.iter().take(index).any(|other| other.name == domain.name) {
                wrong.push(format!("two domains are named {}", domain.name));
            }
        }
        let topics: Vec<&str> = domains.iter().flat_map(Domain::topics).map(LiveTopic::kind).collect();
        for (index, topic) in topics.iter().enumerate() {
            if topics.iter().take(index).any(|other| other == topic) {
                wrong.push(format!("two live topics are named {topic}"));
            }
        }
        if workers == 0 {
            wrong.push("workers must be at least 1".to_owned());
        }
        let dedicated = domains.iter().any(|domain| domain.shards != Shards::Shared);
        if dedicated && System::try_current().is_none() {
            wrong.push("a runtime with dedicated domains must be built inside an actix system".to_owned());
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }

        let number = NEXT_NODE.fetch_add(1, Ordering::Relaxed);
        let pools = domains.iter().flat_map(|domain| domain.pools.iter().cloned()).collect();
        let domains: Vec<Arc<DomainCore>> = domains
            .into_iter()
            .map(|domain| Arc::new(DomainCore::new(domain, number, workers, self.clock.clone())))
            .collect();
        let cannot = |what: &str, error: &dyn std::fmt::Display| vec![format!("cannot {what}: {error}")];
        let registry = Registry::new();
        let stats = BackgroundStats::new(&registry).map_err(|error| cannot("register the metrics", &error))?;
        let catalogue = Catalogue::new(domains.iter().map(|core| core.subscription()));
        self.events.declare(catalogue.clone());
        let services = Services {
            events: Events::new(self.events.clone(), catalogue, stats.clone()),
            bus: Bus::new(domains.clone(), self.link, self.clock.clone()),
            live: Live::new(self.clock.clone()),
            disk: self.disk,
            clock: self.clock,
        };
        for core in domains.iter().filter(|core| core.is_hosted() && !core.subscription().types.is_empty()) {
            let (bus, clock) = (services.bus.clone(), services.clock.clone());
            self.events.subscribe(EventSink::new(core.clone(), bus, clock, stats.clone()));
        }
        NodeCollector::new(domains.clone())
            .and_then(|collector| registry.register(Box::new(collector)))
            .and_then(|()| registry.register(Box::new(PoolCollector::new(pools)?)))
            .map_err(|error| cannot("register the metrics", &error))?;
        let heartbeat = Heartbeat::start(&domains).map_err(|error| cannot("start the heartbeat", &error))?;
        let arbiters = Mutex::default();
        let runtime = Runtime(Arc::new(Node { number, services, registry, domains, arbiters, _heartbeat: heartbeat }));
        runtime.start_dedicated()?;
        Ok(runtime)
    }
}

impl Runtime {
    /// A builder with the defaults.
    #[must_use]
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    fn start_dedicated(&self) -> Result<(), Vec<String>> {
        for core in &self.0.domains {
            let Shards::Dedicated(threads) = core.shards else { continue };
            for _ in 0..threads {
                let cannot = |reason: String| vec![format!("domain {}: cannot start a thread: {reason}", core.name)];
                let arbiter = Arbiter::try_new().map_err(|error| cannot(error.to_string()))?;
                let (began, begun) = mpsc::channel();
                let (core, services, port) = (core.clone(), self.0.services.clone(), core.add_port());
                arbiter.spawn_fn(move || {
                    core.start_supervisor(&services);
                    Shard::open(&core, port, services);
                    // The builder may have stopped waiting.
                    let _ = began.send(());
                });
                self.0.arbiters.lock().push(arbiter);
                begun.recv_timeout(START_WITHIN).map_err(|error| cannot(error.to_string()))?;
            }
        }
        Ok(())
    }

    /// Starts the `shared` shards on this thread, once; needs the thread's actix arbiter or system. Returns when every
    /// shard of the node was built, or its first build failed: [`Runtime::ready`] says which.
    pub async fn attach(&self) {
        for core in &self.0.domains {
            if core.shards == Shards::Shared && local::shard(core.number).is_none() {
                core.start_supervisor(&self.0.services);
                Shard::open(core, core.add_port(), self.0.services.clone());
            }
        }
        for core in &self.0.domains {
            core.settled().await;
        }
    }

    /// The bus to all domains.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.0.services.bus
    }

    /// The node's events.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.0.services.events
    }

    /// The live hub.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.0.services.live
    }

    /// The node's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.services.clock
    }

    /// The disk that the node keeps its data on.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.0.services.disk
    }

    /// The node's metrics; others may register theirs.
    #[must_use]
    pub fn metrics(&self) -> &Registry {
        &self.0.registry
    }

    /// Restarts a domain that is `unavailable` after too many restarts; false when it is not, when its former children
    /// still stop, or when there is no such domain.
    #[must_use]
    pub fn revive(&self, domain: &str) -> bool {
        self.bus().revive(domain)
    }

    /// Forces the breakers of a domain open or closed, `None` ends that; false when there is no such domain.
    pub fn force_breaker(&self, domain: &str, force: Option<Force>) -> bool {
        self.bus().force_breaker(domain, force)
    }

    /// The actor tree now.
    #[must_use]
    pub fn tree(&self) -> TreeView {
        self.bus().tree()
    }

    /// Whether each domain is ready.
    #[must_use]
    pub fn ready(&self) -> Vec<Readiness> {
        self.bus().ready()
    }

    /// Stops the domains, the last first: each refuses new calls, stops its children in reverse order, finishes its
    /// calls, and drops its state. All of them together have the time `within`; the rest is dropped then.
    pub async fn stop(&self, within: Duration) {
        let clock = &self.0.services.clock;
        let deadline = clock.instant() + within;
        for core in self.0.domains.iter().rev() {
            core.begin_stop();
            if let Some(supervisor) = core.supervisor() {
                let _ = clock.timeout_at(deadline + STOP_GRACE, supervisor.stop()).await;
            }
            let mut stopping = Vec::new();
            for port in core.ports().iter() {
                let Some(mailbox) = port.mailbox() else { continue };
                let (done, stopped) = oneshot::channel();
                #[expect(clippy::disallowed_methods, reason = "a control message of the node, once in a shard's life")]
                mailbox.do_send(Control::Stop { deadline, done });
                stopping.push(stopped);
            }
            for stopped in stopping {
                let _ = clock.timeout_at(deadline + STOP_GRACE, stopped).await;
            }
        }
        local::remove_sweeper(self.0.number);
        let arbiters = std::mem::take(&mut *self.0.arbiters.lock());
        for arbiter in &arbiters {
            arbiter.stop();
        }
        // A thread that is blocked for good is left behind.
        #[expect(clippy::disallowed_methods, reason = "the pools are those of domains, which have stopped")]
        let joined = tokio::task::spawn_blocking(move || arbiters.into_iter().for_each(|arbiter| drop(arbiter.join())));
        let _ = tokio::time::timeout(STOP_GRACE, joined).await;
    }
}

#[cfg(test)]
impl Runtime {
    /// The keys of a domain with waiting or running calls.
    pub(crate) fn keys(&self, domain: &str) -> usize {
        self.0.domains.iter().filter(|core| core.name == domain).map(|core| core.keys.len()).sum()
    }
}
