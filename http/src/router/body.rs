//! Bodies through the proxy: each side is asked for the next piece only when the other has taken the last.

use std::{
    cell::Cell,
    error::Error,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use actix_http::{
    Payload,
    body::{BodySize, EitherBody, MessageBody},
};
use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::{census::Visit, forward::Exchange, upgrade::Tunnel};
use crate::{
    connection::{Alarm, Turn},
    pace::Pace,
};

/// Progress of the client's body, for the task that awaits the response.
#[derive(Debug)]
pub(super) struct Upload {
    moved: Cell<Instant>,
    waiting_for_client: Cell<bool>,
    broken: Cell<bool>,
    late: Cell<bool>,
}

impl Upload {
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            moved: Cell::new(Instant::now()),
            waiting_for_client: Cell::new(false),
            broken: Cell::new(false),
            late: Cell::new(false),
        })
    }

    /// When the last piece passed.
    pub fn moved(&self) -> Instant {
        self.moved.get()
    }

    /// Whether the instance would take more than the client has sent.
    pub fn waiting_for_client(&self) -> bool {
        self.waiting_for_client.get()
    }

    /// Whether the client's side ended before its body did, or was no valid body.
    pub fn broken(&self) -> bool {
        self.broken.get()
    }

    /// Whether it was given up because it came too slowly.
    pub fn late(&self) -> bool {
        self.late.get()
    }
}

/// The client's body as hyper reads it.
pub(super) struct RequestBody {
    from_client: Option<FromClient>,
    length: Option<u64>,
    upload: Rc<Upload>,
}

struct FromClient {
    payload: Payload,
    pace: Pace,
    alarm: Alarm,
}

impl RequestBody {
    pub fn empty(upload: &Rc<Upload>) -> Self {
        Self { from_client: None, length: Some(0), upload: Rc::clone(upload) }
    }

    pub fn new(payload: Payload, length: Option<u64>, pace: Pace, upload: &Rc<Upload>) -> Self {
        let from_client = FromClient { payload, pace, alarm: Alarm::default() };
        Self { from_client: Some(from_client), length, upload: Rc::clone(upload) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let Some(FromClient { payload, pace, alarm }) = &mut this.from_client else { return Poll::Ready(None) };
        let piece = Pin::new(payload).poll_next(cx);
        this.upload.waiting_for_client.set(piece.is_pending());
        let Poll::Ready(piece) = piece else {
            if alarm.is_due(cx, pace.wait_until(tokio::time::Instant::now())) {
                this.upload.late.set(true);
                return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())));
            }
            return Poll::Pending;
        };
        this.upload.moved.set(Instant::now());
        match piece {
            Some(Ok(piece)) => {
                pace.received(piece.len(), tokio::time::Instant::now());
                this.length = this.length.map(|left| left.saturating_sub(piece.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Some(Err(error)) => {
                this.upload.broken.set(true);
                Poll::Ready(Some(Err(io::Error::other(error.to_string()).into())))
            }
            None => {
                this.from_client = None;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.from_client.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The body of the response to the client.
pub enum ResponseBody {
    /// No bytes; the size is that in the head (a HEAD request, 304).
    Empty(BodySize),
    /// A page of the router.
    Page(Bytes),
    /// The body of the instance's response.
    Relay(Relay),
    /// The instance's side of a WebSocket.
    Tunnel(Tunnel),
}

/// A response of an app or of the application behind the router; with it ends the turn on the client's connection.
pub struct Answered<B> {
    body: EitherBody<ResponseBody, B>,
    _turn: Option<Turn>,
    _visit: Option<Visit>,
}

impl<B> Answered<B> {
    pub(super) fn new(body: EitherBody<ResponseBody, B>, turn: Option<Turn>, visit: Option<Visit>) -> Self {
        Self { body, _turn: turn, _visit: visit }
    }
}

impl<B: MessageBody + Unpin + 'static> MessageBody for Answered<B> {
    type Error = actix_http::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

/// The body of an instance's response, with its connection.
pub struct Relay {
    incoming: Incoming,
    size: BodySize,
    exchange: Option<Exchange>,
}

impl Relay {
    pub(super) fn new(incoming: Incoming, size: BodySize, exchange: Exchange) -> Self {
        Self { incoming, size, exchange: Some(exchange) }
    }
}

impl MessageBody for ResponseBody {
    type Error = Box<dyn Error>;

    fn size(&self) -> BodySize {
        match self {
            Self::Empty(size) => *size,
            Self::Page(page) => BodySize::Sized(page.len() as u64),
            Self::Relay(relay) => relay.size,
            Self::Tunnel(_) => BodySize::Stream,
        }
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match self.get_mut() {
            Self::Empty(_) => Poll::Ready(None),
            Self::Page(page) if page.is_empty() => Poll::Ready(None),
            Self::Page(page) => Poll::Ready(Some(Ok(std::mem::take(page)))),
            Self::Relay(relay) => relay.poll_next(cx),
            Self::Tunnel(tunnel) => tunnel.poll_next(cx),
        }
    }
}

impl Relay {
    /// An error makes actix-http drop the connection, so that the client sees that the body is not whole.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Box<dyn Error>>>> {
        loop {
            let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return Poll::Pending,
            };
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    // An empty piece would end a chunked body.
                    Ok(piece) if !piece.is_empty() => return Poll::Ready(Some(Ok(piece))),
                    _ => continue,
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    if let Some(exchange) = self.exchange.take() {
                        exchange.complete();
                    }
                    return Poll::Ready(None);
                }
            }
        }
    }
}
