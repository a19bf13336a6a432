//! Metrics of Redis as used by this node.

use callboard_supervisors::breaker::{Breaker, State};
use prometheus::{
    IntCounterVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// The counters of one [`Cache`](crate::Cache).
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) commands: IntCounterVec,
    pub(crate) limits: IntCounterVec,
    pub(crate) reads: IntCounterVec,
    breaker: prometheus::IntGauge,
    state: Breaker,
}

impl Metrics {
    pub(crate) fn new(breaker: Breaker) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        Ok(Self {
            commands: counter("callboard_redis_commands_total", "Commands to Redis, by how they ended", &["outcome"])?,
            limits: counter(
                "callboard_rate_limit_decisions_total",
                "Requests that were counted, by class and by who counted: redis, stock (taken from Redis before), or local",
                &["class", "by"],
            )?,
            reads: counter(
                "callboard_cache_reads_total",
                "Reads through a cache, by where the value was: process, redis, joined (another read of it was under way), or store",
                &["cache", "from"],
            )?,
            breaker: prometheus::IntGauge::new(
                "callboard_redis_breaker_state",
                "0 closed, 1 half open, 2 open, 3 forced closed, 4 forced open",
            )?,
            state: breaker,
        })
    }
}

impl Collector for Metrics {
    fn desc(&self) -> Vec<&Desc> {
        let mut descriptions = self.commands.desc();
        descriptions.extend(self.limits.desc());
        descriptions.extend(self.reads.desc());
        descriptions.extend(self.breaker.desc());
        descriptions
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.commands.collect();
        families.extend(self.limits.collect());
        families.extend(self.reads.collect());
        self.breaker.set(match self.state.state() {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
            State::ForcedClosed => 3,
            State::ForcedOpen => 4,
        });
        families.extend(self.breaker.collect());
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}
