//! A shard: one state of a domain on one thread, with its queue, its permits, its breaker and its handlers.
//!
//! A call of the same thread that finds a permit runs at once, polled where it was asked; only what has to wait
//! becomes a task, so that neither the mailbox nor the scheduler is paid for by calls that need neither. Calls of
//! other threads come through the mailbox. Everything in here belongs to one thread and needs no lock.

mod actor;
mod ask;
mod elsewhere;
mod envelope;
mod execution;
pub(crate) mod inbox;
pub(crate) mod keys;
mod lifecycle;
pub(crate) mod local;
mod operation;
pub(crate) mod port;
mod question;
mod queue;
mod slot;
pub(crate) mod sweep;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::{Rc, Weak},
    sync::Arc,
    time::Instant,
};

use callboard_messages::{Caller, Code, Failure};
use slab::Slab;
use tokio::sync::Notify;
use tracing::Span;
use uuid::Uuid;

pub use self::ask::Ask;
pub(crate) use self::{
    actor::{Control, Ring, ShardActor},
    elsewhere::note as note_elsewhere,
    envelope::Envelope,
    operation::{Build, LocalOperation, Operations, StateCell, TypeIdHasher, local_operation, operation},
    question::{AnyQuestion, Question, Signature},
    slot::AnySlot,
};
use self::{
    elsewhere::Elsewhere,
    execution::{Call, RunningCall},
};
use crate::{
    breaker::{Admission, Machine, State, Verdict},
    domain::{context::Tasks, core::DomainCore},
    restart::Patience,
    shard::{
        keys::KeyGuard,
        port::{Port, Rejection},
        sweep::Sweeper,
    },
    supervise::Services,
    telemetry::stats::Ending,
    time::clock::Clock,
};

/// A call that may begin.
pub(crate) struct Grant {
    pub(crate) operation: usize,
    pub(crate) started: Instant,
    pub(crate) deadline: Instant,
    pub(crate) admission: Admission,
    pub(crate) key: Option<KeyGuard>,
    pub(crate) span: Span,
}

/// The span of a call, which costs next to nothing unless somebody wants it: `callboard::operation=debug`.
macro_rules! operation_span {
    ($name:expr, $shard:expr, $correlation_id:expr $(, parent: $parent:expr)?) => {
        tracing::debug_span!(
            target: "callboard::operation",
            $(parent: $parent,)?
            "operation",
            name = $name,
            otel.name = $name,
            shard = $shard,
            correlation_id = %$correlation_id,
        )
    };
}
use operation_span;

pub(crate) struct Shard {
    pub(crate) core: Arc<DomainCore>,
    pub(crate) port: Arc<Port>,
    services: Services,
    clock: Clock,
    operations: Operations,
    build: Build,
    /// Drops the state.
    clear: Box<dyn Fn()>,
    breaker: RefCell<Machine>,
    /// The phase of the breaker that other threads were shown last.
    shown: Cell<u64>,
    queue: RefCell<VecDeque<Envelope>>,
    /// Behind each key that waits or runs here, the calls that wait for it.
    keys: RefCell<HashMap<Uuid, VecDeque<Envelope>>>,
    /// An empty list, to exchange for the inbox's.
    spare: RefCell<Vec<Envelope>>,
    pumping: Cell<bool>,
    running: RefCell<Slab<Rc<RunningCall>>>,
    /// Counts the states of this shard, so that a panic on an old one does not throw a new one away.
    generation: Cell<u64>,
    tasks: RefCell<Option<Tasks>>,
    patience: RefCell<Patience>,
    sweeper: Rc<Sweeper>,
    drained: Notify,
    own: Weak<Shard>,
}

impl Shard {
    /// The handler of an operation.
    #[inline]
    pub(crate) fn operation(&self, signature: &Signature) -> Result<&LocalOperation, Failure> {
        let unknown = || format!("the domain {} does not answer {}", self.core.name, signature.name);
        self.operations.get(&signature.id).ok_or_else(|| Failure::Internal(unknown()))
    }

    #[inline]
    pub(crate) fn now(&self) -> Instant {
        self.clock.instant()
    }

    /// Asks the breaker.
    #[inline]
    pub(crate) fn admit(&self, now: Instant) -> Result<Admission, Failure> {
        let mut breaker = self.breaker.borrow_mut();
        if breaker.forced() != self.port.forced() {
            breaker.force(self.port.forced(), now);
        }
        let connection = self.core.connection();
        if connection != self.port.connection() {
            self.begin_anew(&mut breaker, connection, now);
        }
        let admission = breaker.admit(now);
        self.show(&breaker);
        admission.map_err(|retry_after| {
            self.port.reject(Rejection::Open);
            Failure::Unavailable { retry_after }
        })
    }

    /// What the breaker was told of an earlier connection says nothing about this one.
    #[cold]
    fn begin_anew(&self, breaker: &mut Machine, connection: u64, now: Instant) {
        self.port.set_connection(connection);
        let was_closed = breaker.state() == State::Closed;
        breaker.close(now);
        if was_closed {
            self.shown.set(breaker.epoch());
        }
    }

    /// A call that the breaker let through says nothing: it never began.
    pub(crate) fn release(&self, admission: Admission, now: Instant) {
        self.record(admission, now, Ending::Failed(Code::Overloaded, Verdict::Nothing), std::time::Duration::ZERO);
    }

    #[inline]
    fn record(&self, admission: Admission, now: Instant, ending: Ending, took: std::time::Duration) {
        let mut breaker = self.breaker.borrow_mut();
        breaker.record(admission, now, ending.verdict(), took);
        self.show(&breaker);
    }

    /// Shows the breaker to other threads when it has changed.
    #[inline]
    fn show(&self, breaker: &Machine) {
        if breaker.epoch() != self.shown.get() {
            self.shown.set(breaker.epoch());
            let (before, state) = (self.port.breaker(), breaker.state());
            let (domain, shard, shown) = (self.core.name, self.port.index, state.as_str());
            match (before, state) {
                (State::Closed, State::Closed) => {}
                (State::Closed, _) => tracing::warn!(domain, shard, state = shown, "a breaker has opened"),
                (_, State::Closed) => tracing::info!(domain, shard, state = shown, "a breaker has closed again"),
                // What its probes come to is said once they succeed.
                _ => tracing::debug!(domain, shard, state = shown, "a breaker tries again"),
            }
            self.port.show_breaker(state, breaker.open_until());
        }
    }

    /// Takes the operator's wish up without waiting for the next call.
    pub(crate) fn show_breaker(&self) {
        let mut breaker = self.breaker.borrow_mut();
        breaker.force(self.port.forced(), self.now());
        self.show(&breaker);
    }

    /// Takes a permit.
    #[inline]
    pub(crate) fn begin(&self, name: &'static str, caller: &Caller, grant: Grant) -> Call {
        self.port.set_in_flight(self.port.in_flight() + 1);
        let Grant { operation, started, deadline, admission, key, span } = grant;
        let (generation, correlation_id) = (self.generation.get(), caller.correlation_id);
        let elsewhere = Elsewhere::default();
        Call { name, operation, started, deadline, generation, admission, key, correlation_id, span, elsewhere }
    }

    /// Gives the permit back and writes the call down.
    #[inline]
    pub(crate) fn conclude(&self, call: &Call, ending: Ending) {
        let now = self.clock.instant();
        let took = now.saturating_duration_since(call.started);
        if let Some(stats) = self.port.operation(call.operation) {
            stats.record(ending, took);
        }
        self.port.observe(took);
        self.record(call.admission, now, ending, took);
        self.port.set_in_flight(self.port.in_flight().saturating_sub(1));
        if let Some(guard) = &call.key {
            self.key_done(guard.key);
        }
        self.permit_is_free();
    }

    /// A handler panicked: its call fails, and the state is built anew.
    pub(crate) fn panicked(&self, call: &Call, message: &str) -> Failure {
        let (operation, shard, correlation_id) = (call.name, self.port.index, call.correlation_id);
        tracing::error!(operation, shard, %correlation_id, panic = %message, "a handler panicked");
        // First the fault, so that nothing from the queue begins on the broken state.
        self.fault(call.generation, message);
        self.conclude(call, Ending::Failed(Code::Internal, Verdict::Fails));
        Failure::Internal(format!("{} panicked: {message}", call.name))
    }

    pub(crate) fn register(&self, call: Rc<RunningCall>) -> usize {
        self.sweeper.arm();
        self.running.borrow_mut().insert(call)
    }

    pub(crate) fn unregister(&self, number: usize) {
        let call = self.running.borrow_mut().try_remove(number);
        drop(call);
    }
}
