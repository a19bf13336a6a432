//! A sample domain whose handlers do what the message says.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use callboard_messages::{Access, CallError, Caller, Code, DomainError, Failure, Operation};
use chrono::DateTime;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{Bulkhead, Bus, Clock, Contract, Domain, DomainOf, Handle, Outcome, Runtime, ShardContext};

/// What a handler does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    Reply(u64),
    Refuse,
    /// Fails with an outage of a dependency.
    Fail,
    /// Fails because of its input.
    Spoil,
    /// Fails because the disk is full.
    Fill,
    /// Asks the other domain for this, and returns its outcome.
    Pass(Box<Act>),
    /// Panics before the handler has returned a future.
    PanicAtOnce,
    /// Panics in the handler's future.
    PanicLater,
    /// Waits for [`Watch::open`].
    Wait(u64),
    /// Sleeps for this many milliseconds of the clock.
    Take(u64),
    Never,
    /// Yields once.
    Yield(u64),
    /// Runs the function given to [`Watch::on_block`].
    Block,
}

macro_rules! operation {
    ($name:ident, $text:literal, $access:expr $(, $key:expr)?) => {
        #[derive(Debug, Serialize, Deserialize)]
        pub struct $name(pub Act, #[serde(default)] pub Uuid);

        impl Operation for $name {
            const NAME: &'static str = $text;
            const ACCESS: Access = $access;
            $(const KEY: Option<fn(&Self) -> Uuid> = $key;)?
            type Reply = u64;
            type Error = Refusal;
        }
    };
}

operation!(Perform, "sample.perform", Access::Public);
operation!(Keyed, "sample.keyed", Access::Public, Some(|keyed| keyed.1));
operation!(Known, "sample.known", Access::Authenticated);
operation!(Permitted, "sample.permitted", Access::Permission("sample:write"));
operation!(Inner, "sample.inner", Access::Internal);
operation!(Elsewhere, "elsewhere.perform", Access::Public);
operation!(Unanswered, "sample.unanswered", Access::Public);

pub fn perform(act: Act) -> Perform {
    Perform(act, Uuid::nil())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("no")]
pub struct Refusal;

impl DomainError for Refusal {
    const CODES: &[Code] = &[Code::Conflict];

    fn code(&self) -> Code {
        Code::Conflict
    }
}

/// Observes and controls the handlers.
#[derive(Clone, Default)]
pub struct Watch(Arc<Inside>);

#[derive(Default)]
struct Inside {
    running: AtomicUsize,
    most: AtomicUsize,
    builds: AtomicUsize,
    open: Notify,
    order: Mutex<Vec<u64>>,
    block: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Watch {
    pub fn running(&self) -> usize {
        self.0.running.load(Ordering::SeqCst)
    }
    pub fn most(&self) -> usize {
        self.0.most.load(Ordering::SeqCst)
    }
    pub fn builds(&self) -> usize {
        self.0.builds.load(Ordering::SeqCst)
    }
    pub fn open(&self) {
        self.0.open.notify_waiters();
    }
    pub fn on_block(&self, block: impl FnOnce() + Send + 'static) {
        *self.0.block.lock() = Some(Box::new(block));
    }
    /// Number of clones: the test's, the factory's, and each state's.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
    pub fn order(&self) -> Vec<u64> {
        self.0.order.lock().clone()
    }
}

struct Enter<'a>(&'a Inside);

impl<'a> Enter<'a> {
    fn new(inside: &'a Inside) -> Self {
        let running = inside.running.fetch_add(1, Ordering::SeqCst) + 1;
        inside.most.fetch_max(running, Ordering::SeqCst);
        Self(inside)
    }
}

impl Drop for Enter<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

pub struct TestDomain {
    watch: Watch,
    context: ShardContext,
    running_keys: RefCell<HashMap<Uuid, usize>>,
}

impl TestDomain {
    pub fn new(watch: Watch, context: ShardContext) -> Self {
        Self { watch, context, running_keys: RefCell::default() }
    }

    async fn act(&self, act: Act) -> Result<u64, CallError<Refusal>> {
        let inside = &*self.watch.0;
        let _entered = Enter::new(inside);
        match act {
            Act::Reply(value) => {
                inside.order.lock().push(value);
                Ok(value)
            }
            Act::Refuse => Err(CallError::Refused(Refusal)),
            Act::Fail => Err(Failure::Unavailable { retry_after: Duration::from_secs(1) }.into()),
            Act::Spoil => Err(Failure::Invalid.into()),
            Act::Fill => Err(Failure::DiskFull { retry_after: Duration::from_secs(1) }.into()),
            Act::Pass(act) => self.context.bus.ask(&Caller::anonymous(), Elsewhere(*act, Uuid::nil())).await,
            Act::PanicAtOnce => panic!("at once"),
            Act::PanicLater => {
                tokio::task::yield_now().await;
                panic!("later")
            }
            Act::Wait(value) => {
                inside.open.notified().await;
                inside.order.lock().push(value);
                Ok(value)
            }
            Act::Take(milliseconds) => {
                self.context.clock.sleep(Duration::from_millis(milliseconds)).await;
                Ok(milliseconds)
            }
            Act::Never => std::future::pending().await,
            Act::Yield(value) => {
                tokio::task::yield_now().await;
                Ok(value)
            }
            Act::Block => {
                let block = inside.block.lock().take();
                block.into_iter().for_each(|block| block());
                Ok(0)
            }
        }
    }
}

macro_rules! handle {
    ($($name:ident)*) => {
        $(impl Handle<$name> for TestDomain {
            async fn handle(&self, _: &Caller, message: $name) -> Outcome<$name> {
                self.act(message.0).await
            }
        })*
    };
}
handle!(Known Permitted Inner Elsewhere);

impl Handle<Perform> for TestDomain {
    // Not an async function: a part of it runs before there is a future.
    fn handle(&self, _: &Caller, message: Perform) -> impl Future<Output = Outcome<Perform>> {
        assert!(message.0 != Act::PanicAtOnce, "at once");
        self.act(message.0)
    }
}

impl Handle<Keyed> for TestDomain {
    async fn handle(&self, _: &Caller, message: Keyed) -> Outcome<Keyed> {
        let running = *self.running_keys.borrow_mut().entry(message.1).and_modify(|running| *running += 1).or_insert(1);
        assert_eq!(running, 1, "two at once for one key");
        let outcome = self.act(message.0).await;
        self.running_keys.borrow_mut().remove(&message.1);
        outcome
    }
}

pub fn manual() -> Clock {
    Clock::manual(DateTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
}

pub fn sample(bulkhead: Bulkhead, watch: &Watch) -> DomainOf<TestDomain> {
    contract(bulkhead).shared(factory(watch))
}

pub fn dedicated_sample(bulkhead: Bulkhead, threads: usize, watch: &Watch) -> DomainOf<TestDomain> {
    contract(bulkhead).dedicated(threads, factory(watch))
}

pub fn contract(bulkhead: Bulkhead) -> Contract<TestDomain> {
    let plan = Domain::new("sample").bulkhead(bulkhead).answering();
    plan.on::<Perform>().on::<Keyed>().on::<Known>().on::<Permitted>().on::<Inner>()
}

/// Another domain, on the same threads.
pub fn elsewhere(watch: &Watch) -> Domain {
    let plan = Domain::new("elsewhere").answering();
    plan.on::<Elsewhere>().shared(factory(watch)).build()
}

pub fn factory(
    watch: &Watch,
) -> impl Fn(ShardContext) -> std::future::Ready<Result<TestDomain, crate::StartError>> + Send + Sync + 'static {
    let watch = watch.clone();
    move |context| {
        watch.0.builds.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(TestDomain::new(watch.clone(), context)))
    }
}

/// A node with one worker, this thread, and a manual clock.
pub async fn node(domains: Vec<Domain>) -> (Runtime, Bus, Clock) {
    let clock = manual();
    let runtime = Runtime::builder().clock(clock.clone()).workers(1).build(domains).unwrap();
    runtime.attach().await;
    let bus = runtime.bus().clone();
    (runtime, bus, clock)
}

/// Lets other tasks and threads run until `condition` holds.
pub async fn until(condition: impl Fn() -> bool) {
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < patience, "the condition never came to hold");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}
