//! Counters of work without a caller: outboxes, deliveries, sagas, schedules.

use std::sync::Arc;

use callboard_messages::SagaStatus;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// How a schedule's run ended.
const RAN: &str = "done";
const FAILED: &str = "failed";

/// Cheap to clone; counts nothing without a node.
#[derive(Clone, Default)]
pub(crate) struct BackgroundStats(Option<Arc<Families>>);

struct Families {
    pending: IntGaugeVec,
    lag: GaugeVec,
    unroutable: IntGaugeVec,
    deliveries: IntCounterVec,
    dead_letters: IntCounterVec,
    sagas: IntGaugeVec,
    schedules: IntCounterVec,
}

impl BackgroundStats {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let of_domain = &["domain"];
        let families = Families {
            pending: IntGaugeVec::new(
                Opts::new("callboard_outbox_pending", "Events that wait to be published"),
                of_domain,
            )?,
            lag: GaugeVec::new(
                Opts::new("callboard_outbox_lag_seconds", "For how long the oldest of them waits"),
                of_domain,
            )?,
            unroutable: IntGaugeVec::new(
                Opts::new("callboard_outbox_unroutable", "Events that nobody takes although a domain reacts to them"),
                of_domain,
            )?,
            deliveries: IntCounterVec::new(
                Opts::new("callboard_event_deliveries_total", "Events brought to a domain, by what became of them"),
                &["domain", "event", "outcome"],
            )?,
            dead_letters: IntCounterVec::new(
                Opts::new("callboard_dead_letters_total", "Events that a domain could not apply and that were buried"),
                of_domain,
            )?,
            sagas: IntGaugeVec::new(
                Opts::new("callboard_sagas", "Sagas by status; a stuck one waits for an operator"),
                &["domain", "status"],
            )?,
            schedules: IntCounterVec::new(
                Opts::new("callboard_schedule_runs_total", "Runs of schedules on this node, by how they ended"),
                &["domain", "schedule", "outcome"],
            )?,
        };
        registry.register(Box::new(families.pending.clone()))?;
        registry.register(Box::new(families.lag.clone()))?;
        registry.register(Box::new(families.unroutable.clone()))?;
        registry.register(Box::new(families.deliveries.clone()))?;
        registry.register(Box::new(families.dead_letters.clone()))?;
        registry.register(Box::new(families.sagas.clone()))?;
        registry.register(Box::new(families.schedules.clone()))?;
        Ok(Self(Some(Arc::new(families))))
    }

    pub(crate) fn show_outbox(&self, domain: &str, pending: i64, lag_seconds: f64, unroutable: i64) {
        let Some(families) = &self.0 else { return };
        families.pending.with_label_values(&[domain]).set(pending);
        families.lag.with_label_values(&[domain]).set(lag_seconds);
        families.unroutable.with_label_values(&[domain]).set(unroutable);
    }

    pub(crate) fn delivered(&self, domain: &str, event: &str, outcome: &str) {
        if let Some(families) = &self.0 {
            families.deliveries.with_label_values(&[domain, event, outcome]).inc();
        }
    }

    pub(crate) fn buried(&self, domain: &str) {
        if let Some(families) = &self.0 {
            families.dead_letters.with_label_values(&[domain]).inc();
        }
    }

    pub(crate) fn show_sagas(&self, domain: &str, status: SagaStatus, count: i64) {
        if let Some(families) = &self.0 {
            families.sagas.with_label_values(&[domain, status.as_str()]).set(count);
        }
    }

    /// Initializes the counters of a schedule: an increase is seen only from a value that was scraped before.
    pub(crate) fn show_schedule(&self, domain: &str, schedule: &str) {
        let Some(families) = &self.0 else { return };
        for outcome in [RAN, FAILED] {
            families.schedules.with_label_values(&[domain, schedule, outcome]);
        }
    }

    pub(crate) fn schedule_ran(&self, domain: &str, schedule: &str, well: bool) {
        if let Some(families) = &self.0 {
            let outcome = if well { RAN } else { FAILED };
            families.schedules.with_label_values(&[domain, schedule, outcome]).inc();
        }
    }
}
