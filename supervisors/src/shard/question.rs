//! What is asked and what comes of it, with its types: the thin shell of a call around the code that knows none.

use std::{
    any::TypeId,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use callboard_messages::{Access, CallError, Caller, Failure, Operation};
use futures_util::future::LocalBoxFuture;
use uuid::Uuid;

use super::{
    operation::{Begun, LocalOperation},
    slot::{AnyContent, AnySlot, Slot},
};
use crate::{domain::operation::Outcome, shard::port::Port, telemetry::stats::Ending};

/// What an operation declares, without its type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signature {
    pub(crate) name: &'static str,
    pub(crate) id: TypeId,
    pub(crate) access: Access,
    pub(crate) timeout: Duration,
    pub(crate) idempotent: bool,
}

impl Signature {
    pub(crate) const fn of<M: Operation>() -> &'static Self {
        const {
            &Self {
                name: M::NAME,
                id: TypeId::of::<M>(),
                access: M::ACCESS,
                timeout: M::TIMEOUT,
                idempotent: M::IDEMPOTENT,
            }
        }
    }
}

/// How far a call has come.
pub(crate) enum Step {
    /// Its outcome is in its place.
    Ended(Ending),
    /// What is left to do, which ends with the outcome in the slot.
    Waits(LocalBoxFuture<'static, Ending>, Arc<dyn AnySlot>),
}

/// A message on its way, and then its outcome.
pub(crate) enum Question<M: Operation> {
    Asked(M),
    Waits(Waiting<M>),
    Answered(Outcome<M>),
    Over,
}

/// The caller's end of a slot. Dropped before the call began, it takes it out of the queue.
pub(crate) struct Waiting<M: Operation>(Arc<Slot<M>>);

impl<M: Operation> Drop for Waiting<M> {
    fn drop(&mut self) {
        self.0.exchange().leave();
    }
}

/// A question of any operation.
pub(crate) trait AnyQuestion: AnyContent {
    fn signature(&self) -> &'static Signature;
    /// Calls of one key run one at a time.
    fn key(&self) -> Option<Uuid>;
    /// Carries the message out as far as it goes without waiting.
    fn run(&mut self, port: &Arc<Port>, operation: &LocalOperation, caller: &Caller, cx: &mut Context<'_>) -> Step;
    /// Leaves the message for a shard, in whose queue it has a place.
    fn leave(&mut self, port: &Arc<Port>) -> Option<Arc<dyn AnySlot>>;
    /// The slot in which it waits.
    fn slot(&self) -> Option<Arc<dyn AnySlot>>;
    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

impl<M: Operation> Question<M> {
    /// The outcome, when it is there.
    pub(crate) fn take(&mut self) -> Option<Outcome<M>> {
        match std::mem::replace(self, Self::Over) {
            Self::Answered(outcome) => Some(outcome),
            _ => None,
        }
    }
}

impl<M: Operation> AnyQuestion for Question<M> {
    fn signature(&self) -> &'static Signature {
        Signature::of::<M>()
    }

    fn key(&self) -> Option<Uuid> {
        match (M::KEY, self) {
            (Some(key), Self::Asked(message)) => Some(key(message)),
            _ => None,
        }
    }

    fn run(&mut self, port: &Arc<Port>, operation: &LocalOperation, caller: &Caller, cx: &mut Context<'_>) -> Step {
        let message = match std::mem::replace(self, Self::Over) {
            Self::Asked(message) => Some(message),
            _ => None,
        };
        match operation.begin(caller, message, cx) {
            Begun::Ended((outcome, ending)) => {
                *self = Self::Answered(outcome);
                Step::Ended(ending)
            }
            Begun::Waits(rest) => {
                let (slot, step) = Slot::running(port.clone(), rest);
                *self = Self::Waits(Waiting(slot));
                step
            }
        }
    }

    fn leave(&mut self, port: &Arc<Port>) -> Option<Arc<dyn AnySlot>> {
        let Self::Asked(message) = std::mem::replace(self, Self::Over) else { return None };
        let slot = Slot::queued(port.clone(), message);
        *self = Self::Waits(Waiting(slot.clone()));
        Some(slot)
    }

    fn slot(&self) -> Option<Arc<dyn AnySlot>> {
        match self {
            Self::Waits(Waiting(slot)) => Some(slot.clone()),
            _ => None,
        }
    }

    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Waits(Waiting(slot)) = self {
            let outcome = ready!(slot.poll_outcome(cx));
            *self = Self::Answered(outcome);
        }
        Poll::Ready(())
    }
}

impl<M: Operation> AnyContent for Question<M> {
    fn fail(&mut self, failure: Failure) {
        *self = Self::Answered(Err(failure.into()));
    }

    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Answered(Err(CallError::Failed(failure))) => Some(failure),
            _ => None,
        }
    }
}
