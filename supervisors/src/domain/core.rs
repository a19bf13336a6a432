//! The state of a domain that all threads share: its shards, whether it takes calls, and its restarts.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use callboard_messages::Failure;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    breaker::{Force, State},
    bulkhead::Bulkhead,
    call::remote::Transport,
    domain::{Blueprint, Domain, OperationInfo, Shards, topic::LiveTopic},
    events::{Deliver, Subscription},
    health::{
        condition::{Away, Condition, Part, Requirement},
        dependency::Dependency,
    },
    restart::{Exit, RestartLog},
    saga::SagaCalls,
    shard::{
        Control,
        keys::Keys,
        port::{Port, Rejection, ShardState},
    },
    supervise::{Services, Supervisor, SupervisorRef},
    time::clock::Clock,
};

/// Retry delay for callers of a domain that is down.
const DOWN_RETRY_AFTER: Duration = Duration::from_secs(5);

const OPEN: u8 = 0;
const EXHAUSTED: u8 = 1;
const STOPPING: u8 = 2;

static NEXT_DOMAIN: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct DomainCore {
    pub(crate) name: &'static str,
    /// Unique within the process: the index of the domain in each thread's table of shards.
    pub(crate) number: usize,
    /// The node it belongs to.
    pub(crate) node: u64,
    pub(crate) clock: Clock,
    pub(crate) bulkhead: Bulkhead,
    pub(crate) shards: Shards,
    pub(crate) blueprint: Arc<dyn Blueprint>,
    pub(crate) operations: Vec<OperationInfo>,
    /// How its sagas are asked for, if it has any.
    pub(crate) sagas: Option<SagaCalls>,
    /// What of it can be followed live.
    pub(crate) topics: Vec<LiveTopic>,
    /// Set on a node that does not host the domain.
    pub(crate) transport: Option<Arc<dyn Transport>>,
    /// Dependencies outside of the node: breakers are reset when one is back.
    stands_on: Vec<Dependency>,
    /// Parts without which it can't answer.
    requirements: Vec<Arc<dyn Requirement>>,
    plan: Supervisor,
    supervisor: Mutex<Option<SupervisorRef>>,
    workers: usize,
    ports: ArcSwap<Vec<Arc<Port>>>,
    adding: Mutex<()>,
    /// Origin of the monotonic times.
    origin: Instant,
    /// The keys of waiting and running calls.
    pub(crate) keys: Keys,
    /// Where [`pick`](Self::pick) begins the next time.
    turn: AtomicUsize,
    state: AtomicU8,
    reason: Mutex<Option<String>>,
    log: Mutex<RestartLog>,
    changed: Arc<Notify>,
}

impl DomainCore {
    pub(crate) fn new(domain: Domain, node: u64, workers: usize, clock: Clock) -> Self {
        Self {
            name: domain.name,
            number: NEXT_DOMAIN.fetch_add(1, Ordering::Relaxed),
            node,
            log: Mutex::new(RestartLog::new(domain.bulkhead.intensity)),
            bulkhead: domain.bulkhead,
            shards: domain.shards,
            blueprint: domain.blueprint,
            operations: domain.operations,
            sagas: domain.sagas,
            topics: domain.topics,
            transport: domain.transport,
            stands_on: domain.stands_on,
            requirements: domain.requirements,
            plan: domain.supervisor,
            supervisor: Mutex::new(None),
            workers,
            ports: ArcSwap::default(),
            adding: Mutex::new(()),
            origin: clock.instant(),
            keys: Keys::default(),
            turn: AtomicUsize::new(0),
            state: AtomicU8::new(OPEN),
            clock,
            reason: Mutex::new(None),
            changed: Arc::default(),
        }
    }

    pub(crate) fn expected_shards(&self) -> usize {
        match self.shards {
            Shards::Shared => self.workers,
            Shards::Dedicated(threads) => threads,
        }
    }

    pub(crate) fn ports(&self) -> Arc<Vec<Arc<Port>>> {
        self.ports.load_full()
    }

    pub(crate) fn add_port(&self) -> Arc<Port> {
        let _one_at_a_time = self.adding.lock();
        let ports = self.ports();
        let port = Port::new(ports.len(), &self.bulkhead, self.operations.len(), self.origin, self.changed.clone());
        let port = Arc::new(port);
        self.ports.store(Arc::new(ports.iter().cloned().chain([port.clone()]).collect()));
        port
    }

    /// The domain's supervisor, started on the thread that calls this first.
    pub(crate) fn start_supervisor(self: &Arc<Self>, services: &Services) {
        let mut running = self.supervisor.lock();
        if running.is_some() {
            return;
        }
        let supervisor = self.plan.clone().start(services.clone());
        let (core, watched) = (self.clone(), supervisor.clone());
        actix_rt::spawn(async move {
            if let Exit::Abnormal(reason) = watched.ended().await {
                core.exhaust(&reason);
            }
        });
        *running = Some(supervisor);
    }

    pub(crate) fn supervisor(&self) -> Option<SupervisorRef> {
        self.supervisor.lock().clone()
    }

    /// Whether the domain takes calls at all.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<(), Failure> {
        if self.state.load(Ordering::Relaxed) == OPEN { Ok(()) } else { Err(self.down()) }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.check_state(OPEN)
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.check_state(EXHAUSTED)
    }

    fn check_state(&self, state: u8) -> bool {
        self.state.load(Ordering::Acquire) == state
    }

    /// Counts a call that is not taken because the domain is down.
    pub(crate) fn down(&self) -> Failure {
        self.reject(Rejection::Down);
        self.unavailable()
    }

    pub(crate) fn unavailable(&self) -> Failure {
        Failure::Unavailable { retry_after: DOWN_RETRY_AFTER }
    }

    /// Whether this node hosts the domain.
    pub(crate) const fn is_hosted(&self) -> bool {
        self.transport.is_none()
    }

    /// A number that changes whenever a dependency of the domain is back: the connection to its hosts, its database.
    /// What breakers recorded before does not count any more.
    #[inline]
    pub(crate) fn connection(&self) -> u64 {
        let transport = self.transport.as_ref().map_or(0, |transport| transport.connection());
        self.stands_on.iter().map(Dependency::returns).fold(transport, u64::wrapping_add)
    }

    /// Whether the breaker of this shard has recorded outcomes since the domain's dependencies were last back; earlier ones
    /// do not count.
    #[inline]
    pub(crate) fn judges(&self, port: &Port) -> bool {
        port.connection() == self.connection()
    }

    /// The state of a shard's breaker for a call that comes now.
    pub(crate) fn breaker_of(&self, port: &Port) -> State {
        match port.breaker() {
            State::Open | State::HalfOpen if !self.judges(port) => State::Closed,
            state => state,
        }
    }

    /// The domain's reaction to events of this type.
    pub(crate) fn reaction(&self, kind: &str) -> Option<Deliver> {
        self.operations
            .iter()
            .filter(|operation| operation.signature.name == kind)
            .find_map(|operation| operation.reaction)
    }

    /// The events it reacts to.
    pub(crate) fn subscription(&self) -> Subscription {
        let reactions = self.operations.iter().filter(|operation| operation.reaction.is_some());
        Subscription { domain: self.name, types: reactions.map(|operation| operation.signature.name).collect() }
    }

    /// The failure of a call that runs when its deadline passes.
    pub(crate) fn overdue(&self) -> Failure {
        if self.transport.is_some() { Failure::Unknown } else { Failure::Timeout }
    }

    pub(crate) fn reject(&self, why: Rejection) {
        if let Some(port) = self.ports.load().first() {
            port.reject(why);
        }
    }

    /// A shard for a caller whose thread has none: the least loaded, starting with another each time.
    pub(crate) fn pick(&self) -> Option<Arc<Port>> {
        let ports = self.ports.load();
        if let [only] = ports.as_slice() {
            return Some(only).filter(|port| port.is_reachable()).cloned();
        }
        let begin = self.turn.fetch_add(1, Ordering::Relaxed) % ports.len().max(1);
        let (after, before) = (ports.iter().skip(begin), ports.iter().take(begin));
        after
            .chain(before)
            .filter(|port| port.is_reachable())
            // A blocked thread is called only when there is no other.
            .min_by_key(|port| (port.pulse.is_blocked(), port.load()))
            .cloned()
    }

    /// The worst state of the shards' breakers.
    pub(crate) fn breaker(&self) -> Option<State> {
        self.ports.load().iter().map(|port| self.breaker_of(port)).max_by_key(|state| match state {
            State::Closed => 0,
            State::ForcedClosed => 1,
            State::HalfOpen => 2,
            State::Open => 3,
            State::ForcedOpen => 4,
        })
    }

    /// Forces the breakers of all shards open or closed; `None` ends that.
    pub(crate) fn force_breaker(&self, force: Option<Force>) {
        for port in self.ports.load().iter() {
            port.force_breaker(force);
            if let Some(mailbox) = port.mailbox() {
                #[expect(clippy::disallowed_methods, reason = "a control message, by an operator's hand")]
                mailbox.do_send(Control::ShowBreaker);
            }
        }
    }

    /// Whether one more restart is allowed; the shards of a domain share its intensity.
    pub(crate) fn may_restart(&self, now: Instant) -> bool {
        self.log.lock().allow(now)
    }

    /// Marks the domain as unavailable after too many restarts. Other domains go on.
    pub(crate) fn exhaust(&self, reason: &str) {
        if self.state.compare_exchange(OPEN, EXHAUSTED, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        tracing::error!(domain = self.name, reason, "too many restarts: the domain is unavailable");
        *self.reason.lock() = Some(reason.to_owned());
        if let Some(supervisor) = self.supervisor() {
            supervisor.stop_soon();
        }
        for port in self.ports().iter() {
            if let Some(mailbox) = port.mailbox() {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a control message of the node, once in the domain's life"
                )]
                mailbox.do_send(Control::GiveUp);
            }
        }
        self.changed.notify_waiters();
    }

    /// Restarts an exhausted domain: its restarts are forgotten, its shards and children rebuilt.
    pub(crate) fn revive(&self) -> bool {
        // Its children must have ended first, or two of one name would run.
        let ended = self.supervisor.lock().as_ref().is_none_or(SupervisorRef::has_ended);
        if !ended || self.state.compare_exchange(EXHAUSTED, OPEN, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return false;
        }
        tracing::warn!(domain = self.name, "an operator restarts an exhausted domain");
        *self.supervisor.lock() = None;
        *self.log.lock() = RestartLog::new(self.bulkhead.intensity);
        *self.reason.lock() = None;
        for port in self.ports().iter() {
            if let Some(mailbox) = port.mailbox() {
                #[expect(clippy::disallowed_methods, reason = "a control message, by an operator's hand")]
                mailbox.do_send(Control::Revive);
            }
        }
        true
    }

    pub(crate) fn begin_stop(&self) {
        let _ = self.state.compare_exchange(OPEN, STOPPING, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Waits until every shard was built, or its first build failed.
    pub(crate) async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_exhausted() || self.ports.load().iter().all(|port| port.attempted()) {
                return;
            }
            changed.await;
        }
    }
}

impl DomainCore {
    /// Whether this part is away, if the domain requires it.
    pub(crate) fn lacks(&self, part: Part) -> Option<Away> {
        self.requirements.iter().filter_map(|requirement| requirement.away()).find(|away| away.part == part)
    }

    /// What keeps the domain from taking calls now; `None` when it is ready.
    pub(crate) fn condition(&self) -> Option<Condition> {
        let name = self.name;
        let own = |state: &'static str, reason: String| Some(Condition::new(state, Part::Domain, reason));
        if self.is_exhausted() {
            let reason = self.reason.lock().clone().map_or(Cow::Borrowed("it failed too often"), Cow::Owned);
            return own("unavailable", format!("{name} was given up after too many restarts: {reason}"));
        }
        if !self.is_open() {
            return own("stopping", format!("{name} is stopping"));
        }
        let ports = self.ports.load();
        if ports.iter().any(|port| port.pulse.is_blocked()) {
            return own("blocked", format!("a thread of {name} is blocked"));
        }
        if let Some(away) = self.requirements.iter().find_map(|requirement| requirement.away()) {
            return Some(Condition { state: "away", away });
        }
        let state = match ports.first() {
            None => Some(ShardState::Starting),
            Some(_) => ports.iter().map(|port| port.state()).find(|state| *state != ShardState::Ready),
        };
        if let Some(state) = state {
            return own(state.as_str(), format!("{name} is {}", state.as_str()));
        }
        let now = self.clock.instant();
        // What a breaker recorded before something came back does not count; a forced state does.
        let refuses = ports.iter().find(|port| {
            port.breaker_refuses(now).is_some() && (self.judges(port) || port.breaker() == State::ForcedOpen)
        })?;
        let reason = match refuses.breaker() {
            State::ForcedOpen => format!("an operator holds the breaker of {name} open"),
            _ => format!("the breaker of {name} is open, because calls failed or took too long"),
        };
        Some(Condition::new("refusing", Part::Breaker, reason))
    }
}
