//! From the type of a message to the handler, on the shard's thread.

use std::{
    any::{Any, TypeId},
    cell::RefCell,
    collections::HashMap,
    future::ready,
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
    time::Duration,
};

use callboard_messages::{Caller, Failure, Operation};
use futures_util::{FutureExt, future::LocalBoxFuture};

use crate::operation::{Handle, Outcome, StartError};

/// The state of a shard, as its handlers find it: replaced when it is rebuilt, while calls that run keep the old one.
pub(crate) type StateCell<S> = Rc<RefCell<Option<Rc<S>>>>;

/// The handlers of a shard by the type of their message.
pub(crate) type Operations = HashMap<TypeId, Box<dyn Any>, BuildHasherDefault<TypeIdHasher>>;

/// Builds the state anew.
pub(crate) type Build = Box<dyn Fn(crate::context::ShardContext) -> LocalBoxFuture<'static, Result<(), StartError>>>;

/// A handler with the state it works on.
pub(crate) struct LocalOperation<M: Operation> {
    /// Its number among the operations of the domain.
    pub(crate) index: usize,
    pub(crate) invoke: Box<dyn Fn(Caller, M) -> LocalBoxFuture<'static, Outcome<M>>>,
}

pub(crate) fn local_operation<S: Handle<M>, M: Operation>(state: &StateCell<S>, index: usize) -> Box<dyn Any> {
    let state = state.clone();
    let invoke = move |caller: Caller, message: M| {
        let Some(state) = state.borrow().clone() else {
            let failure = Failure::Unavailable { retry_after: Duration::from_secs(1) };
            return ready(Err(failure.into())).boxed_local();
        };
        async move { state.handle(&caller, message).await }.boxed_local()
    };
    Box::new(LocalOperation::<M> { index, invoke: Box::new(invoke) })
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
