//! Counters of the bridge.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Why a message was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It has no version, or one that this node does not know.
    Version,
    /// It has no signature, or not one of the cluster's key.
    Signature,
    /// It is larger than allowed.
    Oversized,
    /// It is malformed.
    Malformed,
    /// It was read before.
    Duplicate,
    /// It answers a call that is not pending.
    Unexpected,
    /// It is too old to know whether it was read before.
    Outdated,
}

impl Refusal {
    const ALL: [Self; 7] = [
        Self::Version,
        Self::Signature,
        Self::Oversized,
        Self::Malformed,
        Self::Duplicate,
        Self::Unexpected,
        Self::Outdated,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Signature => "signature",
            Self::Oversized => "oversized",
            Self::Malformed => "malformed",
            Self::Duplicate => "duplicate",
            Self::Unexpected => "unexpected",
            Self::Outdated => "outdated",
        }
    }
}

/// The counters of one bridge.
pub(crate) struct Metrics {
    pub(crate) connected: IntGauge,
    pub(crate) blocked: IntGauge,
    pub(crate) connections: IntCounter,
    pub(crate) sent: IntCounterVec,
    pub(crate) received: IntCounterVec,
    pub(crate) requests: IntCounterVec,
    pub(crate) refused: IntCounterVec,
    pub(crate) expired: IntCounter,
    pub(crate) beyond_skew: IntCounter,
    pub(crate) unknown: IntCounter,
    pub(crate) dropped: IntCounterVec,
    pub(crate) unroutable: IntCounter,
    pub(crate) waiting: IntGauge,
    pub(crate) serving: IntGauge,
    pub(crate) channels: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| IntGauge::new(format!("callboard_bridge_{name}"), help);
        let counter = |name: &str, help: &str| IntCounter::new(format!("callboard_bridge_{name}_total"), help);
        let by = |name: &str, help: &str, label: &str| {
            IntCounterVec::new(Opts::new(format!("callboard_bridge_{name}_total"), help), &[label])
        };
        Ok(Self {
            connected: gauge("connected", "Whether the broker is reached")?,
            blocked: gauge("blocked", "Whether the broker takes no messages for now")?,
            connections: counter("connections", "Connections made to the broker")?,
            sent: by("sent", "AMQP messages sent", "kind")?,
            received: by("received", "AMQP messages received", "kind")?,
            requests: by("requests", "Requests and replies within messages", "direction")?,
            refused: by("refused", "Messages that were not read", "reason")?,
            expired: counter("expired", "Requests that came too late to begin")?,
            beyond_skew: counter(
                "beyond_skew",
                "Messages whose time differs from this node's by more than clocks may: recorded ones, or a clock is wrong",
            )?,
            unknown: counter("unknown", "Requests that may have been carried out before, and were not again")?,
            dropped: by("dropped", "Messages that could not be sent", "kind")?,
            unroutable: counter("unroutable", "Events that no queue took")?,
            waiting: gauge("calls_waiting", "Calls that wait for replies of other nodes")?,
            serving: gauge("calls_serving", "Calls of other nodes that are carried out")?,
            channels: by("channels", "Channels opened", "of")?,
        })
    }

    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        // An alert rule sees the first refusal only as an increase from zero.
        for refusal in Refusal::ALL {
            self.refused.with_label_values(&[refusal.as_str()]).inc_by(0);
        }
        for gauge in [&self.connected, &self.blocked, &self.waiting, &self.serving] {
            registry.register(Box::new(gauge.clone()))?;
        }
        let counters = [&self.connections, &self.expired, &self.beyond_skew, &self.unknown, &self.unroutable];
        for counter in counters {
            registry.register(Box::new(counter.clone()))?;
        }
        let families = [&self.sent, &self.received, &self.requests, &self.refused, &self.dropped, &self.channels];
        for family in families {
            registry.register(Box::new(family.clone()))?;
        }
        Ok(())
    }

    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.refused.with_label_values(&[refusal.as_str()]).inc();
    }
}
