//! Layout of requests and replies in the body of an AMQP message.
//!
//! A message begins with who sent it, the number it has among the messages of that sender, and the sender's clocks. Then
//! come the entries, each with its length: what was ready together travels together. Numbers are big-endian. The
//! message has the version and the signature, over all of this, in its AMQP headers.

use std::ops::Range;

use bytes::Bytes;
use callboard_messages::Caller;
use uuid::Uuid;

/// The version of this layout. The entries' content is JSON, with its own rules of compatibility.
pub(crate) const VERSION: u8 = 1;

/// Length of the opening before the entries.
pub(crate) const OPENING: usize = 48;

/// The kind of a message, which is signed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    Requests = 1,
    Replies = 2,
    Live = 3,
    Event = 4,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Replies => "replies",
            Self::Live => "live",
            Self::Event => "event",
        }
    }
}

/// The opening of a message: its sender, number and clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) node: Uuid,
    /// Among all messages of this sender.
    pub(crate) number: u64,
    /// Identifies the run of the sender.
    pub(crate) life: u64,
    /// The sender's monotonic clock, in milliseconds.
    pub(crate) sent: u64,
    /// The sender's time of day, in milliseconds since 1970 in UTC.
    pub(crate) at: u64,
}

impl Opening {
    /// Writes it to the first [`OPENING`] bytes.
    pub(crate) fn write(&self, body: &mut [u8]) {
        let words = [self.number, self.life, self.sent, self.at].map(u64::to_be_bytes);
        let bytes = self.node.as_bytes().iter().chain(words.iter().flatten());
        body.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let node = Uuid::from_bytes(reader.array()?);
        let [number, life, sent, at] = [reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?];
        Some(Self { node, number, life, sent, at })
    }
}

/// A request within a message.
#[derive(Debug)]
pub(crate) struct RequestEntry<'a> {
    pub(crate) call: u64,
    /// Rest of the deadline, in milliseconds.
    pub(crate) left: u32,
    pub(crate) idempotent: bool,
    pub(crate) operation: &'a str,
    pub(crate) caller: Caller,
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) body: &'a [u8],
}

const IDEMPOTENT: u8 = 1;

/// How a call ended without an outcome of the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    /// The outcome follows.
    Answered = 0,
    /// It may have been carried out before, and is not idempotent.
    Unknown = 1,
    /// Its deadline passed before it began.
    Expired = 2,
}

/// A reply within a message.
#[derive(Debug)]
pub(crate) struct ReplyEntry {
    pub(crate) call: u64,
    pub(crate) status: Status,
    pub(crate) body: Range<usize>,
}

/// Writes an entry: its length, then what `write` writes.
pub(crate) fn entry(body: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = body.len();
    body.extend_from_slice(&[0; 4]);
    write(body);
    let length = u32::try_from(body.len() - start - 4).unwrap_or(u32::MAX).to_be_bytes();
    body.iter_mut().skip(start).zip(length).for_each(|(to, from)| *to = from);
}

/// The fields of a request.
pub(crate) struct RequestParts<'a> {
    pub(crate) call: u64,
    pub(crate) left: u32,
    pub(crate) idempotent: bool,
    pub(crate) operation: &'a str,
    pub(crate) caller: &'a [u8],
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) body: &'a [u8],
}

impl RequestParts<'_> {
    pub(crate) fn len(&self) -> usize {
        32 + self.operation.len() + self.caller.len() + self.traceparent.map_or(0, str::len) + self.body.len()
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        entry(to, |to| {
            to.extend_from_slice(&self.call.to_be_bytes());
            to.extend_from_slice(&self.left.to_be_bytes());
            to.push(if self.idempotent { IDEMPOTENT } else { 0 });
            short(to, self.operation.as_bytes());
            short(to, self.traceparent.unwrap_or_default().as_bytes());
            let length = u32::try_from(self.caller.len()).unwrap_or(u32::MAX);
            to.extend_from_slice(&length.to_be_bytes());
            to.extend_from_slice(self.caller);
            to.extend_from_slice(self.body);
        });
    }
}

pub(crate) fn write_reply(to: &mut Vec<u8>, call: u64, status: Status, body: &[u8]) {
    entry(to, |to| {
        to.extend_from_slice(&call.to_be_bytes());
        to.push(status as u8);
        to.extend_from_slice(body);
    });
}

/// Writes an update. An empty one announces that updates of this topic, or of every topic if that is empty too, were
/// lost.
pub(crate) fn write_live(to: &mut Vec<u8>, topic: &str, event: &[u8]) {
    entry(to, |to| {
        let length = u16::try_from(topic.len()).unwrap_or(u16::MAX);
        to.extend_from_slice(&length.to_be_bytes());
        to.extend_from_slice(topic.as_bytes());
        to.extend_from_slice(event);
    });
}

/// Topic of the first entry of a message with updates, before its number. An older version takes the entry for an
/// update of a topic without readers.
const NUMBER: &str = "\0number:";

/// Reserves the entry for the number of a message with updates, which is known when it is sent.
pub(crate) fn leave_live_number(to: &mut Vec<u8>) {
    write_live(to, &live_number(0), &[]);
}

/// Writes the number where [`leave_live_number`] reserved it.
pub(crate) fn number_live(body: &mut [u8], number: u64) {
    let mut entry = Vec::new();
    write_live(&mut entry, &live_number(number), &[]);
    body.iter_mut().skip(OPENING).zip(entry).for_each(|(to, from)| *to = from);
}

fn live_number(number: u64) -> String {
    format!("{NUMBER}{number:016x}")
}

/// The number of a message, if this is its entry.
pub(crate) fn read_live_number(entry: &[u8]) -> Option<u64> {
    let (topic, event) = read_live(entry)?;
    let number = topic.strip_prefix(NUMBER).filter(|_| event.is_empty())?;
    u64::from_str_radix(number, 16).ok()
}

/// Truncates to 255 bytes, which operation names and `traceparent`s never reach.
fn short(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    to.push(length);
    to.extend(bytes.iter().take(usize::from(length)));
}

/// The opening of a message, and the ranges of its entries; `None` when it is malformed.
pub(crate) fn read(body: &[u8]) -> Option<(Opening, Vec<Range<usize>>)> {
    let mut reader = Reader(body);
    let opening = Opening::read(&mut reader)?;
    let mut entries = Vec::new();
    while !reader.0.is_empty() {
        let length = usize::try_from(reader.u32()?).ok()?;
        let start = body.len() - reader.0.len();
        reader.take(length)?;
        entries.push(start..start + length);
    }
    Some((opening, entries))
}

/// A request; `None` when it is malformed.
pub(crate) fn read_request(entry: &[u8]) -> Option<RequestEntry<'_>> {
    let mut reader = Reader(entry);
    let call = reader.u64()?;
    let left = reader.u32()?;
    let flags = reader.u8()?;
    let operation = reader.short()?;
    let traceparent = Some(reader.short()?).filter(|text| !text.is_empty());
    let length = usize::try_from(reader.u32()?).ok()?;
    let caller = serde_json::from_slice(reader.take(length)?).ok()?;
    Some(RequestEntry {
        call,
        left,
        idempotent: flags & IDEMPOTENT != 0,
        operation,
        caller,
        traceparent,
        body: reader.0,
    })
}

/// A reply; `None` when it is malformed. Its body is a slice of `message`.
pub(crate) fn read_reply(message: &Bytes, entry: Range<usize>) -> Option<ReplyEntry> {
    let mut reader = Reader(message.get(entry.clone())?);
    let call = reader.u64()?;
    let status = match reader.u8()? {
        0 => Status::Answered,
        1 => Status::Unknown,
        2 => Status::Expired,
        _ => return None,
    };
    Some(ReplyEntry { call, status, body: entry.end - reader.0.len()..entry.end })
}

/// A topic, and the event that was published to it; empty for an announced loss.
pub(crate) fn read_live(entry: &[u8]) -> Option<(&str, &[u8])> {
    let mut reader = Reader(entry);
    let length = u16::from_be_bytes(reader.array()?);
    let topic = str::from_utf8(reader.take(usize::from(length))?).ok()?;
    Some((topic, reader.0))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn short(&mut self) -> Option<&'a str> {
        let length = self.u8()?;
        str::from_utf8(self.take(usize::from(length))?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Vec<u8> {
        let mut body = vec![0; OPENING];
        let caller = serde_json::to_vec(&Caller::system()).unwrap();
        for call in [7, 8] {
            RequestParts {
                call,
                left: 1000,
                idempotent: call == 8,
                operation: "sample.perform",
                caller: &caller,
                traceparent: None,
                body: b"{}",
            }
            .write(&mut body);
        }
        Opening { node: Uuid::nil(), number: 1, life: 2, sent: 3, at: 4 }.write(&mut body);
        body
    }

    #[test]
    fn what_was_written_is_read_again() {
        let body = message();
        let (opening, entries) = read(&body).unwrap();
        assert_eq!(opening, Opening { node: Uuid::nil(), number: 1, life: 2, sent: 3, at: 4 });
        let requests: Vec<_> = entries.into_iter().map(|entry| read_request(&body[entry]).unwrap()).collect();
        let calls: Vec<_> = requests.iter().map(|request| (request.call, request.left, request.idempotent)).collect();
        assert_eq!(calls, [(7, 1000, false), (8, 1000, true)]);
        assert!(requests.iter().all(|request| request.operation == "sample.perform" && request.body == b"{}"));
        assert!(requests.iter().all(|request| request.traceparent.is_none() && request.caller.administrator));
    }

    #[test]
    fn a_message_that_was_cut_anywhere_is_no_message_or_has_no_whole_request() {
        let body = message();
        for length in 0..body.len() {
            let cut = &body[..length];
            let whole = read(cut).is_some_and(|(_, entries)| {
                entries.len() == 2 && entries.into_iter().all(|entry| read_request(&cut[entry]).is_some())
            });
            assert!(!whole, "{length}");
        }
    }

    #[test]
    fn the_number_of_a_message_with_updates_stands_before_them_and_is_an_update_of_nothing_to_an_older_node() {
        let mut body = vec![0; OPENING];
        leave_live_number(&mut body);
        write_live(&mut body, "logs:1", b"{}");
        number_live(&mut body, u64::MAX - 1);
        let (_, entries) = read(&body).unwrap();
        let [number, update] = [0, 1].map(|place| &body[entries[place].clone()]);
        assert_eq!((read_live_number(number), read_live_number(update)), (Some(u64::MAX - 1), None));
        assert_eq!(read_live(update), Some(("logs:1", &b"{}"[..])));
        assert!(matches!(read_live(number), Some((topic, [])) if topic.starts_with('\0')));
    }

    #[test]
    fn a_reply_names_the_part_of_the_message_that_is_its_body() {
        let mut body = vec![0; OPENING];
        write_reply(&mut body, 5, Status::Answered, b"\"yes\"");
        write_reply(&mut body, 6, Status::Unknown, b"");
        let body = Bytes::from(body);
        let (_, entries) = read(&body).unwrap();
        let replies: Vec<_> = entries.into_iter().map(|entry| read_reply(&body, entry).unwrap()).collect();
        assert_eq!((replies[0].call, &body[replies[0].body.clone()]), (5, &b"\"yes\""[..]));
        assert_eq!((replies[1].call, replies[1].status, replies[1].body.len()), (6, Status::Unknown, 0));
    }
}
