//! Detects shards whose thread is blocked: an endless loop, a lock that is never released.
//!
//! A thread of its own asks every shard, and a task on the shard's thread answers in time unless the thread is blocked.
//! A blocked thread can't be interrupted: the shard is shown as `blocked`, its domain is not ready, and callers on
//! other threads are sent to other shards until it answers again.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{domain::core::DomainCore, shard::port::ShardState};

/// The monitor; it ends when this is dropped.
pub(crate) struct Heartbeat {
    _stop: mpsc::Sender<()>,
}

impl Heartbeat {
    pub(crate) fn start(domains: &[Arc<DomainCore>]) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let shortest = domains.iter().map(|core| core.bulkhead.heartbeat).min().unwrap_or(Duration::from_secs(2));
        let interval = shortest / 4;
        let domains: Vec<Weak<DomainCore>> = domains.iter().map(Arc::downgrade).collect();
        thread::Builder::new().name("heartbeat".to_owned()).spawn(move || {
            let mut monitor = Monitor { domains, unanswered: HashMap::new() };
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                monitor.look(Instant::now());
            }
        })?;
        Ok(Self { _stop: stop })
    }
}

struct Monitor {
    domains: Vec<Weak<DomainCore>>,
    /// Since when a shard has not answered, by the numbers of its domain and of the shard.
    unanswered: HashMap<(usize, usize), Instant>,
}

impl Monitor {
    /// `now` is system time, whatever the node's clock says: a test's clock does not move a blocked thread.
    fn look(&mut self, now: Instant) {
        for core in self.domains.iter().filter_map(Weak::upgrade) {
            for port in core.ports().iter() {
                let id = (core.number, port.index);
                if port.state() == ShardState::Stopped || port.mailbox().is_none() || !port.pulse.ask() {
                    self.unanswered.remove(&id);
                    if port.pulse.set_blocked(false) {
                        tracing::warn!(
                            domain = core.name,
                            shard = port.index,
                            "the shard's thread is no longer blocked"
                        );
                    }
                    continue;
                }
                let since = *self.unanswered.entry(id).or_insert(now);
                let blocked_for = now.saturating_duration_since(since);
                if blocked_for >= core.bulkhead.heartbeat && !port.pulse.set_blocked(true) {
                    tracing::error!(
                        domain = core.name,
                        shard = port.index,
                        ?blocked_for,
                        "the shard's thread is blocked"
                    );
                }
            }
        }
    }
}
