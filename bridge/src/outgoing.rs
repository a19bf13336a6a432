//! Batches of a thread. Requests, and replies, that are ready together travel in one message: the thread's flusher
//! sends them once every other ready task has run. Nothing waits longer to fill a batch.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use callboard_supervisors::remote::CallFailure;
use futures_util::FutureExt;
use lapin::{Channel, options::BasicAckOptions};
use tokio::sync::Notify;

use crate::{
    peers,
    publisher::Parcel,
    shared::{RETRY_AFTER, Shared},
    wire::{self, Kind, OPENING, Opening},
};

/// How long an acknowledgement waits for others.
const SETTLED_WITHIN: Duration = Duration::from_millis(1);

thread_local! {
    /// The batches of threads that have a flusher. Only a thread-local finds them from a future that may be polled on
    /// any thread.
    static OUTGOING: RefCell<Vec<(u64, Rc<Outgoing>)>> = const { RefCell::new(Vec::new()) };
}

/// The batches that a thread is filling.
pub(crate) struct Outgoing {
    shared: Arc<Shared>,
    batches: RefCell<Vec<Batch>>,
    /// Messages whose requests are answered, to be acknowledged once the replies are sent.
    answered: RefCell<Vec<(Channel, u64)>>,
    /// When the acknowledgements have waited long enough for others.
    due: Cell<Option<Instant>>,
    woken: Cell<bool>,
    wake: Notify,
}

/// The destination of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) kind: Kind,
    pub(crate) queue: Arc<str>,
}

struct Batch {
    to: Destination,
    entries: usize,
    /// The calls in it, for requests.
    calls: Vec<u64>,
    expires: Duration,
    body: Vec<u8>,
}

impl Batch {
    fn new(to: Destination) -> Self {
        let mut body = Vec::with_capacity(1024);
        body.resize(OPENING, 0);
        if to.kind == Kind::Live {
            wire::leave_live_number(&mut body);
        }
        Self { to, entries: 0, calls: Vec::new(), expires: Duration::ZERO, body }
    }
}

/// Installs the batches of this thread, until the guard is dropped.
pub(crate) struct Installed {
    bridge: u64,
    pub(crate) outgoing: Rc<Outgoing>,
}

impl Installed {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let bridge = shared.number;
        let outgoing = Rc::new(Outgoing {
            shared,
            batches: RefCell::default(),
            answered: RefCell::default(),
            due: Cell::new(None),
            woken: Cell::new(false),
            wake: Notify::new(),
        });
        OUTGOING.with_borrow_mut(|all| all.push((bridge, outgoing.clone())));
        Self { bridge, outgoing }
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.outgoing.flush();
        self.outgoing.settle();
        let mine = &self.outgoing;
        OUTGOING.with_borrow_mut(|all| all.retain(|(of, other)| *of != self.bridge || !Rc::ptr_eq(other, mine)));
    }
}

fn of_this_thread(shared: &Shared) -> Option<Rc<Outgoing>> {
    OUTGOING
        .with_borrow(|all| all.iter().rev().find(|(of, _)| *of == shared.number).map(|(_, outgoing)| outgoing.clone()))
}

/// Acknowledges a message, after everything that this thread is about to send: together with others, because nothing
/// waits for it, or at once from `at_once` on.
pub(crate) fn acknowledge(shared: &Shared, channel: &Channel, tag: u64, at_once: usize) {
    match of_this_thread(shared) {
        Some(outgoing) => {
            let answered = {
                let mut answered = outgoing.answered.borrow_mut();
                answered.push((channel.clone(), tag));
                answered.len()
            };
            let due = outgoing.due.get().unwrap_or_else(|| Instant::now() + SETTLED_WITHIN);
            outgoing.due.set(Some(if answered >= at_once { Instant::now() } else { due }));
            outgoing.wake();
        }
        None => settle(channel, tag),
    }
}

/// Acknowledges without waiting. Tags belong to their channel, and a channel is never repaired: on a closed one this
/// does nothing. The broker redelivers what it did not hear of.
fn settle(channel: &Channel, tag: u64) {
    let ended = channel.basic_ack(tag, BasicAckOptions::default()).now_or_never();
    if let Some(Err(error)) = ended {
        tracing::debug!(%error, "ack failed; the broker redelivers");
    }
}

/// Puts an entry into this thread's batch to `to`; on a thread without a flusher, sends it by itself.
pub(crate) fn put(
    shared: &Arc<Shared>,
    to: &Destination,
    call: Option<u64>,
    expires: Duration,
    write: impl FnOnce(&mut Vec<u8>),
) {
    if let Some(outgoing) = of_this_thread(shared) {
        return outgoing.put(to, call, expires, write);
    }
    let mut batch = Batch::new(to.clone());
    batch.add(call, expires, write);
    send(shared, batch);
}

/// Sends an entry by itself, before this thread's batches; false when the publisher takes nothing.
pub(crate) fn send_alone(
    shared: &Shared,
    to: &Destination,
    expires: Duration,
    write: impl FnOnce(&mut Vec<u8>),
) -> bool {
    let mut batch = Batch::new(to.clone());
    batch.add(None, expires, write);
    send(shared, batch)
}

impl Batch {
    fn add(&mut self, call: Option<u64>, expires: Duration, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.body);
        self.entries += 1;
        self.calls.extend(call);
        self.expires = self.expires.max(expires);
    }
}

impl Outgoing {
    fn put(&self, to: &Destination, call: Option<u64>, expires: Duration, write: impl FnOnce(&mut Vec<u8>)) {
        let full = {
            let mut batches = self.batches.borrow_mut();
            let place = batches.iter().position(|batch| batch.to == *to);
            let place = place.unwrap_or_else(|| {
                batches.push(Batch::new(to.clone()));
                batches.len() - 1
            });
            let Some(batch) = batches.get_mut(place) else { return };
            batch.add(call, expires, write);
            let settings = &self.shared.settings;
            let is_full = batch.entries >= settings.batch_requests || batch.body.len() >= settings.batch_bytes;
            is_full.then(|| batches.swap_remove(place))
        };
        match full {
            Some(batch) => {
                send(&self.shared, batch);
            }
            None => self.wake(),
        }
    }

    /// Sends all batches.
    pub(crate) fn flush(&self) {
        self.woken.set(false);
        loop {
            let batch = self.batches.borrow_mut().pop();
            let Some(batch) = batch else { break };
            send(&self.shared, batch);
        }
        if self.due.get().is_some_and(|due| due <= Instant::now()) {
            self.settle();
        }
    }

    fn settle(&self) {
        self.due.set(None);
        for (channel, tag) in self.answered.take() {
            settle(&channel, tag);
        }
    }

    fn wake(&self) {
        if !self.woken.replace(true) {
            self.wake.notify_one();
        }
    }

    /// Sends all batches whenever every other ready task of this thread has run.
    pub(crate) async fn keep_flushing(&self) {
        loop {
            // Woken by the first entry, this task runs after every other that was ready then.
            match self.due.get() {
                None => self.wake.notified().await,
                Some(due) => tokio::select! {
                    biased;
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(due.into()) => {}
                },
            }
            self.flush();
        }
    }
}

/// False when the publisher takes nothing.
fn send(shared: &Shared, mut batch: Batch) -> bool {
    if batch.to.kind != Kind::Live {
        return hand_over(shared, batch);
    }
    // A message that is not sent keeps its number, so that receivers notice the gap.
    let mut number = shared.updates.number.lock();
    *number += 1;
    wire::number_live(&mut batch.body, *number);
    hand_over(shared, batch)
}

fn hand_over(shared: &Shared, mut batch: Batch) -> bool {
    let opening = Opening {
        node: shared.settings.node,
        number: shared.next_number(),
        life: shared.life,
        sent: shared.peers.clock(),
        at: peers::time(),
    };
    opening.write(&mut batch.body);
    let kind = batch.to.kind;
    let metrics = &shared.metrics;
    let (exchange, expires) = match kind {
        Kind::Requests => (shared.names.operations.as_str(), batch.expires),
        Kind::Live => (shared.names.live.as_str(), batch.expires),
        Kind::Replies | Kind::Event => ("", batch.expires),
    };
    let entries = u64::try_from(batch.entries).unwrap_or(0);
    let parcel = Parcel { kind, exchange, to: &batch.to.queue, expires, body: batch.body };
    if shared.publisher.send(&shared.settings.key, parcel) {
        metrics.sent.with_label_values(&[kind.as_str()]).inc();
        metrics.requests.with_label_values(&["out"]).inc_by(entries);
        return true;
    }
    metrics.dropped.with_label_values(&[kind.as_str()]).inc();
    for call in batch.calls {
        // It never left this node.
        shared.calls.answer(call, Err(CallFailure::Unavailable { retry_after: RETRY_AFTER }));
    }
    false
}

/// Whether a body of this length fits into a message.
pub(crate) fn fits(shared: &Shared, length: usize) -> bool {
    length + wire::OPENING <= shared.settings.message_bytes
}
