//! The socket of a client, between the network and actix-http.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_util::io::poll_read_buf;

use super::{
    Edge,
    alarm::Alarm,
    framing::Framing,
    head::{Judgement, Progress},
    presence::Presence,
    refusal::Refusal,
    turn::{ResponseState, Turns},
};

const PIECE: usize = 4 * 1024;
/// Bytes that are read behind an unanswered request, to notice that its client has closed its sending side.
const AHEAD: usize = 16 * 1024;
/// How long bytes are read after a refusal: closing a connection over unread bytes resets it, and the refusal is lost.
const LINGER: Duration = Duration::from_secs(2);

/// A client's connection.
pub(crate) struct Connection {
    stream: TcpStream,
    edge: Arc<Edge>,
    turns: Turns,
    reading: Reading,
    /// Received bytes that were not handed on: of these, `ready` bytes may be.
    held: BytesMut,
    ready: usize,
    /// The client has closed its sending side.
    has_ended: bool,
    presence: Presence,
    /// Since when the client reads nothing.
    blocked: Option<Instant>,
    /// When bytes of an exchange were last received or sent.
    moved: Instant,
    idle: Alarm,
    timer: Alarm,
}

/// What is read next from the client.
enum Reading {
    /// A head; since when, if a part of it has arrived.
    Head { progress: Progress, since: Option<Instant> },
    /// The rest of a request's body.
    Body(Framing),
    /// Bytes behind a request that is not answered yet.
    Behind,
    /// Nothing, because there was no valid request. The response to that, and how long bytes are still read.
    Refused { answer: Bytes, until: Option<Instant> },
}

impl Reading {
    fn head(since: Option<Instant>) -> Self {
        Self::Head { progress: Progress::default(), since }
    }

    fn after(framing: Framing) -> Self {
        if framing.is_done() { Self::Behind } else { Self::Body(framing) }
    }
}

impl Connection {
    pub(super) fn new(stream: TcpStream, edge: Arc<Edge>) -> Self {
        let now = Instant::now();
        Self {
            stream,
            edge,
            turns: Turns::new(),
            reading: Reading::head(Some(now)),
            held: BytesMut::new(),
            ready: 0,
            has_ended: false,
            presence: Presence::default(),
            blocked: None,
            moved: now,
            idle: Alarm::default(),
            timer: Alarm::default(),
        }
    }

    /// The turns of the connection, for the service.
    pub(super) fn turns(&self) -> Turns {
        self.turns.clone()
    }

    /// Reads more bytes; zero is the end of the client's side.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.held.reserve(PIECE);
        let received = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.held))?;
        self.has_ended |= received == 0;
        Poll::Ready(Ok(received))
    }

    /// Reads until a head is whole. False when there is no further request.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while let Reading::Head { progress, since } = &mut self.reading {
            let judgement = if self.held.is_empty() { Judgement::Partial } else { progress.judge(&self.held) };
            match judgement {
                Judgement::Partial if self.has_ended => return Poll::Ready(Ok(false)),
                Judgement::Partial => {
                    let since = *since;
                    match self.poll_receive(cx)? {
                        Poll::Pending => return self.poll_too_slow(cx, since),
                        Poll::Ready(_) => self.count_head_from(since),
                    }
                }
                Judgement::Refused(refusal) => self.refuse(refusal),
                Judgement::Whole(head) => {
                    let mut framing = head.framing;
                    self.ready = head.length + framing.take(self.held.get(head.length..).unwrap_or_default());
                    self.reading = Reading::after(framing);
                    self.turns.begin(head.is_modern);
                    self.presence = Presence::default();
                    self.moved = Instant::now();
                    return Poll::Ready(Ok(true));
                }
            }
        }
        Poll::Ready(Ok(false))
    }

    fn count_head_from(&mut self, known: Option<Instant>) {
        if let Reading::Head { since, .. } = &mut self.reading {
            *since = known.or_else(|| Some(Instant::now()));
        }
    }

    fn poll_too_slow(&mut self, cx: &mut Context<'_>, since: Option<Instant>) -> Poll<io::Result<bool>> {
        let Some(since) = since else { return Poll::Pending };
        if !self.timer.is_due(cx, since + self.edge.head_timeout) {
            return Poll::Pending;
        }
        self.refuse(Refusal::too_slow());
        Poll::Ready(Ok(false))
    }

    fn refuse(&mut self, refusal: Refusal) {
        if let Some(refused) = &self.edge.refused {
            refused.inc();
        }
        self.held = BytesMut::new();
        self.reading = Reading::Refused { answer: refusal.into_bytes(), until: None };
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, mut framing: Framing, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let received = buf.filled().get(before..).unwrap_or_default();
        self.has_ended |= received.is_empty();
        let own = framing.take(received);
        self.held.extend_from_slice(received.get(own..).unwrap_or_default());
        buf.set_filled(before + own);
        self.reading = Reading::after(framing);
        self.moved = Instant::now();
        Poll::Ready(Ok(()))
    }

    /// Reads behind an unanswered request without handing on, to notice that the client is gone.
    fn poll_behind(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.has_ended && self.held.len() < AHEAD && self.stream.poll_read_ready(cx)?.is_ready() {
            if self.poll_receive(cx)?.is_pending() {
                break;
            }
        }
        if self.has_ended || !self.held.is_empty() {
            self.turns.wake_at_end(cx);
        }
        if self.has_ended && self.turns.is_watched() && self.blocked.is_none() {
            self.presence.check(cx, &self.stream, self.turns.response())?;
        }
        Ok(())
    }

    fn hand_on(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.ready.min(buf.remaining());
        buf.put_slice(self.held.get(..count).unwrap_or_default());
        self.held.advance(count);
        self.ready -= count;
    }

    /// Fails when a response, a stream or a WebSocket was idle for too long: nothing was sent or received, or the
    /// client read nothing, whatever it sent.
    fn check_idle(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let is_answering = matches!(self.turns.response(), ResponseState::Answering { .. });
        let since = self.blocked.or_else(|| is_answering.then_some(self.moved));
        if since.is_none_or(|since| !self.idle.is_due(cx, since + self.edge.stream_idle)) {
            return Ok(());
        }
        tracing::debug!(is_blocked = self.blocked.is_some(), "closing an idle connection");
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.ready > 0 {
                this.hand_on(buf);
                return Poll::Ready(Ok(()));
            }
            match &mut this.reading {
                Reading::Head { .. } => {
                    if !ready!(this.poll_head(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Reading::Body(framing) if this.held.is_empty() => {
                    let framing = *framing;
                    return this.poll_body(cx, framing, buf);
                }
                Reading::Body(framing) => {
                    this.ready = framing.take(&this.held);
                    this.reading = Reading::after(*framing);
                }
                // The response may be encoded and not written: what follows must not add to it.
                Reading::Behind if this.turns.response() == ResponseState::Over && this.blocked.is_none() => {
                    this.reading = Reading::head((!this.held.is_empty()).then(Instant::now));
                }
                Reading::Behind => {
                    this.poll_behind(cx)?;
                    return Poll::Pending;
                }
                Reading::Refused { .. } => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match this.presence.poll_finish(cx, &mut this.stream) {
            Poll::Ready(finished) => finished.map(|()| Pin::new(&mut this.stream).poll_write(cx, bytes))?,
            Poll::Pending => Poll::Pending,
        };
        let now = Instant::now();
        if written.is_pending() {
            this.blocked.get_or_insert(now);
            this.check_idle(cx)?;
            return Poll::Pending;
        }
        this.moved = now;
        if this.blocked.take().is_some() {
            // Bytes that wait behind the response are looked at again.
            cx.waker().wake_by_ref();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_idle(cx)?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Reading::Refused { answer, until } = &mut this.reading else {
            return Pin::new(&mut this.stream).poll_shutdown(cx);
        };
        while !answer.is_empty() {
            let written = ready!(Pin::new(&mut this.stream).poll_write(cx, answer))?;
            answer.advance(written);
        }
        let until = match *until {
            Some(until) => until,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                *until.insert(Instant::now() + LINGER)
            }
        };
        while !this.has_ended && !this.timer.is_due(cx, until) {
            this.held.clear();
            if !matches!(ready!(this.poll_receive(cx)), Ok(1..)) {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
