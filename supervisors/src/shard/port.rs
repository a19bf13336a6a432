//! A shard as other threads see it: its mailbox, its bounds and its counters.
//!
//! What only the shard's thread changes is changed by a plain load and store, which costs what an ordinary variable
//! costs; only the number of waiting calls is counted by many threads at once.

use std::{
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix::Addr;
use callboard_messages::Failure;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    breaker::{Force, State},
    bulkhead::Bulkhead,
    shard::{Envelope, Ring, ShardActor, inbox::Inbox},
    supervise::{ChildView, SupervisorRef},
    telemetry::stats::{OperationStats, bump},
};

/// Whether a shard answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ShardState {
    /// Its state is being built for the first time; calls wait.
    Starting,
    /// It answers.
    Ready,
    /// Its state is being built again after a fault; calls wait.
    Restarting,
    /// It takes no more calls, and ends those it has.
    Stopping,
    /// It is gone, or given up.
    Stopped,
}

impl ShardState {
    const ALL: [Self; 5] = [Self::Starting, Self::Ready, Self::Restarting, Self::Stopping, Self::Stopped];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// Why a call was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    Full,
    Open,
    Down,
    Expired,
}

impl Rejection {
    pub(crate) const ALL: [Self; 4] = [Self::Full, Self::Open, Self::Down, Self::Expired];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "queue_full",
            Self::Open => "breaker_open",
            Self::Down => "unavailable",
            Self::Expired => "expired",
        }
    }
}

pub(crate) struct Port {
    pub(crate) index: usize,
    pub(crate) queue_limit: usize,
    pub(crate) in_flight_limit: usize,
    pub(crate) inbox: Apart<Inbox>,
    mailbox: OnceLock<Addr<ShardActor>>,
    state: AtomicU8,
    /// Whether the first attempt to build the state has ended, well or not.
    attempted: AtomicBool,
    queued: Apart<AtomicUsize>,
    in_flight: Apart<AtomicUsize>,
    restarts: AtomicU64,
    task_panics: AtomicU64,
    rejections: [AtomicU64; 4],
    /// Nanoseconds a call takes, smoothed.
    average: Apart<AtomicU64>,
    /// By the operation's number in the domain.
    operations: Box<[OperationStats]>,
    breaker: AtomicU8,
    /// Nanoseconds from `origin` until an open breaker lets calls through again.
    open_until: AtomicU64,
    origin: Instant,
    /// What the operator wants of the breaker.
    forced: AtomicU8,
    /// The connection of the transport that the breaker judges.
    connection: AtomicU64,
    pub(crate) pulse: Pulse,
    /// The supervisors that run on the shard's thread.
    supervisors: Mutex<Vec<SupervisorRef>>,
    /// The domain waits here for a shard to change its state.
    changed: Arc<Notify>,
}

/// On cache lines of its own, because other threads write it while this one reads its neighbours.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Asks a shard's thread whether it still turns.
#[derive(Default)]
pub(crate) struct Pulse {
    asked: AtomicU64,
    answered: AtomicU64,
    blocked: AtomicBool,
    pub(crate) ask: Notify,
}

impl Pulse {
    /// Asks, unless the last question is still open; whether it is.
    pub(crate) fn ask(&self) -> bool {
        let asked = self.asked.load(Ordering::Acquire);
        if self.answered.load(Ordering::Acquire) < asked {
            return true;
        }
        self.asked.store(asked + 1, Ordering::Release);
        self.ask.notify_one();
        false
    }

    /// By the shard's thread.
    pub(crate) fn answer(&self) {
        self.answered.store(self.asked.load(Ordering::Acquire), Ordering::Release);
    }

    pub(crate) fn set_blocked(&self, blocked: bool) -> bool {
        self.blocked.swap(blocked, Ordering::AcqRel)
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }
}

impl Port {
    /// Shows a supervisor that runs on the shard's thread.
    pub(crate) fn show(&self, supervisor: SupervisorRef) {
        let mut supervisors = self.supervisors.lock();
        supervisors.retain(|other| !other.has_ended());
        supervisors.push(supervisor);
    }

    /// The children of the supervisors on the shard's thread.
    pub(crate) fn children(&self) -> Vec<ChildView> {
        self.supervisors.lock().iter().flat_map(SupervisorRef::children).collect()
    }

    pub(crate) fn new(
        index: usize,
        bulkhead: &Bulkhead,
        operations: usize,
        origin: Instant,
        changed: Arc<Notify>,
    ) -> Self {
        Self {
            index,
            queue_limit: bulkhead.queue,
            in_flight_limit: bulkhead.in_flight,
            mailbox: OnceLock::new(),
            state: AtomicU8::new(ShardState::Starting as u8),
            attempted: AtomicBool::new(false),
            inbox: Apart::default(),
            queued: Apart::default(),
            in_flight: Apart::default(),
            restarts: AtomicU64::new(0),
            task_panics: AtomicU64::new(0),
            rejections: Default::default(),
            average: Apart::default(),
            operations: (0..operations).map(|_| OperationStats::default()).collect(),
            breaker: AtomicU8::new(State::Closed as u8),
            open_until: AtomicU64::new(0),
            origin,
            forced: AtomicU8::new(0),
            connection: AtomicU64::new(0),
            pulse: Pulse::default(),
            supervisors: Mutex::default(),
            changed,
        }
    }

    pub(crate) fn open(&self, mailbox: Addr<ShardActor>) {
        // A port is opened once, by the shard that made it.
        let _ = self.mailbox.set(mailbox);
    }

    pub(crate) fn mailbox(&self) -> Option<&Addr<ShardActor>> {
        self.mailbox.get().filter(|mailbox| mailbox.connected())
    }

    /// Leaves a call, which has a place in the queue, for the shard's thread.
    pub(crate) fn post(&self, call: Envelope) {
        if self.inbox.leave(call)
            && let Some(mailbox) = self.mailbox()
        {
            #[expect(clippy::disallowed_methods, reason = "the call has its place in the queue, which is the bound")]
            mailbox.do_send(Ring);
        }
    }

    pub(crate) fn state(&self) -> ShardState {
        let state = usize::from(self.state.load(Ordering::Acquire));
        ShardState::ALL.get(state).copied().unwrap_or(ShardState::Stopped)
    }

    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.state.load(Ordering::Relaxed) == ShardState::Ready as u8
    }

    pub(crate) fn set_state(&self, state: ShardState) {
        self.state.store(state as u8, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Whether calls may be posted.
    pub(crate) fn is_reachable(&self) -> bool {
        self.state() != ShardState::Stopped && self.mailbox().is_some()
    }

    pub(crate) fn attempted(&self) -> bool {
        self.attempted.load(Ordering::Acquire) || self.state() == ShardState::Stopped
    }

    pub(crate) fn set_attempted(&self) {
        self.attempted.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Takes a place in the queue.
    pub(crate) fn reserve(&self) -> Result<(), Failure> {
        if self.queued.fetch_add(1, Ordering::AcqRel) < self.queue_limit {
            return Ok(());
        }
        self.leave();
        self.reject(Rejection::Full);
        Err(Failure::Overloaded { retry_after: self.retry_after() })
    }

    /// Gives a place in the queue back.
    pub(crate) fn leave(&self) {
        self.queued.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// By the shard's thread only.
    #[inline]
    pub(crate) fn set_in_flight(&self, in_flight: usize) {
        self.in_flight.store(in_flight, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> usize {
        self.queued() + self.in_flight()
    }

    pub(crate) fn reject(&self, why: Rejection) {
        if let Some(counter) = self.rejections.get(why as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn rejections(&self, why: Rejection) -> u64 {
        self.rejections.get(why as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    pub(crate) fn restarted(&self) {
        bump(&self.restarts);
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub(crate) fn task_panicked(&self) {
        bump(&self.task_panics);
    }

    pub(crate) fn task_panics(&self) -> u64 {
        self.task_panics.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn operation(&self, number: usize) -> Option<&OperationStats> {
        self.operations.get(number)
    }

    pub(crate) fn breaker(&self) -> State {
        const STATES: [State; 5] =
            [State::Closed, State::HalfOpen, State::Open, State::ForcedClosed, State::ForcedOpen];
        STATES.get(usize::from(self.breaker.load(Ordering::Acquire))).copied().unwrap_or(State::Open)
    }

    /// By the shard's thread only.
    pub(crate) fn show_breaker(&self, state: State, open_until: Option<Instant>) {
        let until = open_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(self.origin));
        self.open_until.store(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX), Ordering::Release);
        self.breaker.store(state as u8, Ordering::Release);
    }

    /// Whether the breaker lets no call through now, for callers on other threads: the shard itself decides about
    /// those that may be probes.
    pub(crate) fn breaker_refuses(&self, now: Instant) -> Option<Duration> {
        match self.breaker() {
            State::Closed | State::HalfOpen | State::ForcedClosed => None,
            State::ForcedOpen => Some(Duration::from_secs(5)),
            State::Open => {
                let until = self.origin + Duration::from_nanos(self.open_until.load(Ordering::Acquire));
                Some(until.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
            }
        }
    }

    #[inline]
    pub(crate) fn connection(&self) -> u64 {
        self.connection.load(Ordering::Relaxed)
    }

    pub(crate) fn set_connection(&self, connection: u64) {
        self.connection.store(connection, Ordering::Relaxed);
    }

    pub(crate) fn force_breaker(&self, force: Option<Force>) {
        let forced = match force {
            None => 0,
            Some(Force::Open) => 1,
            Some(Force::Closed) => 2,
        };
        self.forced.store(forced, Ordering::Release);
    }

    #[inline]
    pub(crate) fn forced(&self) -> Option<Force> {
        match self.forced.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Force::Open),
            _ => Some(Force::Closed),
        }
    }

    /// By the shard's thread only.
    #[inline]
    pub(crate) fn observe(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX / 8);
        let average = self.average.load(Ordering::Relaxed);
        self.average.store(average - average / 8 + took / 8, Ordering::Relaxed);
    }

    /// When a place is likely to be free: the time a full queue takes.
    pub(crate) fn retry_after(&self) -> Duration {
        let rounds = self.queue_limit.div_ceil(self.in_flight_limit.max(1));
        let average = Duration::from_nanos(self.average.load(Ordering::Relaxed));
        average
            .saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
            .clamp(Duration::from_millis(100), Duration::from_secs(10))
    }
}
