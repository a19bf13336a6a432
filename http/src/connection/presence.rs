//! Whether the client of a request is still there.
//!
//! A client that has ended its side may have left, or may only have nothing more to say: TCP tells the same of both. Nobody
//! but the client can say which, so it is sent something that means nothing to it: before the answer an interim `100
//! Continue` (RFC 9110 §15.2: a client skips those that it did not ask for), within a chunked answer a zero before the size
//! of the next chunk. Who has left answers with a reset, and its request is ended; who reads on is answered. Of a client
//! that can't be asked, because it speaks HTTP/1.0 or is in the middle of an answer of known length, the next bytes of the
//! app tell, or the bound on streams that stand still.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{io::AsyncWrite, net::TcpStream, time::Instant};

use super::{alarm::Alarm, turn::ResponseState};

const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const ZERO: &[u8] = b"0";
/// How soon it is looked for the reset, at first and in the long run.
const SOON: Duration = Duration::from_millis(20);
const LATER: Duration = Duration::from_secs(1);

/// What is known of the client of one request that has ended its side.
#[derive(Default)]
pub(super) struct Presence {
    asked: Option<Asked>,
    /// What could not be written yet of the question.
    rest: &'static [u8],
    alarm: Alarm,
}

struct Asked {
    look_at: Instant,
    pause: Duration,
}

impl Presence {
    /// Fails when the client has left. Everything that was to be written must have been.
    pub(super) fn check(
        &mut self,
        cx: &mut Context<'_>,
        stream: &TcpStream,
        response: ResponseState,
    ) -> io::Result<()> {
        if self.asked.is_none() {
            let question = match response {
                ResponseState::Waiting { interim: true } => INTERIM,
                ResponseState::Answering { chunked: true } => ZERO,
                _ => return Ok(()),
            };
            self.rest = match stream.try_write(question) {
                Ok(written) => question.get(written..).unwrap_or_default(),
                // What fills the buffers asks the same.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => &[],
                Err(error) => return Err(error),
            };
            self.asked = Some(Asked { look_at: Instant::now(), pause: SOON });
        }
        while let Some(asked) = self.asked.as_mut().filter(|asked| self.alarm.is_due(cx, asked.look_at)) {
            if let Some(error) = stream.take_error()? {
                tracing::debug!(%error, "a client has left before it was answered");
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            asked.look_at = Instant::now() + asked.pause;
            asked.pause = LATER.min(asked.pause * 2);
        }
        Ok(())
    }

    /// Writes what is left of the question: the answer goes behind it.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>, stream: &mut TcpStream) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, self.rest))?;
            self.rest = self.rest.get(written..).unwrap_or_default();
        }
        Poll::Ready(Ok(()))
    }
}
