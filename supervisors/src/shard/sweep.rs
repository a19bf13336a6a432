//! Deadlines without a timer per call: while calls are pending on a thread, one task looks through them every 25 ms.
//! A thread with nothing pending is not woken.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use slab::Slab;
use tokio::sync::Notify;

use crate::{shard::AnySlot, time::clock::Clock};

/// How late a deadline may be noticed.
const TICK: Duration = Duration::from_millis(25);
/// What a shard on another thread gets on top, to answer by itself; a shard that is blocked never does.
const GRACE: Duration = Duration::from_millis(50);

/// Something with deadlines.
pub(crate) trait Sweep {
    /// Ends what is due; whether anything is still pending.
    fn sweep(&self, now: Instant) -> bool;
}

pub(crate) struct Sweeper {
    members: RefCell<Vec<Weak<dyn Sweep>>>,
    /// Calls of this thread that wait for shards of other threads.
    abroad: RefCell<Slab<(Instant, Arc<dyn AnySlot>)>>,
    armed: Cell<bool>,
    stopped: Cell<bool>,
    wake: Notify,
}

impl Sweeper {
    pub(crate) fn start(clock: Clock) -> Rc<Self> {
        let sweeper = Rc::new(Self {
            members: RefCell::default(),
            abroad: RefCell::default(),
            armed: Cell::new(false),
            stopped: Cell::new(false),
            wake: Notify::new(),
        });
        let this = sweeper.clone();
        actix_rt::spawn(async move {
            while !this.stopped.get() {
                if this.armed.get() {
                    clock.sleep(TICK).await;
                    this.armed.set(this.sweep(clock.instant()));
                } else {
                    this.wake.notified().await;
                }
            }
        });
        sweeper
    }

    /// Lets its task end.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
        self.wake.notify_one();
    }

    pub(crate) fn watch(&self, member: Weak<dyn Sweep>) {
        self.members.borrow_mut().push(member);
    }

    /// Something is pending now.
    #[inline]
    pub(crate) fn arm(&self) {
        if !self.armed.replace(true) {
            self.wake.notify_one();
        }
    }

    /// Watches over a call to another thread; the number takes it off again.
    pub(crate) fn await_abroad(&self, deadline: Instant, call: Arc<dyn AnySlot>) -> usize {
        self.arm();
        self.abroad.borrow_mut().insert((deadline + GRACE, call))
    }

    pub(crate) fn forget_abroad(&self, number: usize) {
        let forgotten = self.abroad.borrow_mut().try_remove(number);
        drop(forgotten);
    }

    fn sweep(&self, now: Instant) -> bool {
        let members: Vec<Rc<dyn Sweep>> = {
            let mut members = self.members.borrow_mut();
            members.retain(|member| member.strong_count() > 0);
            members.iter().filter_map(Weak::upgrade).collect()
        };
        let mut pending = false;
        for member in members {
            pending |= member.sweep(now);
        }
        let overdue: Vec<Arc<dyn AnySlot>> = {
            let abroad = self.abroad.borrow();
            abroad.iter().filter(|(_, (deadline, _))| *deadline <= now).map(|(_, (_, call))| call.clone()).collect()
        };
        for call in overdue {
            call.overdue();
        }
        pending || !self.abroad.borrow().is_empty()
    }
}
