//! Detects whether the client of a request is gone.
//!
//! A client that has closed its sending side may be gone, or may only have nothing more to send: TCP shows the same for
//! both. So it is sent something without meaning: before the response an interim `100 Continue` (RFC 9110 §15.2: a
//! client skips those that it did not ask for), within a chunked response a zero before the size of the next chunk. A
//! gone client answers with a reset, and its request is ended; one that still reads gets its response. A client that
//! can't be probed, because it speaks HTTP/1.0 or gets a response of known length, is noticed when the app's next bytes
//! are written, or by the limit on idle streams.

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
/// Intervals of checking for the reset: at first, and later.
const SOON: Duration = Duration::from_millis(20);
const LATER: Duration = Duration::from_secs(1);

/// The probe of a client that has closed its sending side.
#[derive(Default)]
pub(super) struct Presence {
    asked: Option<Asked>,
    /// The unwritten rest of the probe.
    rest: &'static [u8],
    alarm: Alarm,
}

struct Asked {
    look_at: Instant,
    pause: Duration,
}

impl Presence {
    /// Fails when the client is gone. Everything before must have been written.
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
                // The bytes in the full buffer are a probe too.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => &[],
                Err(error) => return Err(error),
            };
            self.asked = Some(Asked { look_at: Instant::now(), pause: SOON });
        }
        while let Some(asked) = self.asked.as_mut().filter(|asked| self.alarm.is_due(cx, asked.look_at)) {
            if let Some(error) = stream.take_error()? {
                tracing::debug!(%error, "a client closed its connection before the response");
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            asked.look_at = Instant::now() + asked.pause;
            asked.pause = LATER.min(asked.pause * 2);
        }
        Ok(())
    }

    /// Writes the rest of the probe: the response goes behind it.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>, stream: &mut TcpStream) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, self.rest))?;
            self.rest = self.rest.get(written..).unwrap_or_default();
        }
        Poll::Ready(Ok(()))
    }
}
