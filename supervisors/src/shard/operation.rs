//! From the type of a message to the handler, on the shard's thread.

use std::{
    any::{Any, TypeId},
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use callboard_messages::{Caller, Failure, Operation};
use futures_util::{FutureExt, future::LocalBoxFuture};

use crate::{
    domain::operation::{Handle, Outcome, StartError},
    telemetry::stats::Ending,
};

/// The state of a shard, as its handlers find it: replaced when it is rebuilt, while calls that run keep the old one.
pub(crate) type StateCell<S> = Rc<RefCell<Option<Rc<S>>>>;

/// The handlers of a shard by the type of their message.
pub(crate) type Operations = HashMap<TypeId, LocalOperation, BuildHasherDefault<TypeIdHasher>>;

/// Builds the state anew.
pub(crate) type Build =
    Box<dyn Fn(crate::domain::context::ShardContext) -> LocalBoxFuture<'static, Result<(), StartError>>>;

/// A handler with the state it works on.
pub(crate) struct LocalOperation {
    /// Its number among the operations of the domain.
    pub(crate) index: usize,
    /// An [`Invoke`] of its message.
    invoke: Box<dyn Any>,
}

/// Nothing while there is no state.
type Invoke<M> = Box<dyn Fn(&Caller, M) -> Option<Invocation<M>>>;

/// A message that is carried out.
pub(crate) type Invocation<M> = LocalBoxFuture<'static, Judged<M>>;

/// An outcome, and what it says about the domain.
pub(crate) type Judged<M> = (Outcome<M>, Ending);

impl LocalOperation {
    /// Carries a message out as far as that goes without waiting.
    pub(crate) fn begin<M: Operation>(&self, caller: &Caller, message: Option<M>, cx: &mut Context<'_>) -> Begun<M> {
        let mut rest = match self.invoke(caller, message) {
            Ok(rest) => rest,
            Err(failure) => {
                let ending = Ending::failed(&failure);
                return Begun::Ended((Err(failure.into()), ending));
            }
        };
        match rest.as_mut().poll(cx) {
            Poll::Ready(judged) => Begun::Ended(judged),
            Poll::Pending => Begun::Waits(rest),
        }
    }

    fn invoke<M: Operation>(&self, caller: &Caller, message: Option<M>) -> Result<Invocation<M>, Failure> {
        let invoke = self.invoke.downcast_ref::<Invoke<M>>();
        let (Some(invoke), Some(message)) = (invoke, message) else { return Err(mistaken(M::NAME)) };
        invoke(caller, message).ok_or(UNBUILT)
    }
}

/// How far a message is carried out.
pub(crate) enum Begun<M: Operation> {
    Ended(Judged<M>),
    Waits(Invocation<M>),
}

/// What a call is told that comes before there is a state.
const UNBUILT: Failure = Failure::Unavailable { retry_after: Duration::from_secs(1) };

#[cold]
fn mistaken(name: &str) -> Failure {
    Failure::Internal(format!("{name} was begun twice, or by the handler of another operation"))
}

/// An operation that the domain's own state answers.
pub(crate) fn local_operation<S: Handle<M>, M: Operation>(state: &StateCell<S>, index: usize) -> LocalOperation {
    operation(state, index, |state: Rc<S>, caller: &Caller, message: M| {
        let caller = caller.clone();
        async move {
            let outcome = state.handle(&caller, message).await;
            let ending = Ending::of(&outcome);
            (outcome, ending)
        }
        .boxed_local()
    })
}

/// An operation that is carried out by `carry_out`, which also says what the outcome tells about the domain.
pub(crate) fn operation<S: 'static, M: Operation>(
    state: &StateCell<S>,
    index: usize,
    carry_out: fn(Rc<S>, &Caller, M) -> Invocation<M>,
) -> LocalOperation {
    let state = state.clone();
    let invoke: Invoke<M> = Box::new(move |caller, message| {
        let state = state.borrow().clone();
        state.map(|state| carry_out(state, caller, message))
    });
    LocalOperation { index, invoke: Box::new(invoke) }
}

/// A `TypeId` is a good hash already.
#[derive(Default)]
pub(crate) struct TypeIdHasher(u64);

impl Hasher for TypeIdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 ^= word;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
