//! Failures of other domains that a call meets. A failure counts where it happens and nowhere else: a call that only
//! passes on what another domain failed with says nothing about its own, whose breaker would keep callers from what needs
//! that other domain for nothing, long after it is back.

use std::cell::RefCell;

use callboard_messages::Failure;

thread_local! {
    /// Of the call that this thread polls.
    static MET: RefCell<Met> = const { RefCell::new(Met { failure: None, is_waiting: false }) };
}

#[derive(Debug, Default)]
struct Met {
    /// The last failure of another domain.
    failure: Option<Failure>,
    /// Whether the call ended while it waited for another domain.
    is_waiting: bool,
}

/// What one call has met.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere(RefCell<Met>);

/// What is noted belongs to the call until this is dropped.
pub(crate) struct Noting<'c>(&'c Elsewhere);

impl Elsewhere {
    #[inline]
    pub(crate) fn enter(&self) -> Noting<'_> {
        MET.with(|met| met.swap(&self.0));
        Noting(self)
    }

    /// Whether this is what another domain failed with.
    pub(crate) fn is_from_there(&self, failure: &Failure) -> bool {
        self.0.borrow().failure.as_ref() == Some(failure)
    }

    /// Whether it waited for another domain, to be asked when its future was dropped.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.borrow().is_waiting
    }
}

impl Drop for Noting<'_> {
    #[inline]
    fn drop(&mut self) {
        MET.with(|met| met.swap(&self.0.0));
    }
}

/// The call that this thread polls has met this.
pub(crate) fn note(failure: &Failure) {
    MET.with(|met| met.borrow_mut().failure = Some(failure.clone()));
}

/// The future of the call that this thread polls is about to be dropped: whom it leaves from now on, it waited for.
pub(crate) fn begin_leaving() {
    MET.with(|met| met.borrow_mut().is_waiting = false);
}

/// The call that this thread polls does not wait any longer for another domain, which has not answered.
pub(crate) fn note_left() {
    MET.with(|met| met.borrow_mut().is_waiting = true);
}
