//! How a shard begins, is built anew after a fault, and ends.

use std::{
    cell::{Cell, RefCell},
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::Actor;
use futures_util::FutureExt;
use tokio::sync::Notify;

use super::{RunningCall, Shard, ShardActor};
use crate::{
    blocking::panic_message,
    breaker::{Machine, State},
    domain::{
        context::{ShardContext, Tasks},
        core::DomainCore,
    },
    restart::Patience,
    shard::{
        local,
        port::{Port, ShardState},
        sweep::Sweep,
    },
    supervise::Services,
};

impl Shard {
    /// Opens a shard of the domain on this thread and begins to build its state; calls wait until that is done.
    pub(crate) fn open(core: &Arc<DomainCore>, port: Arc<Port>, services: Services) -> Rc<Self> {
        let assembly = core.blueprint.assemble();
        let sweeper = local::sweeper(core.node, &core.clock);
        let shard = Rc::new_cyclic(|own| Self {
            clock: core.clock.clone(),
            services,
            operations: assembly.operations,
            build: assembly.build,
            clear: assembly.clear,
            breaker: RefCell::new(Machine::new(core.bulkhead.breaker.clone(), core.clock.instant())),
            shown: Cell::new(0),
            queue: RefCell::default(),
            keys: RefCell::default(),
            spare: RefCell::default(),
            pumping: Cell::new(false),
            running: RefCell::default(),
            generation: Cell::new(0),
            tasks: RefCell::new(None),
            patience: RefCell::new(Patience::new(core.bulkhead.backoff)),
            sweeper: sweeper.clone(),
            drained: Notify::new(),
            own: own.clone(),
            core: core.clone(),
            port,
        });
        let member: Rc<dyn Sweep> = shard.clone();
        sweeper.watch(Rc::downgrade(&member));
        shard.port.open(ShardActor(shard.clone()).start());
        local::install(core.number, shard.clone());
        actix_rt::spawn(shard.clone().build_from(Duration::ZERO));
        shard.answer_pulse();
        shard
    }

    /// Answers the heartbeat for as long as the shard lives.
    fn answer_pulse(&self) {
        let port = self.port.clone();
        actix_rt::spawn(async move {
            while port.state() != ShardState::Stopped {
                port.pulse.ask.notified().await;
                port.pulse.answer();
            }
        });
    }

    /// The domain had been given up and is given another chance.
    pub(crate) fn revive(self: Rc<Self>) {
        if self.port.state() != ShardState::Stopped {
            return;
        }
        self.core.start_supervisor(&self.services);
        self.generation.update(|generation| generation + 1);
        *self.breaker.borrow_mut() = Machine::new(self.core.bulkhead.breaker.clone(), self.now());
        self.shown.set(0);
        self.port.show_breaker(State::Closed, None);
        self.port.set_state(ShardState::Restarting);
        self.answer_pulse();
        actix_rt::spawn(self.build_from(Duration::ZERO));
    }

    /// A state of this shard is broken: the next calls wait for a new one. What still runs on the old one may finish.
    pub(crate) fn fault(&self, generation: u64, reason: &str) {
        if generation != self.generation.get() || self.port.state() != ShardState::Ready {
            return;
        }
        self.generation.set(generation + 1);
        self.port.set_state(ShardState::Restarting);
        let Some(shard) = self.own.upgrade() else { return };
        if let Some(delay) = self.next_delay(reason) {
            actix_rt::spawn(shard.build_from(delay));
        }
    }

    /// How long the next restart waits; `None` when it is one too many, which exhausts the domain.
    fn next_delay(&self, reason: &str) -> Option<Duration> {
        let now = self.now();
        if !self.core.may_restart(now) {
            self.core.exhaust(reason);
            return None;
        }
        self.port.restarted();
        Some(self.patience.borrow_mut().next_delay(now))
    }

    async fn build_from(self: Rc<Self>, mut delay: Duration) {
        loop {
            if !delay.is_zero() {
                self.clock.sleep(delay).await;
            }
            if matches!(self.port.state(), ShardState::Stopping | ShardState::Stopped) {
                return;
            }
            let (own, generation) = (self.own.clone(), self.generation.get());
            let fault = move |reason: &str| {
                if let Some(shard) = own.upgrade() {
                    shard.fault(generation, reason);
                }
            };
            let tasks = Tasks::new(self.port.clone(), Rc::new(fault));
            if let Some(old) = self.tasks.replace(Some(tasks.clone())) {
                old.stop();
            }
            let Some(context) = self.context(tasks) else { return };
            let built = AssertUnwindSafe(async { (self.build)(context).await }).catch_unwind().await;
            let reason = match built {
                Ok(Ok(())) => {
                    if matches!(self.port.state(), ShardState::Starting | ShardState::Restarting) {
                        self.port.set_state(ShardState::Ready);
                    }
                    self.port.set_attempted();
                    self.pump();
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(panic) => format!("the factory panicked: {}", panic_message(&*panic)),
            };
            tracing::error!(domain = self.core.name, shard = self.port.index, %reason, "cannot build a shard");
            let next = self.next_delay(&reason);
            self.port.set_attempted();
            match next {
                Some(next) => delay = next,
                None => return,
            }
        }
    }

    fn context(&self, tasks: Tasks) -> Option<ShardContext> {
        Some(ShardContext {
            domain: self.core.name,
            clock: self.clock.clone(),
            bus: self.services.bus.clone(),
            live: self.services.live.clone(),
            events: self.services.events.clone(),
            disk: self.services.disk.clone(),
            index: self.port.index,
            count: self.core.expected_shards().max(self.port.index + 1),
            supervisor: self.core.supervisor()?,
            tasks,
        })
    }

    /// Ends what runs and waits until the deadline, then drops the rest and the state.
    pub(crate) async fn stop(self: Rc<Self>, deadline: Instant) {
        if self.port.state() != ShardState::Stopped {
            let was_ready = self.port.state() == ShardState::Ready;
            self.port.set_state(ShardState::Stopping);
            if was_ready {
                self.pump();
                let drained = async {
                    loop {
                        let notified = self.drained.notified();
                        if self.is_drained() {
                            return;
                        }
                        notified.await;
                    }
                };
                let _ = self.clock.timeout_at(deadline, drained).await;
            }
        }
        self.give_up();
        local::remove(self.core.number);
    }

    /// Refuses what waits, drops what runs, and drops the state.
    pub(crate) fn give_up(&self) {
        self.port.set_state(ShardState::Stopped);
        self.port.set_attempted();
        self.port.pulse.ask.notify_one();
        if let Some(tasks) = self.tasks.take() {
            tasks.stop();
        }
        // Those that come from now on are refused as they are taken out.
        if let Some(shard) = self.own.upgrade() {
            shard.empty_inbox();
        }
        for envelope in self.take_waiting() {
            envelope.refuse(self.core.unavailable());
        }
        let running: Vec<Rc<RunningCall>> = self.running.borrow().iter().map(|(_, call)| call.clone()).collect();
        for call in running {
            call.end(self.core.overdue());
        }
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| (self.clear)())) {
            tracing::error!(domain = self.core.name, panic = %panic_message(&*panic), "a state panicked as it was dropped");
        }
    }
}
