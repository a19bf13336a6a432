//! Turns on a connection: it belongs to one request until the response to that is encoded.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

/// The state of the current request's response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponseState {
    /// It is sent, or there was no request yet: the next one may be read.
    Over,
    /// Its head has not been written.
    Waiting {
        /// The client understands interim responses.
        interim: bool,
    },
    /// Its body is being written.
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
    /// Waker of the connection's reader, when it waits for the end of the turn.
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

    /// Begins the turn of a request.
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

    /// The turn of the current request.
    pub(crate) fn take(&self) -> Turn {
        Turn(self.clone())
    }
}

/// One request's turn. It belongs to the future of the response and then to its body, and ends when it is dropped.
pub(crate) struct Turn(Turns);

impl Turn {
    /// Has the request ended when its client is gone.
    pub(crate) fn watch(&self) {
        self.0.0.is_watched.set(true);
    }

    /// Notes that the response is about to be written.
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
