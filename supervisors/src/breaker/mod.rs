//! Circuit breakers: stop calling what fails, and find out gently when it works again.
//!
//! Every shard has one of its own, without a lock. For a dependency outside the node (a mail server, the host of a
//! webhook) there is [`Breaker`], which threads share. Only failures of the infrastructure and timeouts count as
//! failures; a refusal shows that the callee works.

mod machine;
mod settings;
#[cfg(test)]
mod tests;
mod window;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use callboard_messages::Failure;
use parking_lot::{Mutex, MutexGuard};

pub(crate) use machine::{Admission, Machine};
pub use machine::{Force, State, Verdict};
pub use settings::{Settings, Window};

use crate::{health::dependency::Dependency, time::clock::Clock};

/// A breaker for one dependency, shared by all its callers. Cheap to clone.
#[derive(Clone)]
pub struct Breaker(Arc<Inner>);

struct Inner {
    name: String,
    clock: Clock,
    machine: Mutex<Machine>,
    ground: Option<Dependency>,
    /// The dependency's count of returns when the machine was last reset.
    returns: AtomicU64,
}

impl Breaker {
    /// A closed breaker for the dependency `name`.
    ///
    /// # Errors
    /// A sentence for each invalid setting.
    pub fn new(name: impl Into<String>, settings: Settings, clock: Clock) -> Result<Self, Vec<String>> {
        Self::made(name.into(), settings, clock, None)
    }

    /// The same for a dependency that is asked in the background while it is away: the breaker is reset when it answers
    /// again, however long it would have stayed open.
    ///
    /// # Errors
    /// A sentence for each invalid setting.
    pub fn before(
        dependency: Dependency,
        name: impl Into<String>,
        settings: Settings,
        clock: Clock,
    ) -> Result<Self, Vec<String>> {
        Self::made(name.into(), settings, clock, Some(dependency))
    }

    fn made(name: String, settings: Settings, clock: Clock, ground: Option<Dependency>) -> Result<Self, Vec<String>> {
        settings.validate()?;
        let machine = Mutex::new(Machine::new(settings, clock.instant()));
        Ok(Self(Arc::new(Inner { name, clock, machine, ground, returns: AtomicU64::new(0) })))
    }

    /// The machine, reset if the dependency has come back: earlier outcomes do not count any more.
    fn machine(&self) -> MutexGuard<'_, Machine> {
        let Inner { name, clock, machine, ground, returns } = &*self.0;
        let mut machine = machine.lock();
        if let Some(ground) = ground {
            let now = ground.returns();
            if returns.swap(now, Ordering::Relaxed) != now {
                if machine.state() != State::Closed {
                    tracing::info!(breaker = %name, "the dependency of the breaker is back; the breaker is reset");
                }
                machine.close(clock.instant());
            }
        }
        machine
    }

    /// A permit for one call.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] while it is open.
    pub fn admit(&self) -> Result<Permit, Failure> {
        let started = self.0.clock.instant();
        let admission = self.machine().admit(started).map_err(|retry_after| Failure::Unavailable { retry_after })?;
        Ok(Permit { breaker: self.clone(), admission: Some(admission), started })
    }

    /// Makes a call, if the breaker lets it through, and records what `judge` says of its output. A call that is
    /// dropped before it ends does not count.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] while it is open.
    pub async fn call<F: Future>(
        &self,
        call: F,
        judge: impl FnOnce(&F::Output) -> Verdict,
    ) -> Result<F::Output, Failure> {
        let permit = self.admit()?;
        let output = call.await;
        permit.record(judge(&output));
        Ok(output)
    }

    /// The current state.
    #[must_use]
    pub fn state(&self) -> State {
        self.machine().state()
    }

    /// Forces it open or closed; `None` ends that.
    pub fn force(&self, force: Option<Force>) {
        self.machine().force(force, self.0.clock.instant());
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("name", &self.0.name).field("state", &self.state()).finish()
    }
}

/// A permit for one call. Dropped without a record, the call does not count.
#[must_use = "record what the call has shown"]
pub struct Permit {
    breaker: Breaker,
    admission: Option<Admission>,
    started: Instant,
}

impl Permit {
    /// Records the outcome of the call.
    pub fn record(mut self, verdict: Verdict) {
        self.end(verdict);
    }

    fn end(&mut self, verdict: Verdict) {
        let Some(admission) = self.admission.take() else { return };
        let Inner { name, clock, .. } = &*self.breaker.0;
        let now = clock.instant();
        let mut machine = self.breaker.machine();
        let before = machine.state();
        machine.record(admission, now, verdict, now.saturating_duration_since(self.started));
        let after = machine.state();
        drop(machine);
        if before != after {
            let (breaker, from, to) = (name, before.as_str(), after.as_str());
            match (before, after) {
                (State::Closed, _) => tracing::warn!(%breaker, from, to, "a breaker has opened"),
                (_, State::Closed) => tracing::info!(%breaker, from, to, "a breaker has closed again"),
                // The outcome of its probes is logged when they succeed.
                _ => tracing::debug!(%breaker, from, to, "a breaker tries again"),
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(Verdict::Nothing);
    }
}
