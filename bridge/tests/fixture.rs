//! A cluster of runtimes in one process, and a sample domain whose handlers do what the message says.

use std::{
    cell::Cell,
    collections::HashMap,
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use callboard_bridge::{Bridge, BridgeSettings, ClusterKey};
use callboard_messages::{Access, CallError, Caller, Code, DomainError, Failure, Operation, Principal, Scopes, Secret};
use callboard_platform::cluster::Members;
use callboard_supervisors::{Bulkhead, Contract, Domain, Handle, Outcome, Runtime, ShardContext, remote::Transport};
use lapin::{Channel, Connection, ConnectionProperties, options::QueueDeleteOptions};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub fn url() -> String {
    std::env::var("CALLBOARD_TEST_AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned())
}

/// What the nodes of a test share.
#[derive(Clone)]
pub struct Cluster {
    pub url: String,
    pub prefix: String,
    pub key: ClusterKey,
    /// How long the broker may be silent. A probe waits behind the messages in flight.
    pub silence: Duration,
    _leftovers: Arc<Leftovers>,
}

impl Cluster {
    pub fn new() -> Self {
        Self::at(&url())
    }

    /// On this broker.
    pub fn at(url: &str) -> Self {
        let prefix = format!("test-{}", Uuid::now_v7().simple());
        let leftovers = Leftovers { url: url.to_owned(), prefix: prefix.clone() };
        let (key, silence) = (ClusterKey::generate(), Duration::from_secs(2));
        Self { url: url.to_owned(), prefix, key, silence, _leftovers: Arc::new(leftovers) }
    }

    pub fn settings(&self, url: &str) -> BridgeSettings {
        let mut settings = BridgeSettings::new(Secret::new(url), Uuid::now_v7(), self.key.clone());
        settings.prefix.clone_from(&self.prefix);
        settings.silence = self.silence;
        (settings.patience, settings.unknown_for) = (Duration::from_millis(200), Duration::from_secs(3));
        settings
    }

    /// A node that hosts the sample domain.
    pub async fn host(&self, watch: &Watch) -> Node {
        self.host_with(Bulkhead::default(), &self.url, watch).await
    }

    pub async fn host_with(&self, bulkhead: Bulkhead, url: &str, watch: &Watch) -> Node {
        self.host_by(self.settings(url), bulkhead, watch).await
    }

    /// The same, with these settings.
    pub async fn host_by(&self, settings: BridgeSettings, bulkhead: Bulkhead, watch: &Watch) -> Node {
        let watch = watch.clone();
        let domain = contract(bulkhead).shared(move |context: ShardContext| {
            let domain = TestDomain { watch: watch.clone(), context, running: Cell::new(0) };
            async move { Ok(domain) }
        });
        Node::start(settings, |_| vec![domain.build()]).await
    }

    /// A node that asks.
    pub async fn caller(&self) -> Node {
        self.caller_with(Bulkhead::default(), &self.url).await
    }

    pub async fn caller_with(&self, bulkhead: Bulkhead, url: &str) -> Node {
        Node::start(self.settings(url), |transport| vec![contract(bulkhead).remote(transport)]).await
    }

    /// A node that asks, with these members of its cluster.
    pub async fn caller_among(&self, members: &Members) -> Node {
        let domains = |transport| vec![contract(Bulkhead::default()).remote(transport)];
        let node = Node::begin_among(self.settings(&self.url), Some(members), domains).await;
        until("connected", || node.bridge.is_connected()).await;
        node
    }
}

/// A node of the cluster.
pub struct Node {
    pub bridge: Bridge,
    pub runtime: Runtime,
}

impl Node {
    pub async fn start(settings: BridgeSettings, domains: impl FnOnce(Arc<dyn Transport>) -> Vec<Domain>) -> Self {
        let node = Self::begin(settings, domains).await;
        until("connected", || node.bridge.is_connected()).await;
        node
    }

    /// A node whose broker may be absent.
    pub async fn begin(settings: BridgeSettings, domains: impl FnOnce(Arc<dyn Transport>) -> Vec<Domain>) -> Self {
        Self::begin_among(settings, None, domains).await
    }

    async fn begin_among(
        settings: BridgeSettings,
        members: Option<&Members>,
        domains: impl FnOnce(Arc<dyn Transport>) -> Vec<Domain>,
    ) -> Self {
        let node = settings.node;
        let bridge = Bridge::start(settings).await.unwrap();
        if let Some(members) = members {
            bridge.connect_members(members.clone());
        }
        let mut all = vec![bridge.domain()];
        all.extend(domains(bridge.transport()));
        let runtime = Runtime::builder()
            .workers(1)
            .node(node)
            .transport(bridge.transport())
            .events(bridge.events())
            .build(all)
            .unwrap();
        bridge.connect_live(runtime.live());
        bridge.register_metrics(runtime.metrics()).unwrap();
        runtime.attach().await;
        Self { bridge, runtime }
    }

    pub fn id(&self) -> Uuid {
        self.runtime.bus().node()
    }

    pub async fn ask<M: Operation>(&self, message: M) -> Outcome<M> {
        self.runtime.bus().ask(&caller(), message).await
    }

    pub async fn ask_within<M: Operation>(&self, within: Duration, message: M) -> Outcome<M> {
        let caller = caller().with_deadline(Instant::now() + within);
        self.runtime.bus().ask(&caller, message).await
    }

    /// Asks until there is an answer: the first request may come before its queue has a consumer.
    pub async fn reach(&self) {
        let patience = Instant::now() + Duration::from_secs(30);
        while self.ask_within(Duration::from_secs(1), perform(Act::Reply(1))).await != Ok(1) {
            assert!(Instant::now() < patience, "nobody answers");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The same for one node.
    pub async fn reach_at(&self, node: Uuid) {
        let patience = Instant::now() + Duration::from_secs(30);
        while self.runtime.bus().ask_at(node, &caller(), perform(Act::Reply(5))).await != Ok(5) {
            assert!(Instant::now() < patience, "it takes no requests");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The sum of a metric's values with this label value, or of all.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.runtime.metrics().gather();
        let metrics = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
        metrics
            .filter(|metric| label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label))
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }

    pub fn refused(&self, reason: &str) -> f64 {
        self.metric("callboard_bridge_refused_total", reason)
    }

    pub async fn stop(self) {
        self.runtime.stop(Duration::from_secs(5)).await;
    }
}

/// Deletes what is durable of a cluster, also when its test panics; the rest expires.
struct Leftovers {
    url: String,
    prefix: String,
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        let (url, prefix) = (self.url.clone(), self.prefix.clone());
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (_connection, channel) = channel_at(&url).await;
                for name in ["operations", "live", "events", "dead"] {
                    let name = format!("{prefix}.{name}");
                    let _ = channel.exchange_delete(name.as_str().into(), Default::default()).await;
                }
                for name in ["dead", "events.target", "events.second", "events.source"] {
                    let name = format!("{prefix}.{name}");
                    let _ = channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await;
                }
            });
        });
        let _ = removing.join();
    }
}

/// A connection of the test itself.
pub async fn channel() -> (Connection, Channel) {
    channel_at(&url()).await
}

pub async fn channel_at(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// A caller with a deadline of ten seconds.
pub fn caller() -> Caller {
    let caller = Caller { principal: Principal::User, scopes: Scopes::new(["sample:*"]), ..Caller::anonymous() };
    caller.with_deadline(Instant::now() + Duration::from_secs(10))
}

/// What a handler does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Act {
    Reply(u64),
    /// Counts under a name, then replies with the count.
    Count(Uuid),
    Refuse(String),
    Panic,
    Sleep(u64),
    /// Counts under a name, then never ends.
    Hang(Uuid),
    /// Counts under a name, then waits for [`Watch::let_go`].
    Hold(Uuid),
    /// Replies with this many bytes.
    Large(usize),
    /// Replies with the number of running calls.
    Running,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Perform {
    pub act: Act,
    #[serde(default)]
    pub ballast: String,
}

/// An idempotent operation.
#[derive(Debug, Serialize, Deserialize)]
pub struct Repeat(pub Act);

/// An operation that needs a permission.
#[derive(Debug, Serialize, Deserialize)]
pub struct Guarded;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestError {
    No { why: String },
}

impl fmt::Display for TestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::No { why } = self;
        write!(f, "no: {why}")
    }
}

impl Error for TestError {}

impl DomainError for TestError {
    const CODES: &[Code] = &[Code::Conflict];

    fn code(&self) -> Code {
        Code::Conflict
    }
}

impl Operation for Perform {
    const NAME: &'static str = "sample.perform";
    const ACCESS: Access = Access::Permission("sample:perform");
    // The caller's deadline decides.
    const TIMEOUT: Duration = Duration::from_secs(60);
    type Reply = u64;
    type Error = TestError;
}

impl Operation for Repeat {
    const NAME: &'static str = "sample.repeat";
    const ACCESS: Access = Access::Authenticated;
    const IDEMPOTENT: bool = true;
    type Reply = u64;
    type Error = TestError;
}

impl Operation for Guarded {
    const NAME: &'static str = "sample.guarded";
    const ACCESS: Access = Access::Internal;
    type Reply = ();
    type Error = TestError;
}

pub fn perform(act: Act) -> Perform {
    Perform { act, ballast: String::new() }
}

pub fn contract(bulkhead: Bulkhead) -> Contract<TestDomain> {
    Domain::new("sample").bulkhead(bulkhead).answering().on::<Perform>().on::<Repeat>().on::<Guarded>()
}

/// What tests see of the handlers of all nodes.
#[derive(Clone, Default)]
pub struct Watch(Arc<Seen>);

#[derive(Default)]
struct Seen {
    counts: Mutex<HashMap<Uuid, u64>>,
    calls: AtomicUsize,
    let_go: AtomicBool,
}

impl Watch {
    /// Ends the held calls.
    pub fn let_go(&self) {
        self.0.let_go.store(true, Ordering::SeqCst);
    }

    pub fn count(&self, name: Uuid) -> u64 {
        self.0.counts.lock().get(&name).copied().unwrap_or(0)
    }

    pub fn counts(&self) -> Vec<u64> {
        self.0.counts.lock().values().copied().collect()
    }

    pub fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    fn add(&self, name: Uuid) -> u64 {
        let mut counts = self.0.counts.lock();
        let count = counts.entry(name).or_default();
        *count += 1;
        *count
    }
}

pub struct TestDomain {
    watch: Watch,
    context: ShardContext,
    running: Cell<u64>,
}

impl TestDomain {
    async fn act<E: From<CallError<TestError>>>(&self, act: Act) -> Result<u64, E> {
        self.watch.0.calls.fetch_add(1, Ordering::SeqCst);
        self.running.update(|running| running + 1);
        let outcome = match act {
            Act::Reply(value) => Ok(value),
            Act::Count(name) => Ok(self.watch.add(name)),
            Act::Refuse(why) => Err(CallError::Refused(TestError::No { why }).into()),
            Act::Panic => panic!("on purpose"),
            Act::Sleep(milliseconds) => {
                self.context.clock.sleep(Duration::from_millis(milliseconds)).await;
                Ok(milliseconds)
            }
            Act::Hang(name) => {
                self.watch.add(name);
                std::future::pending().await
            }
            Act::Hold(name) => {
                let count = self.watch.add(name);
                while !self.watch.0.let_go.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(count)
            }
            Act::Large(_) => Ok(0),
            Act::Running => Ok(self.running.get()),
        };
        self.running.update(|running| running - 1);
        outcome
    }
}

impl Handle<Perform> for TestDomain {
    async fn handle(&self, _: &Caller, message: Perform) -> Outcome<Perform> {
        if let Act::Large(length) = message.act {
            return Err(CallError::Refused(TestError::No { why: "x".repeat(length) }));
        }
        self.act(message.act).await
    }
}

impl Handle<Repeat> for TestDomain {
    async fn handle(&self, _: &Caller, Repeat(act): Repeat) -> Outcome<Repeat> {
        self.act(act).await
    }
}

impl Handle<Guarded> for TestDomain {
    async fn handle(&self, _: &Caller, Guarded: Guarded) -> Outcome<Guarded> {
        Ok(())
    }
}

pub fn failed<T, E>(outcome: Result<T, CallError<E>>) -> Option<Failure> {
    match outcome {
        Err(CallError::Failed(failure)) => Some(failure),
        _ => None,
    }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < patience, "never came to be: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
