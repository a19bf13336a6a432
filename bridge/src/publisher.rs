//! Sends messages nobody waits for a confirm of: requests, replies and live updates.
//!
//! A message is handed to the connection and not waited for: the thread that sends it goes on. What the socket has not
//! taken yet is counted, and too much of it is backpressure.

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
/// The header of the time at which an operator had an event delivered again that is older than one may be.
pub(crate) const AGAIN_HEADER: &str = "again";

/// The header of the domains whose queues an event is put into without the exchange: their names, with commas between.
pub(crate) const REACHED_HEADER: &str = "reached";

/// Bytes that may wait for the socket before more are refused.
const UNSENT: usize = 16 * 1024 * 1024;

type Sending = Pin<Box<dyn Future<Output = lapin::Result<PublisherConfirm>> + Send>>;

/// Where messages leave the node. Any thread may send.
#[derive(Default)]
pub(crate) struct Publisher {
    channel: ArcSwapOption<Channel>,
    channels: AtomicU64,
    unsent: Mutex<VecDeque<(Sending, usize)>>,
    /// The length of what is unsent: changed under its lock, or what is taken off could be more than was put on.
    bytes: AtomicUsize,
    /// Told when the channel is found broken.
    pub(crate) broken: Notify,
}

/// A message on its way.
pub(crate) struct Parcel<'a> {
    pub(crate) kind: Kind,
    pub(crate) exchange: &'a str,
    /// The queue, or empty for an exchange that reaches all of its queues.
    pub(crate) to: &'a str,
    /// How long it is worth anything.
    pub(crate) expires: Duration,
    pub(crate) body: Vec<u8>,
}

impl Publisher {
    /// Sends over another channel from now on, or not at all.
    pub(crate) fn switch(&self, channel: Option<Channel>) {
        // Counted before it is used: who sends over it knows that it is another one.
        self.channels.fetch_add(u64::from(channel.is_some()), Ordering::AcqRel);
        self.channel.store(channel.map(std::sync::Arc::new));
        let mut unsent = self.unsent.lock();
        unsent.clear();
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// How many channels it has had: what was on its way over one may be lost when another takes its place.
    pub(crate) fn channels(&self) -> u64 {
        self.channels.load(Ordering::Acquire)
    }

    /// Whether its channel works, as far as is known.
    pub(crate) fn is_up(&self) -> bool {
        self.channel.load().as_ref().is_some_and(|channel| channel.status().connected())
    }

    /// Whether so much waits for the socket that no more should be sent.
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

    /// Hands a message over; false when there is nobody to take it.
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
