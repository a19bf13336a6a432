//! The node's metrics: collected from the shards' own counters at each scrape, so that a call costs only additions.

use std::{collections::HashMap, sync::Arc};

use prometheus::{
    core::{Collector, Desc},
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::{
    blocking::BlockingPool,
    domain::core::DomainCore,
    health::condition::Part,
    shard::port::{Port, Rejection},
    telemetry::stats::{BOUNDS, Ending, OperationStats},
};

/// A metric's name, help and labels.
struct Family {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
}

const OF_SHARD: &[&str] = &["domain", "shard"];
const OF_POOL: &[&str] = &["pool"];

const CALLS: Family = Family {
    name: "callboard_operation_calls_total",
    help: "Calls that ended, by how they ended",
    labels: &["domain", "operation", "outcome"],
};
const DURATIONS: Family = Family {
    name: "callboard_operation_duration_seconds",
    help: "How long handlers took",
    labels: &["domain", "operation"],
};
const QUEUE: Family = Family { name: "callboard_shard_queue_depth", help: "Calls that wait", labels: OF_SHARD };
const QUEUE_LIMIT: Family =
    Family { name: "callboard_shard_queue_limit", help: "Calls that may wait", labels: OF_SHARD };
const IN_FLIGHT: Family = Family { name: "callboard_shard_in_flight", help: "Calls that run", labels: OF_SHARD };
const LIMIT: Family = Family { name: "callboard_shard_in_flight_limit", help: "Calls that may run", labels: OF_SHARD };
const RESTARTS: Family =
    Family { name: "callboard_shard_restarts_total", help: "How often the state was built anew", labels: OF_SHARD };
const TASK_PANICS: Family = Family {
    name: "callboard_shard_task_panics_total",
    help: "Panics in tasks that the state has spawned",
    labels: OF_SHARD,
};
const BREAKER: Family = Family {
    name: "callboard_shard_breaker_state",
    help: "0 closed, 1 half open, 2 open, 3 forced closed, 4 forced open",
    labels: OF_SHARD,
};
const BLOCKED: Family =
    Family { name: "callboard_shard_blocked", help: "1 while the shard's thread is blocked", labels: OF_SHARD };
const REJECTIONS: Family = Family {
    name: "callboard_shard_rejections_total",
    help: "Calls that were not taken, by reason",
    labels: &["domain", "shard", "reason"],
};
const UP: Family = Family {
    name: "callboard_domain_up",
    help: "1 until the domain is given up or stops on this node, whatever it depends on",
    labels: &["domain"],
};
const READY: Family = Family {
    name: "callboard_domain_ready",
    help: "1 while a call of this node to the domain would be taken, wherever it is hosted",
    labels: &["domain"],
};
const AWAY: Family = Family {
    name: "callboard_domain_away",
    help: "1 while this part keeps calls of this node to the domain from being taken",
    labels: &["domain", "part"],
};

const SHARD_FAMILIES: [&Family; 14] = [
    &CALLS,
    &DURATIONS,
    &QUEUE,
    &QUEUE_LIMIT,
    &IN_FLIGHT,
    &LIMIT,
    &RESTARTS,
    &TASK_PANICS,
    &BREAKER,
    &BLOCKED,
    &REJECTIONS,
    &UP,
    &READY,
    &AWAY,
];

/// Collects the metrics of all domains of a node.
pub(crate) struct NodeCollector {
    domains: Vec<Arc<DomainCore>>,
    descriptions: Vec<Desc>,
}

impl NodeCollector {
    pub(crate) fn new(domains: Vec<Arc<DomainCore>>) -> Result<Self, prometheus::Error> {
        let descriptions = SHARD_FAMILIES.iter().map(|family| family.describe()).collect::<Result<_, _>>()?;
        Ok(Self { domains, descriptions })
    }

    fn of_shards(&self, family: &Family, kind: MetricType, value: impl Fn(&Port) -> f64) -> MetricFamily {
        self.of_shards_in(family, kind, |_, port| value(port))
    }

    fn of_shards_in(
        &self,
        family: &Family,
        kind: MetricType,
        value: impl Fn(&DomainCore, &Port) -> f64,
    ) -> MetricFamily {
        let metrics = self.domains.iter().flat_map(|core| {
            let ports = core.ports();
            let metric =
                |port: &Arc<Port>| family.metric(kind, &[core.name, &port.index.to_string()], value(core, port));
            ports.iter().map(metric).collect::<Vec<_>>()
        });
        family.with(kind, metrics.collect())
    }

    fn calls(&self) -> MetricFamily {
        let mut metrics = Vec::new();
        for core in &self.domains {
            for (number, operation) in core.operations.iter().enumerate() {
                for ending in Ending::all() {
                    let ports = core.ports();
                    let count: u64 =
                        ports.iter().filter_map(|port| port.operation(number)).map(|stats| stats.ended(ending)).sum();
                    if count > 0 {
                        let labels = [core.name, operation.signature.name, ending.as_str()];
                        metrics.push(CALLS.metric(MetricType::COUNTER, &labels, as_f64(count)));
                    }
                }
            }
        }
        CALLS.with(MetricType::COUNTER, metrics)
    }

    fn durations(&self) -> MetricFamily {
        let mut metrics = Vec::new();
        for core in &self.domains {
            for (number, operation) in core.operations.iter().enumerate() {
                let ports = core.ports();
                let stats: Vec<&OperationStats> = ports.iter().filter_map(|port| port.operation(number)).collect();
                let histogram = histogram(&stats);
                if histogram.get_sample_count() > 0 {
                    let mut metric = Metric::from_label(DURATIONS.pairs(&[core.name, operation.signature.name]));
                    metric.set_histogram(histogram);
                    metrics.push(metric);
                }
            }
        }
        DURATIONS.with(MetricType::HISTOGRAM, metrics)
    }

    fn rejections(&self) -> MetricFamily {
        let mut metrics = Vec::new();
        for core in &self.domains {
            for port in core.ports().iter() {
                for why in Rejection::ALL {
                    let labels = [core.name, &port.index.to_string(), why.as_str()];
                    metrics.push(REJECTIONS.metric(MetricType::COUNTER, &labels, as_f64(port.rejections(why))));
                }
            }
        }
        REJECTIONS.with(MetricType::COUNTER, metrics)
    }

    fn up(&self) -> MetricFamily {
        let up = |core: &Arc<DomainCore>| f64::from(u8::from(core.is_open()));
        let metrics = self.domains.iter().map(|core| UP.metric(MetricType::GAUGE, &[core.name], up(core)));
        UP.with(MetricType::GAUGE, metrics.collect())
    }

    /// Whether each domain is ready, and the part that is away if not.
    fn readiness(&self) -> [MetricFamily; 2] {
        let gauge = MetricType::GAUGE;
        let flag = |is_set: bool| f64::from(u8::from(is_set));
        let (mut ready, mut away) = (Vec::new(), Vec::new());
        for core in &self.domains {
            let missing = core.condition().map(|condition| condition.away.part);
            ready.push(READY.metric(gauge, &[core.name], flag(missing.is_none())));
            let of = |part: Part| AWAY.metric(gauge, &[core.name, part.as_str()], flag(missing == Some(part)));
            away.extend(Part::ALL.map(of));
        }
        [READY.with(gauge, ready), AWAY.with(gauge, away)]
    }
}

impl Collector for NodeCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (gauge, counter) = (MetricType::GAUGE, MetricType::COUNTER);
        let families = [
            self.calls(),
            self.durations(),
            self.of_shards(&QUEUE, gauge, |port| from_usize(port.queued())),
            self.of_shards(&QUEUE_LIMIT, gauge, |port| from_usize(port.queue_limit)),
            self.of_shards(&IN_FLIGHT, gauge, |port| from_usize(port.in_flight())),
            self.of_shards(&LIMIT, gauge, |port| from_usize(port.in_flight_limit)),
            self.of_shards(&RESTARTS, counter, |port| as_f64(port.restarts())),
            self.of_shards(&TASK_PANICS, counter, |port| as_f64(port.task_panics())),
            self.of_shards_in(&BREAKER, gauge, |core, port| f64::from(core.breaker_of(port) as u8)),
            self.of_shards(&BLOCKED, gauge, |port| f64::from(u8::from(port.pulse.is_blocked()))),
            self.rejections(),
            self.up(),
        ];
        families.into_iter().chain(self.readiness()).filter(|family| !family.get_metric().is_empty()).collect()
    }
}

fn histogram(stats: &[&OperationStats]) -> Histogram {
    let mut buckets = vec![0; BOUNDS.len() + 1];
    for stats in stats {
        buckets.iter_mut().zip(stats.durations()).for_each(|(sum, count)| *sum += count);
    }
    let mut cumulated = 0;
    let bounded = buckets.iter().zip(BOUNDS).map(|(count, bound)| {
        cumulated += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(cumulated);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(bounded.collect());
    histogram.set_sample_count(buckets.iter().sum());
    histogram.set_sample_sum(stats.iter().map(|stats| stats.seconds()).sum());
    histogram
}

const POOL_RUNNING: Family =
    Family { name: "callboard_blocking_running", help: "Blocking jobs that run", labels: OF_POOL };
const POOL_QUEUED: Family =
    Family { name: "callboard_blocking_queued", help: "Blocking jobs that wait", labels: OF_POOL };
const POOL_LIMIT: Family =
    Family { name: "callboard_blocking_queue_limit", help: "Blocking jobs that may wait", labels: OF_POOL };
const POOL_REJECTED: Family =
    Family { name: "callboard_blocking_rejected_total", help: "Blocking jobs refused", labels: OF_POOL };
const POOL_PANICS: Family =
    Family { name: "callboard_blocking_panics_total", help: "Blocking jobs that panicked", labels: OF_POOL };

/// Collects the metrics of blocking pools.
pub(crate) struct PoolCollector {
    pools: Vec<BlockingPool>,
    descriptions: Vec<Desc>,
}

impl PoolCollector {
    pub(crate) fn new(pools: Vec<BlockingPool>) -> Result<Self, prometheus::Error> {
        let families = [&POOL_RUNNING, &POOL_QUEUED, &POOL_LIMIT, &POOL_REJECTED, &POOL_PANICS];
        let descriptions = families.iter().map(|family| family.describe()).collect::<Result<_, _>>()?;
        Ok(Self { pools, descriptions })
    }
}

impl Collector for PoolCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let views: Vec<_> = self.pools.iter().map(BlockingPool::view).collect();
        let (gauge, counter) = (MetricType::GAUGE, MetricType::COUNTER);
        let family = |family: &Family, kind, value: fn(&crate::blocking::BlockingView) -> f64| {
            family.with(kind, views.iter().map(|view| family.metric(kind, &[view.name], value(view))).collect())
        };
        if views.is_empty() {
            return Vec::new();
        }
        vec![
            family(&POOL_RUNNING, gauge, |view| from_usize(view.running)),
            family(&POOL_QUEUED, gauge, |view| from_usize(view.queued)),
            family(&POOL_LIMIT, gauge, |view| from_usize(view.limit)),
            family(&POOL_REJECTED, counter, |view| as_f64(view.rejected)),
            family(&POOL_PANICS, counter, |view| as_f64(view.panics)),
        ]
    }
}

impl Family {
    fn describe(&self) -> Result<Desc, prometheus::Error> {
        let labels = self.labels.iter().map(|label| (*label).to_owned()).collect();
        Desc::new(self.name.to_owned(), self.help.to_owned(), labels, HashMap::new())
    }

    fn pairs(&self, values: &[&str]) -> Vec<LabelPair> {
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        self.labels.iter().zip(values).map(pair).collect()
    }

    fn metric(&self, kind: MetricType, labels: &[&str], value: f64) -> Metric {
        let mut metric = Metric::from_label(self.pairs(labels));
        if kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    }

    fn with(&self, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        family
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
const fn as_f64(value: u64) -> f64 {
    value as f64
}

fn from_usize(value: usize) -> f64 {
    as_f64(u64::try_from(value).unwrap_or(u64::MAX))
}
