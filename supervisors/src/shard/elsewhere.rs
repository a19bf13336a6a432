//! Failures of other domains that a call meets. A failure counts where it happens and nowhere else: a call that only
//! passes on what another domain failed with says nothing about its own, whose breaker would keep callers from what needs
//! that other domain for nothing, long after it is back.

use std::cell::Cell;

use callboard_messages::Failure;

thread_local! {
    /// Of the call that this thread polls.
    static MET: Elsewhere = const { Elsewhere { failure: Cell::new(None), is_waiting: Cell::new(false) } };
}

/// What one call has met.
#[derive(Default)]
pub(crate) struct Elsewhere {
    /// The last failure of another domain. Boxed, because it is exchanged at every poll and hardly ever there.
    failure: Cell<Option<Box<Failure>>>,
    /// Whether the call ended while it waited for another domain.
    is_waiting: Cell<bool>,
}

/// What is noted belongs to the call until this is dropped.
pub(crate) struct Noting<'c>(&'c Elsewhere);

impl Elsewhere {
    #[inline]
    pub(crate) fn enter(&self) -> Noting<'_> {
        self.exchange();
        Noting(self)
    }

    #[inline]
    fn exchange(&self) {
        MET.with(|met| {
            met.failure.swap(&self.failure);
            met.is_waiting.swap(&self.is_waiting);
        });
    }

    /// Whether this is what another domain failed with.
    pub(crate) fn is_from_there(&self, failure: &Failure) -> bool {
        let met = self.failure.take();
        let is_same = met.as_deref() == Some(failure);
        self.failure.set(met);
        is_same
    }

    /// Whether it waited for another domain, to be asked when its future was dropped.
    pub(crate) fn is_waiting(&self) -> bool {
        self.is_waiting.get()
    }
}

impl Drop for Noting<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.exchange();
    }
}

/// The call that this thread polls has met this.
pub(crate) fn note(failure: &Failure) {
    MET.with(|met| met.failure.set(Some(Box::new(failure.clone()))));
}

/// The future of the call that this thread polls is about to be dropped: whom it leaves from now on, it waited for.
pub(crate) fn begin_leaving() {
    MET.with(|met| met.is_waiting.set(false));
}

/// The call that this thread polls does not wait any longer for another domain, which has not answered.
pub(crate) fn note_left() {
    MET.with(|met| met.is_waiting.set(true));
}
