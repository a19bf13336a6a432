//! Sends messages without confirms: requests, replies and live updates.
//!
//! A message is handed to the connection without waiting: the sending thread goes on. Bytes that the socket has not
//! taken yet are counted, and too many of them are backpressure.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use lapin::{
    BasicProperties, Channel, PublisherConfirm,
    options::BasicPublishOptions,
    types::{AMQPValue, ByteArray, FieldTable},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    key::ClusterKey,
    wire::{Kind, VERSION},
};

/// The header of the version of a message's layout.
pub(crate) const VERSION_HEADER: &str = "v";
/// The header of the signature.
pub(crate) const SIGNATURE_HEADER: &str = "signature";
/// The header of the time at which an operator replayed an event that is older than accepted.
pub(crate) const AGAIN_HEADER: &str = "again";

/// The header of the domains that an event reaches without the exchange: their names, with commas between.
pub(crate) const REACHED_HEADER: &str = "reached";

/// Bytes that may wait for the socket before more are refused.
const UNSENT: usize = 16 * 1024 * 1024;

type Sending = Pin<Box<dyn Future<Output = lapin::Result<PublisherConfirm>> + Send>>;

/// The exit of messages. Any thread may send.
#[derive(Default)]
pub(crate) struct Publisher {
    channel: ArcSwapOption<Channel>,
    channels: AtomicU64,
    unsent: Mutex<VecDeque<(Sending, usize)>>,
    /// Bytes of unsent messages, changed under their lock: more could be subtracted than was added otherwise.
    bytes: AtomicUsize,
    /// Notified when the channel is found broken.
    pub(crate) broken: Notify,
}

/// A message to send.
pub(crate) struct Parcel<'a> {
    pub(crate) kind: Kind,
    pub(crate) exchange: &'a str,
    /// The queue, or empty for an exchange that reaches all of its queues.
    pub(crate) to: &'a str,
    /// Expiry, counted from now.
    pub(crate) expires: Duration,
    pub(crate) body: Vec<u8>,
}

impl Publisher {
    /// Sets the channel to send over.
    pub(crate) fn switch(&self, channel: Option<Channel>) {
        // Incremented before the channel is used, so that senders see the new number.
        self.channels.fetch_add(u64::from(channel.is_some()), Ordering::AcqRel);
        self.channel.store(channel.map(std::sync::Arc::new));
        let mut unsent = self.unsent.lock();
        unsent.clear();
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// Number of channels so far: messages in flight over one may be lost when another replaces it.
    pub(crate) fn channels(&self) -> u64 {
        self.channels.load(Ordering::Acquire)
    }

    /// Whether its channel works, as far as is known.
    pub(crate) fn is_up(&self) -> bool {
        self.channel.load().as_ref().is_some_and(|channel| channel.status().connected())
    }

    /// Whether too much waits for the socket to send more.
    pub(crate) fn is_clogged(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > UNSENT && {
            self.forget_sent(&mut self.unsent.lock());
            self.bytes.load(Ordering::Relaxed) > UNSENT
        }
    }

    /// Whether everything has been handed to the socket.
    pub(crate) fn is_flushed(&self) -> bool {
        let mut unsent = self.unsent.lock();
        self.forget_sent(&mut unsent);
        unsent.is_empty()
    }

    /// Hands a message over; false when there is no channel.
    pub(crate) fn send(&self, key: &ClusterKey, parcel: Parcel<'_>) -> bool {
        let Some(channel) = self.channel.load_full() else { return false };
        let signature = key.sign(parcel.kind as u8, parcel.to, &parcel.body);
        let mut properties = BasicProperties::default().with_headers(headers(&signature)).with_delivery_mode(1);
        if !parcel.expires.is_zero() {
            properties = properties.with_expiration(parcel.expires.as_millis().to_string().into());
        }
        let length = parcel.body.len();
        let (exchange, to) = (parcel.exchange.into(), parcel.to.into());
        let mut sending: Sending = Box::pin(async move {
            channel.basic_publish(exchange, to, BasicPublishOptions::default(), &parcel.body, properties).await
        });
        let mut unsent = self.unsent.lock();
        self.forget_sent(&mut unsent);
        // The first poll puts the message into the connection's queue, in the order of this lock.
        match sending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(_)) => true,
            Poll::Ready(Err(_)) => {
                self.broken.notify_one();
                false
            }
            Poll::Pending => {
                self.bytes.fetch_add(length, Ordering::Relaxed);
                unsent.push_back((sending, length));
                true
            }
        }
    }

    fn forget_sent(&self, unsent: &mut VecDeque<(Sending, usize)>) {
        let mut context = Context::from_waker(Waker::noop());
        while let Some((sending, length)) = unsent.front_mut() {
            match sending.as_mut().poll(&mut context) {
                Poll::Pending => return,
                Poll::Ready(sent) => {
                    if sent.is_err() {
                        self.broken.notify_one();
                    }
                    self.bytes.fetch_sub(*length, Ordering::Relaxed);
                    unsent.pop_front();
                }
            }
        }
    }
}

/// The AMQP headers of a message: its version and its signature.
pub(crate) fn headers(signature: &[u8; 32]) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert(VERSION_HEADER.into(), AMQPValue::ShortShortUInt(VERSION));
    headers.insert(SIGNATURE_HEADER.into(), AMQPValue::ByteArray(ByteArray::from(signature.to_vec())));
    headers
}
