//! WebSockets through the router: after the 101, bytes both ways until both sides have ended.
//!
//! The end of the client's side is passed on, and the instance may still finish. When the instance ends first, the
//! connection is closed behind its last byte, as WebSocket requires. It is also closed when the instance's node was
//! declared gone: a frozen node would never end it.

use std::{
    error::Error,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_http::Payload;
use bytes::{Bytes, BytesMut};
use callboard_platform::routing::InFlight;
use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt,
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::oneshot,
};
use tokio_util::io::poll_read_buf;

use super::{failure::Failure, pool::Watched};

const PIECE: usize = 16 * 1024;

/// The instance's side.
pub struct Tunnel {
    from_instance: OwnedReadHalf,
    buffer: BytesMut,
    lost: Pin<Box<dyn Future<Output = ()>>>,
    _place: Rc<InFlight>,
    /// Dropped with the client's connection.
    _client: oneshot::Sender<()>,
}

/// Takes over the connection of a 101, and starts to pass on what the client sends.
pub(super) async fn tunnel(
    answer: hyper::Response<Incoming>,
    from_client: Payload,
    place: InFlight,
) -> Result<Tunnel, Failure> {
    let upgraded = hyper::upgrade::on(answer).await.map_err(|error| Failure::broken(&error, false))?;
    let parts = upgraded
        .downcast::<TokioIo<Watched>>()
        .map_err(|_| Failure::Broken("its connection could not be taken over".to_owned()))?;
    let (from_instance, to_instance) = parts.io.into_inner().stream.into_split();
    let place = Rc::new(place);
    let (client, gone) = oneshot::channel();
    let passing = pass_on(from_client, to_instance, Rc::clone(&place));
    actix_rt::spawn(async move {
        // An instance that does not read must not keep the connection of a client that is gone.
        tokio::select! {
            () = passing => {}
            _ = gone => {}
        }
    });
    let (buffer, lost) = (BytesMut::from(parts.read_buf.as_ref()), Box::pin(place.lost()));
    Ok(Tunnel { from_instance, buffer, lost, _place: place, _client: client })
}

async fn pass_on(mut from_client: Payload, mut to_instance: OwnedWriteHalf, place: Rc<InFlight>) {
    // actix-http reports the end of the client's side as an error, because no length was announced: here it is the end.
    while let Some(Ok(piece)) = from_client.next().await {
        tokio::select! {
            written = to_instance.write_all(&piece) => if written.is_err() {
                return;
            },
            () = place.lost() => return,
        }
    }
    if let Err(error) = to_instance.shutdown().await {
        tracing::debug!(%error, "an instance had left its WebSocket");
    }
}

impl Tunnel {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Box<dyn Error>>>> {
        if self.buffer.is_empty() {
            self.buffer.reserve(PIECE);
            match poll_read_buf(Pin::new(&mut self.from_instance), cx, &mut self.buffer) {
                // What the instance sent before is passed on first.
                Poll::Pending if self.lost.as_mut().poll(cx).is_ready() => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(Ok(0)) => return Poll::Ready(None),
                Poll::Ready(Ok(_)) => {}
            }
        }
        Poll::Ready(Some(Ok(self.buffer.split().freeze())))
    }
}
