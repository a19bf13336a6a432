//! Whose turn it is on a connection: one request's, until its answer is encoded.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

/// How far the request ahead has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponseState {
    /// It is answered, or there was none yet: the next one may be read.
    Over,
    /// The head of its answer has not been written.
    Waiting {
        /// The client understands interim answers.
        interim: bool,
    },
    /// Its answer is being written.
    Answering {
        /// In chunks.
        chunked: bool,
    },
}

/// The turns of one connection; clones share them. The service finds them in the connection's data.
#[derive(Clone)]
pub(crate) struct Turns(Rc<State>);

struct State {
    response: Cell<ResponseState>,
    is_watched: Cell<bool>,
    /// Of who reads the connection, when something waits there for the end of the turn.
    reader: RefCell<Option<Waker>>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self(Rc::new(State {
            response: Cell::new(ResponseState::Over),
            is_watched: Cell::new(false),
            reader: RefCell::new(None),
        }))
    }

    /// A request is handed on.
    pub(super) fn begin(&self, interim: bool) {
        self.0.response.set(ResponseState::Waiting { interim });
        self.0.is_watched.set(false);
    }

    pub(super) fn response(&self) -> ResponseState {
        self.0.response.get()
    }

    pub(super) fn is_watched(&self) -> bool {
        self.0.is_watched.get()
    }

    /// Wakes the reader when the turn is over.
    pub(super) fn wake_at_end(&self, cx: &Context<'_>) {
        self.0.reader.replace(Some(cx.waker().clone()));
    }

    /// The turn of the request that was handed on.
    pub(crate) fn take(&self) -> Turn {
        Turn(self.clone())
    }
}

/// One request's turn. It belongs to the future of the answer and then to its body, and ends when it is dropped.
pub(crate) struct Turn(Turns);

impl Turn {
    /// The request is ended when its client is found to have left.
    pub(crate) fn watch(&self) {
        self.0.0.is_watched.set(true);
    }

    /// The answer is about to be written.
    pub(crate) fn answer(&self, chunked: bool) {
        self.0.0.response.set(ResponseState::Answering { chunked });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let state = &self.0.0;
        state.response.set(ResponseState::Over);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}
