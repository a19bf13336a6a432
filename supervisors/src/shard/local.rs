//! What this thread has: its shards, and what watches over deadlines.
//!
//! A thread-local is the one way to find the shard of the caller's own thread without passing it through every
//! handler. It holds nothing that a [`crate::Runtime`] did not put there, and is emptied when that stops.

use std::{cell::RefCell, rc::Rc};

use crate::{
    blocking::fs,
    shard::{Shard, sweep::Sweeper},
    time::clock::Clock,
};

#[derive(Default)]
struct Thread {
    /// By the domain's number, which is unique within the process.
    shards: Vec<Option<Rc<Shard>>>,
    sweepers: Vec<(u64, Rc<Sweeper>)>,
}

thread_local! {
    static THREAD: RefCell<Thread> = const { RefCell::new(Thread { shards: Vec::new(), sweepers: Vec::new() }) };
}

/// This thread's shard of a domain.
#[inline]
pub(crate) fn shard(domain: usize) -> Option<Rc<Shard>> {
    THREAD.with_borrow(|thread| thread.shards.get(domain).and_then(Clone::clone))
}

pub(crate) fn install(domain: usize, shard: Rc<Shard>) {
    THREAD.with_borrow_mut(|thread| {
        if thread.shards.len() <= domain {
            thread.shards.resize_with(domain + 1, || None);
        }
        if let Some(place) = thread.shards.get_mut(domain) {
            *place = Some(shard);
        }
    });
    fs::has_shards(true);
}

pub(crate) fn remove(domain: usize) {
    // Dropped after the borrow: a state's destructor may ask other domains.
    let (removed, any) = THREAD.with_borrow_mut(|thread| {
        let removed = thread.shards.get_mut(domain).and_then(Option::take);
        (removed, thread.shards.iter().any(Option::is_some))
    });
    fs::has_shards(any);
    drop(removed);
}

/// This thread's sweeper for a node, made when first asked for.
pub(crate) fn sweeper(node: u64, clock: &Clock) -> Rc<Sweeper> {
    THREAD.with_borrow_mut(|thread| {
        if let Some((_, sweeper)) = thread.sweepers.iter().find(|(of, _)| *of == node) {
            return sweeper.clone();
        }
        let sweeper = Sweeper::start(clock.clone());
        thread.sweepers.push((node, sweeper.clone()));
        sweeper
    })
}

pub(crate) fn remove_sweeper(node: u64) {
    let removed = THREAD.with_borrow_mut(|thread| {
        let place = thread.sweepers.iter().position(|(of, _)| *of == node);
        place.map(|place| thread.sweepers.swap_remove(place))
    });
    if let Some((_, sweeper)) = removed {
        sweeper.stop();
    }
}
