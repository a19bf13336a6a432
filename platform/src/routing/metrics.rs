//! The router's counters per app, and their export to Prometheus.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::RoutingTable;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// The counters of one app: atomics, without a lookup per request. An app without any instance so far on this node has
/// none, so that apps that were never deployed cost no series.
#[derive(Clone, Debug, Default)]
pub struct AppMetrics(Option<Counters>);

#[derive(Clone, Debug)]
struct Counters {
    responses: [IntCounter; 5],
    duration: Histogram,
}

impl AppMetrics {
    /// Counts an answer by the class of its status.
    pub fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        if let Some(counter) = self.0.as_ref().and_then(|counters| counters.responses.get(class)) {
            counter.inc();
        }
    }

    /// Records how long a request took until the last byte of its answer. WebSockets are not recorded.
    pub fn took(&self, duration: Duration) {
        if let Some(counters) = &self.0 {
            counters.duration.observe(duration.as_secs_f64());
        }
    }

    /// Responses so far with a status of the class (1 to 5).
    pub fn count(&self, class: u16) -> u64 {
        let counters = self.0.as_ref();
        counters.and_then(|it| it.responses.get(usize::from(class.max(1)) - 1)).map_or(0, IntCounter::get)
    }

    /// Whether the app has counters.
    pub(super) const fn exist(&self) -> bool {
        self.0.is_some()
    }
}

pub(super) struct Families {
    requests: IntCounterVec,
    duration: HistogramVec,
    in_flight: IntGaugeVec,
    backends: IntGaugeVec,
    late_hops: IntCounter,
}

impl Families {
    #[expect(clippy::expect_used, reason = "constant names and labels, which a test registers")]
    pub(super) fn new() -> Self {
        let opts = |name: &str, help: &str| Opts::new(format!("callboard_router_{name}"), help);
        let duration = HistogramOpts::from(opts("request_duration_seconds", "Time until the answer's last byte."))
            .buckets(BUCKETS.to_vec());
        let gauge = |name, help| IntGaugeVec::new(opts(name, help), &["app"]).expect("a valid metric");
        Self {
            requests: IntCounterVec::new(opts("requests_total", "Requests by status class."), &["app", "class"])
                .expect("a valid metric"),
            duration: HistogramVec::new(duration, &["app"]).expect("a valid metric"),
            in_flight: gauge("in_flight", "Requests, streams and WebSockets under way."),
            backends: gauge("backends", "Instances that take requests."),
            late_hops: IntCounter::with_opts(opts(
                "late_hops_total",
                "Requests that another node had signed, as it seems, too long before or after they came.",
            ))
            .expect("a valid metric"),
        }
    }

    pub(super) fn late_hop(&self) {
        self.late_hops.inc();
    }

    pub(super) fn of(&self, app: &str) -> AppMetrics {
        AppMetrics(Some(Counters {
            responses: CLASSES.map(|class| self.requests.with_label_values(&[app, class])),
            duration: self.duration.with_label_values(&[app]),
        }))
    }

    pub(super) fn forget(&self, app: &str) {
        for class in CLASSES {
            // An app that never ran has no series.
            let _ = self.requests.remove_label_values(&[app, class]);
        }
        let _ = self.duration.remove_label_values(&[app]);
    }
}

impl Collector for RoutingTable {
    fn desc(&self) -> Vec<&Desc> {
        let families = &self.shared.metrics;
        let mut desc = families.requests.desc();
        desc.extend(families.duration.desc());
        desc.extend(families.in_flight.desc());
        desc.extend(families.backends.desc());
        desc.extend(families.late_hops.desc());
        desc
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let families = &self.shared.metrics;
        families.in_flight.reset();
        families.backends.reset();
        for entry in &self.shared.routes {
            let (app, route) = entry.pair();
            if !route.metrics.exist() {
                continue;
            }
            let gauges = [(&families.in_flight, route.in_flight()), (&families.backends, route.endpoints.len())];
            for (gauge, value) in gauges {
                gauge.with_label_values(&[app.as_ref()]).set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
        let mut collected = families.requests.collect();
        collected.extend(families.duration.collect());
        collected.extend(families.in_flight.collect());
        collected.extend(families.backends.collect());
        collected.extend(families.late_hops.collect());
        collected
    }
}
