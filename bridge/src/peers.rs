//! The senders of messages: which of their messages were read, and the offset of their clocks.
//!
//! A message may come twice, by the network, by redelivery or by a replay; its number shows that. Monotonic clocks of
//! two machines can't be compared, but the smallest difference seen between sending and receiving is that of a message
//! which did not wait; what exceeds it, a message has waited.
//!
//! A node that never heard a sender, or has restarted since, has nothing to compare with. So a message also has its
//! sender's time of day: a difference from ours beyond [`SKEW`] counts as waited too. A recorded request can be
//! replayed to such a node for no longer than its deadline and the skew.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::wire::Opening;

/// How far the times of day of two nodes may be apart.
const SKEW: Duration = Duration::from_secs(30);
/// Numbers below the highest one of which it is known whether they were read.
const WINDOW: u64 = 1 << 18;
/// How long the smallest difference is used before another is measured: clocks drift.
const EPOCH: Duration = Duration::from_secs(300);
/// Senders that are remembered; beyond it those that were silent for longest are forgotten.
const SENDERS: usize = 1024;

/// The senders of the messages that came to this node.
pub(crate) struct Peers {
    origin: Instant,
    senders: Mutex<HashMap<(Uuid, u64), Sender>>,
}

struct Sender {
    greatest: u64,
    /// Bit `n % WINDOW` is whether the message `n` was read.
    read: Box<[u64]>,
    heard: Instant,
    least: i64,
    last_least: i64,
    epoch: Instant,
    /// When the log last warned of its time of day.
    warned: Option<Instant>,
}

/// The age of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age {
    /// Time from its sending to its receipt, as far as is known.
    pub(crate) waited: Duration,
    /// Whether its time of day differs from ours by more than [`SKEW`].
    pub(crate) is_beyond_skew: bool,
}

/// The time of day that goes into messages, in milliseconds since 1970 in UTC.
pub(crate) fn time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Peers {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), senders: Mutex::default() }
    }

    /// The clock that goes into messages.
    pub(crate) fn clock(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Marks a message as read. Returns its age, or `None` when it was read before.
    pub(crate) fn read(&self, opening: &Opening) -> Option<Age> {
        let now = Instant::now();
        let received = i64::try_from(now.duration_since(self.origin).as_millis()).unwrap_or(i64::MAX);
        let sent = i64::try_from(opening.sent).unwrap_or(i64::MAX);
        let difference = received.saturating_sub(sent);
        let mut senders = self.senders.lock();
        if senders.len() >= SENDERS && !senders.contains_key(&(opening.node, opening.life)) {
            let longest = senders.iter().min_by_key(|(_, sender)| sender.heard).map(|(id, _)| *id);
            longest.and_then(|id| senders.remove(&id));
        }
        let sender = senders.entry((opening.node, opening.life)).or_insert_with(|| Sender {
            greatest: opening.number,
            read: Box::default(),
            heard: now,
            least: difference,
            last_least: difference,
            epoch: now,
            warned: None,
        });
        sender.heard = now;
        if !sender.is_first(opening.number) {
            return None;
        }
        if now.duration_since(sender.epoch) >= EPOCH {
            (sender.last_least, sender.least, sender.epoch) = (sender.least, difference, now);
        }
        sender.least = sender.least.min(difference);
        let waited = difference.saturating_sub(sender.least.min(sender.last_least));
        let waited = Duration::from_millis(u64::try_from(waited).unwrap_or(0));
        let apart = Duration::from_millis(time().abs_diff(opening.at));
        sender.warn_of(apart.saturating_sub(waited), opening.node, now);
        let beyond = apart.saturating_sub(SKEW);
        Some(Age { waited: waited.max(beyond), is_beyond_skew: !beyond.is_zero() })
    }
}

impl Sender {
    fn is_first(&mut self, number: u64) -> bool {
        if self.read.is_empty() {
            self.read = vec![0; usize::try_from(WINDOW / 64).unwrap_or(0)].into_boxed_slice();
        }
        if number > self.greatest {
            let from = if number - self.greatest >= WINDOW { number - WINDOW } else { self.greatest };
            for passed in from + 1..=number {
                self.change(passed, |word, bit| *word &= !bit);
            }
            self.greatest = number;
        } else if self.greatest - number >= WINDOW {
            return false;
        }
        let mut first = false;
        self.change(number, |word, bit| {
            first = *word & bit == 0;
            *word |= bit;
        });
        first
    }

    /// Warns, at a bounded rate, that a time of day is far from ours.
    fn warn_of(&mut self, apart: Duration, node: Uuid, now: Instant) {
        if apart < SKEW / 2 || self.warned.is_some_and(|warned| now.duration_since(warned) < EPOCH) {
            return;
        }
        self.warned = Some(now);
        let (seconds, at_most) = (apart.as_secs(), SKEW.as_secs());
        tracing::warn!(%node, seconds, at_most, "a message came late, or the clocks of two nodes are far apart");
    }

    fn change(&mut self, number: u64, change: impl FnOnce(&mut u64, u64)) {
        let place = number % WINDOW;
        if let Some(word) = usize::try_from(place / 64).ok().and_then(|place| self.read.get_mut(place)) {
            change(word, 1 << (place % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(number: u64, sent: u64) -> Opening {
        Opening { node: Uuid::nil(), number, life: 1, sent, at: time() }
    }

    #[test]
    fn a_message_is_read_once_in_whatever_order_it_comes() {
        let peers = Peers::new();
        let read = |number| peers.read(&opening(number, 0)).is_some();
        assert!(read(10) && read(8) && read(12) && read(9));
        assert!(!read(10) && !read(8) && !read(12) && !read(9));
        assert!(read(11));
        assert!(read(12 + 3 * WINDOW), "a gap of more than the window");
        assert!(!read(13), "too old to tell");
        assert!(read(12 + 3 * WINDOW - 1));
    }

    #[test]
    fn a_message_that_waited_is_known_by_its_senders_clock() {
        let peers = Peers::new();
        let far = 1_000_000;
        assert_eq!(peers.read(&opening(1, far)).unwrap().waited, Duration::ZERO, "nothing to compare with");
        let waited = peers.read(&opening(2, far - 30_000)).unwrap().waited;
        assert!(waited >= Duration::from_secs(30), "{waited:?}");
        assert!(peers.read(&opening(3, far)).unwrap().waited < Duration::from_secs(1));
    }

    #[test]
    fn a_message_of_an_unknown_sender_has_waited_what_its_time_of_day_says_beyond_the_skew() {
        let peers = Peers::new();
        let skew = i64::try_from(SKEW.as_millis()).unwrap();
        let mut number = 0;
        let mut read = |milliseconds: i64| {
            number += 1;
            let at = time().saturating_add_signed(milliseconds);
            peers.read(&Opening { at, node: Uuid::now_v7(), ..opening(number, 0) }).unwrap()
        };
        for within in [0, 1_000 - skew, skew - 1_000] {
            assert_eq!(read(within), Age { waited: Duration::ZERO, is_beyond_skew: false }, "{within}");
        }
        for beyond in [-skew - 60_000, skew + 61_000] {
            let age = read(beyond);
            assert!(age.is_beyond_skew && age.waited >= Duration::from_secs(60), "{beyond}: {age:?}");
        }
    }
}
