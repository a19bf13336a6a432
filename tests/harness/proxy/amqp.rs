//! As much of AMQP 0-9-1 as it takes to tell messages apart and to keep publisher confirms true while messages are repeated
//! and reordered: the broker counts what it gets on a channel, and the client what it sent, so the proxy translates.

use std::collections::{BTreeMap, HashMap};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::time::Instant;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const CHANNEL_OPEN: (u16, u16) = (20, 10);
const CONFIRM_SELECT: (u16, u16) = (85, 10);
const BASIC: u16 = 60;
const BASIC_PUBLISH: (u16, u16) = (BASIC, 40);
const BASIC_ACK: (u16, u16) = (BASIC, 80);
const BASIC_NACK: (u16, u16) = (BASIC, 120);
/// Type, channel and size before the payload, and one byte after it.
const OVERHEAD: usize = 8;
const GREETING: usize = 8;

/// Bytes that belong together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unit {
    pub bytes: Bytes,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Passes as it is.
    Raw,
    /// A method that is about the channel itself.
    Control { channel: u16, confirms: bool, opens: bool },
    /// A published message: method, header and body.
    /// `number` is the client's count of it; a repetition has none.
    Message { channel: u16, number: Option<u64> },
}

impl Unit {
    pub fn raw(bytes: Bytes) -> Self {
        Self { bytes, kind: Kind::Raw }
    }

    pub fn is_message(&self) -> bool {
        matches!(self.kind, Kind::Message { .. })
    }

    /// The same message once more, which the client never sent.
    pub fn again(&self) -> Self {
        let kind = match self.kind {
            Kind::Message { channel, .. } => Kind::Message { channel, number: None },
            other => other,
        };
        Self { bytes: self.bytes.clone(), kind }
    }
}

/// Whole frames out of a stream of bytes.
#[derive(Default)]
pub struct Frames {
    buffer: BytesMut,
    greeted: bool,
}

struct Frame {
    kind: u8,
    channel: u16,
    bytes: Bytes,
}

impl Frame {
    fn payload(&self) -> &[u8] {
        &self.bytes[OVERHEAD - 1..self.bytes.len() - 1]
    }

    fn method(&self) -> Option<(u16, u16)> {
        let mut payload = self.payload();
        (self.kind == METHOD && payload.len() >= 4).then(|| (payload.get_u16(), payload.get_u16()))
    }
}

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The client begins with a greeting that is no frame; a server that refuses it answers with one.
    fn greeting(&mut self) -> Option<Bytes> {
        if self.greeted || self.buffer.len() < GREETING {
            return None;
        }
        self.greeted = true;
        self.buffer.starts_with(b"AMQP").then(|| self.buffer.split_to(GREETING).freeze())
    }

    fn next(&mut self) -> Option<Frame> {
        let mut head = self.buffer.get(..OVERHEAD - 1)?;
        let (kind, channel, size) = (head.get_u8(), head.get_u16(), head.get_u32() as usize);
        (self.buffer.len() >= size + OVERHEAD).then(|| Frame {
            kind,
            channel,
            bytes: self.buffer.split_to(size + OVERHEAD).freeze(),
        })
    }
}

#[derive(Default)]
struct Channel {
    confirms: bool,
    /// A message of which not all frames have come.
    begun: Option<(BytesMut, Option<u64>)>,
    /// What the client has published, by its own count.
    sent: u64,
    /// What the broker was given, by its count.
    given: u64,
    /// The broker's count of what it has not confirmed → the client's, or nothing for a repetition.
    unconfirmed: BTreeMap<u64, Option<u64>>,
    held_until: Option<Instant>,
}

/// One connection.
#[derive(Default)]
pub struct Session {
    channels: HashMap<u16, Channel>,
}

impl Session {
    /// What a client sends, message by message.
    pub fn upward(&mut self, frames: &mut Frames) -> Vec<Unit> {
        let mut units: Vec<Unit> = frames.greeting().map(Unit::raw).into_iter().collect();
        while let Some(frame) = frames.next() {
            let channel = self.channels.entry(frame.channel).or_default();
            match (frame.kind, frame.method()) {
                (METHOD, Some(BASIC_PUBLISH)) => channel.begun = Some((BytesMut::from(&frame.bytes[..]), None)),
                (HEADER | BODY, _) if channel.begun.is_some() => {
                    let whole = channel.goes_on(&frame);
                    if let Some(bytes) = whole {
                        channel.sent += 1;
                        let kind = Kind::Message { channel: frame.channel, number: Some(channel.sent) };
                        units.push(Unit { bytes, kind });
                    }
                }
                (METHOD, Some(method)) if method.0 != BASIC => {
                    let kind = Kind::Control {
                        channel: frame.channel,
                        confirms: method == CONFIRM_SELECT,
                        opens: method == CHANNEL_OPEN,
                    };
                    if method == CHANNEL_OPEN {
                        *channel = Channel::default();
                    }
                    if method == CONFIRM_SELECT {
                        // The client counts from here.
                        channel.sent = 0;
                    }
                    units.push(Unit { bytes: frame.bytes, kind });
                }
                _ => units.push(Unit::raw(frame.bytes)),
            }
        }
        units
    }

    /// What a broker sends; its confirms are told in the client's count.
    pub fn downward(&mut self, frames: &mut Frames) -> Vec<Unit> {
        let mut units: Vec<Unit> = frames.greeting().map(Unit::raw).into_iter().collect();
        while let Some(frame) = frames.next() {
            let channel = self.channels.entry(frame.channel).or_default();
            match frame.method() {
                Some(method @ (BASIC_ACK | BASIC_NACK)) if channel.confirms => {
                    units.extend(channel.confirmed(&frame, method).into_iter().map(Unit::raw));
                }
                _ => units.push(Unit::raw(frame.bytes)),
            }
        }
        units
    }

    /// A unit is about to be written to the broker, which counts it now.
    pub fn leaving(&mut self, unit: Unit) -> Bytes {
        match unit.kind {
            Kind::Raw => {}
            Kind::Control { channel, confirms, opens } => {
                let channel = self.channels.entry(channel).or_default();
                if confirms || opens {
                    channel.confirms = confirms;
                    channel.given = 0;
                    channel.unconfirmed.clear();
                }
            }
            Kind::Message { channel, number } => {
                let channel = self.channels.entry(channel).or_default();
                if channel.confirms {
                    channel.given += 1;
                    channel.unconfirmed.insert(channel.given, number);
                }
            }
        }
        unit.bytes
    }

    /// Notes when a message leaves.
    pub fn hold(&mut self, unit: &Unit, until: Instant) {
        if let Kind::Message { channel, .. } = unit.kind {
            let held = &mut self.channels.entry(channel).or_default().held_until;
            *held = Some(held.map_or(until, |held| held.max(until)));
        }
    }

    /// What is about a channel, or about the whole connection, waits for the messages before it.
    pub fn not_before(&self, unit: &Unit, due: Instant) -> Instant {
        let held = |channel: &Channel| channel.held_until.map_or(due, |held| held.max(due));
        match unit.kind {
            Kind::Control { channel: 0, .. } => self.channels.values().map(held).max().unwrap_or(due),
            Kind::Control { channel, .. } => self.channels.get(&channel).map_or(due, held),
            _ => due,
        }
    }
}

impl Channel {
    /// Another frame of the message that has begun; the whole of it when it was the last.
    fn goes_on(&mut self, frame: &Frame) -> Option<Bytes> {
        let (bytes, missing) = self.begun.as_mut()?;
        bytes.extend_from_slice(&frame.bytes);
        let left = match frame.kind {
            // Class and weight stand before the size of the body.
            HEADER => frame.payload().get(4..12).map_or(0, |mut size| size.get_u64()),
            _ => missing.unwrap_or_default().saturating_sub(frame.payload().len() as u64),
        };
        *missing = Some(left);
        if left > 0 {
            return None;
        }
        self.begun.take().map(|(bytes, _)| bytes.freeze())
    }

    /// The broker's confirm as the client expects it: one frame for each message of its own, none for a repetition.
    fn confirmed(&mut self, frame: &Frame, method: (u16, u16)) -> Vec<Bytes> {
        let mut payload = &frame.payload()[4..];
        let (tag, multiple) = (payload.get_u64(), payload.get_u8() & 1 == 1);
        let confirmed = if multiple {
            let later = self.unconfirmed.split_off(&(tag + 1));
            std::mem::replace(&mut self.unconfirmed, later).into_values().collect()
        } else {
            vec![self.unconfirmed.remove(&tag).flatten()]
        };
        confirmed.into_iter().flatten().map(|tag| confirm(frame.channel, method, tag)).collect()
    }
}

fn confirm(channel: u16, method: (u16, u16), tag: u64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(OVERHEAD + 13);
    bytes.put_u8(METHOD);
    bytes.put_u16(channel);
    bytes.put_u32(13);
    bytes.put_u16(method.0);
    bytes.put_u16(method.1);
    bytes.put_u64(tag);
    bytes.put_u8(0);
    bytes.put_u8(0xCE);
    bytes.freeze()
}
