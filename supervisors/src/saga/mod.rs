//! Sagas: several steps, in several domains, that happen together or are taken back.
//!
//! A [`Saga`] is plain data: steps with a name, an act and an undo. Its log is a row in the domain's own database, and
//! that row is its lease as well: whoever drives the saga renews it, and another node takes over what is renewed no
//! more. What an earlier driver still writes is refused by the row's token.
//!
//! A step [`elsewhere`](Saga::step) asks other domains, so nobody knows whether one that was interrupted was carried out:
//! its act and its undo must have no second effect, and its undo must do no harm when the act never happened. A step
//! [`here`](Saga::local) writes in the domain's own database, in the transaction of the log, and happens exactly once.
//!
//! | an act ends in | then |
//! |---|---|
//! | a reply | the next step |
//! | a refusal | what was done is undone, the last first; the step itself as well if it may have happened |
//! | a failure that nothing came of, a few times | the same |
//! | an unknown outcome | the same act again, until the outcome is known |
//!
//! A step that panics ends in an unknown outcome, and so does one whose log cannot be written: until the log can be read
//! again, nothing more is done.
//!
//! The log has the names of the steps too. A version that has others up to where a saga stands, or lacks one of them,
//! leaves it alone: in an upgrade, new steps are carried out by the versions that know them.
//!
//! An undo is tried again whatever it ends in. What goes neither forward nor back after a bounded number of tries is
//! **stuck**: it raises an alert, and an operator looks and retries it.

mod begun;
mod driver;
mod engine;
mod log;
mod operator;
mod plan;
mod sweeper;
#[doc(hidden)]
pub mod testing;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::{
    engine::{SagaEngine, Sagas},
    operator::{HasSagas, SagasOf},
    plan::{Saga, SagaState, StepContext, StepOutcome},
};
pub(crate) use self::{log::prune, operator::SagaCalls};
use crate::restart::Backoff;

/// How patient a saga is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SagaSettings {
    /// How long a driver may show no sign of life before another takes over. Default 5 s.
    pub ttl: Duration,
    /// The pauses between the tries of one step. Default 100 ms, doubling to 10 s.
    pub backoff: Backoff,
    /// How often an act is tried that certainly never happened, before the saga is undone. Default 6, about 3 s.
    pub tries: u32,
    /// How often an undo may be refused, or fail by a fault of ours, before the saga is stuck. Default 10.
    pub refusals: u32,
    /// How often a step is tried whose outcome is unknown, or whose undo cannot be asked for, before the saga is stuck.
    /// Default 200, more than half an hour.
    pub patience: u32,
}

impl Default for SagaSettings {
    fn default() -> Self {
        Self {
            ttl: crate::lease::TTL,
            backoff: Backoff { at_most: Duration::from_secs(10), ..Backoff::default() },
            tries: 6,
            refusals: 10,
            patience: 200,
        }
    }
}
