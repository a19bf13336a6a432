//! Opens messages, and refuses those of another version, without the cluster's signature, malformed or read before.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use bytes::Bytes;
use callboard_messages::CloudEvent;
use callboard_supervisors::{Clock, events::ACCEPTED_FOR};
use lapin::{message::Delivery, types::AMQPValue};
use parking_lot::Mutex;

use crate::{
    metrics::Refusal,
    publisher::{AGAIN_HEADER, SIGNATURE_HEADER, VERSION_HEADER},
    shared::Shared,
    wire::{self, Kind, Opening, VERSION},
};

/// An opened message.
pub(crate) struct Message {
    pub(crate) opening: Opening,
    pub(crate) entries: Vec<Range<usize>>,
    /// Time from its sending to its receipt.
    pub(crate) waited: Duration,
    pub(crate) body: Bytes,
}

/// Opens a message of this kind that arrived at `to`.
pub(crate) fn open(shared: &Shared, kind: Kind, to: &str, delivery: &mut Delivery) -> Result<Message, Refusal> {
    shared.metrics.received.with_label_values(&[kind.as_str()]).inc();
    check(shared, kind, to, delivery)?;
    let body = Bytes::from(std::mem::take(&mut delivery.data));
    let (opening, entries) = wire::read(&body).ok_or(Refusal::Malformed)?;
    let age = shared.peers.read(&opening).ok_or(Refusal::Duplicate)?;
    if age.is_beyond_skew {
        shared.metrics.beyond_skew.inc();
    }
    Ok(Message { opening, entries, waited: age.waited, body })
}

/// Opens an event. One that is older than its subscriber's inbox may have been applied before, and is refused unless an
/// operator has replayed it since.
pub(crate) fn event(shared: &Shared, delivery: &Delivery) -> Result<CloudEvent, Refusal> {
    let headers = delivery.properties.headers().as_ref();
    let again = match headers.and_then(|headers| headers.inner().get(AGAIN_HEADER)) {
        Some(AMQPValue::LongString(time)) => String::from_utf8_lossy(time.as_bytes()).into_owned(),
        _ => String::new(),
    };
    check(shared, Kind::Event, &again, delivery)?;
    let event: CloudEvent = serde_json::from_slice(&delivery.data).map_err(|_| Refusal::Malformed)?;
    let sent = if again.is_empty() { event.time } else { again.parse().map_err(|_| Refusal::Malformed)? };
    if Clock::system().now() - sent > ACCEPTED_FOR { Err(Refusal::Outdated) } else { Ok(event) }
}

/// Checks the version and the signature.
fn check(shared: &Shared, kind: Kind, to: &str, delivery: &Delivery) -> Result<(), Refusal> {
    if delivery.data.len() > shared.settings.message_bytes.saturating_mul(2) {
        return Err(Refusal::Oversized);
    }
    let headers = delivery.properties.headers().as_ref();
    let header = |name: &str| headers.and_then(|headers| headers.inner().get(name));
    let signature = match header(SIGNATURE_HEADER) {
        Some(AMQPValue::ByteArray(bytes)) => bytes.as_slice(),
        Some(AMQPValue::LongString(text)) => text.as_bytes(),
        _ => return Err(Refusal::Signature),
    };
    let version = match header(VERSION_HEADER) {
        Some(AMQPValue::ShortShortUInt(version)) => i64::from(*version),
        Some(AMQPValue::ShortShortInt(version)) => i64::from(*version),
        Some(AMQPValue::ShortInt(version)) => i64::from(*version),
        Some(AMQPValue::LongInt(version)) => i64::from(*version),
        Some(AMQPValue::LongLongInt(version)) => *version,
        _ => return Err(Refusal::Version),
    };
    if version != i64::from(VERSION) {
        return Err(Refusal::Version);
    }
    if shared.settings.key.has_signed(signature, kind as u8, to, &delivery.data) {
        Ok(())
    } else {
        Err(Refusal::Signature)
    }
}

/// Counts refused messages, and logs them at a bounded rate.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Option<(Instant, u64)>>);

/// Shortest time between two lines in the log.
const QUIET: Duration = Duration::from_secs(1);

impl Refusals {
    pub(crate) fn note(&self, shared: &Shared, queue: &str, refusal: Refusal) {
        shared.metrics.refuse(refusal);
        let mut last = self.0.lock();
        let unsaid = match &mut *last {
            Some((at, unsaid)) if at.elapsed() < QUIET => {
                *unsaid += 1;
                return;
            }
            Some((_, unsaid)) => *unsaid,
            None => 0,
        };
        *last = Some((Instant::now(), 0));
        drop(last);
        tracing::warn!(queue, reason = refusal.as_str(), others_since_the_last_line = unsaid, "a message was refused");
    }
}
