//! What the reader of a WebSocket says, which is little: it answers pings, it pings, it closes.
//!
//! Every frame is judged by its first two bytes, not when it has arrived: whoever announces a terabyte, or a message in a
//! thousand fragments, is told so at once, and no more than one piece of the stream is ever held.

use actix_http::{
    Payload,
    ws::{CloseCode, Codec, Frame, OpCode},
};
use bytes::BytesMut;
use futures_util::StreamExt;
use tokio_util::codec::Decoder;

/// Of the payload of a control frame (RFC 6455 §5.5).
const LARGEST: u8 = 125;

/// The frames of a reader, one by one.
pub(super) struct Frames {
    payload: Payload,
    received: BytesMut,
    codec: Codec,
}

/// Why a reader is closed.
pub(super) type Closed = (CloseCode, &'static str);

impl Frames {
    pub(super) fn new(payload: Payload) -> Self {
        Self { payload, received: BytesMut::new(), codec: Codec::new().max_size(usize::from(LARGEST)) }
    }

    /// The next frame; `None` when the reader is gone. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Result<Frame, Closed>> {
        loop {
            if let Err(closed) = judge(&self.received) {
                return Some(Err(closed));
            }
            match self.codec.decode(&mut self.received) {
                Ok(Some(frame)) => return Some(Ok(frame)),
                Ok(None) => {}
                Err(_) => return Some(Err((CloseCode::Protocol, "that is no WebSocket frame"))),
            }
            // What a whole frame was taken from is let go, not kept and grown.
            match self.payload.next().await {
                Some(Ok(piece)) if self.received.is_empty() => self.received = BytesMut::from(piece),
                Some(Ok(piece)) => self.received.extend_from_slice(&piece),
                Some(Err(_)) | None => return None,
            }
        }
    }
}

/// Judges a frame by its head.
fn judge(received: &[u8]) -> Result<(), Closed> {
    let [first, second, ..] = received else { return Ok(()) };
    match OpCode::from(first & 0x0f) {
        OpCode::Text | OpCode::Binary | OpCode::Continue => Err((CloseCode::Unsupported, "this stream only tells")),
        OpCode::Bad => Err((CloseCode::Protocol, "that is no WebSocket frame")),
        _ if second & 0x7f > LARGEST => Err((CloseCode::Protocol, "a ping, pong or close has at most 125 bytes")),
        _ => Ok(()),
    }
}
