//! Rate, errors and duration of every operation, as the gateway sees them.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The gateway's metrics; in a registry of its own, because a process may hold more than one gateway.
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    requests: IntCounterVec,
    duration: HistogramVec,
    unrouted: IntCounter,
    /// Malformed requests, refused before any domain was asked.
    pub(crate) refused: IntCounter,
    pub(crate) live: IntGauge,
}

/// The counters of one operation.
pub(crate) struct RouteMetrics {
    by_class: [IntCounter; 5],
    duration: Histogram,
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const SECONDS: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("callboard_http_requests_total", "Requests by operation and class of status"),
            &["operation", "status"],
        )?;
        let duration = HistogramVec::new(
            HistogramOpts::new("callboard_http_request_duration_seconds", "From the head of the request to the answer")
                .buckets(SECONDS.to_vec()),
            &["operation"],
        )?;
        let unrouted = IntCounter::new("callboard_http_unrouted_total", "Requests for what is not there")?;
        let refused =
            IntCounter::new("callboard_http_refused_total", "Connections closed because what came was no request")?;
        let live = IntGauge::new("callboard_http_live_streams", "Open live streams")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(unrouted.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(live.clone()))?;
        Ok(Self { registry, requests, duration, unrouted, refused, live })
    }

    pub(crate) fn of_route(&self, operation: &str) -> RouteMetrics {
        RouteMetrics {
            by_class: CLASSES.map(|class| self.requests.with_label_values(&[operation, class])),
            duration: self.duration.with_label_values(&[operation]),
        }
    }

    pub(crate) fn unrouted(&self) {
        self.unrouted.inc();
    }
}

impl RouteMetrics {
    pub(crate) fn observe(&self, status: u16, took: std::time::Duration) {
        if let Some(counter) = self.by_class.get(usize::from(status / 100).wrapping_sub(1)) {
            counter.inc();
        }
        self.duration.observe(took.as_secs_f64());
    }
}
