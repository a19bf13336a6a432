//! The live stream (SSE) of one topic.

use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use callboard_messages::deploy::{Deployment, LogLine};
use futures_util::{Stream, StreamExt};
use serde_json::Value;

use super::Client;
use crate::error::Result;

/// What the stream tells that the command line has a use for.
#[derive(Debug)]
pub enum Update {
    /// A deployment changed.
    Deployment(Box<Deployment>),
    /// A line was written.
    Log(LogLine),
    /// Anything else, such as a change of an instance.
    Other,
}

/// An open stream.
pub struct Updates {
    body: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>>>>,
    parser: Parser,
}

impl Client {
    /// Opens the live stream of `topic`, from now on.
    pub async fn updates(&self, topic: &str) -> Result<Updates> {
        let response = self.open_stream(topic, None).await?;
        Ok(Updates { body: Box::pin(response.bytes_stream()), parser: Parser::default() })
    }
}

impl Updates {
    /// The next update; `None` when the connection has ended or was lost.
    pub async fn next(&mut self) -> Option<Update> {
        loop {
            if let Some((event, data)) = self.parser.next() {
                return Some(understand(&event, &data));
            }
            let chunk = self.body.next().await?.ok()?;
            self.parser.buffer.extend_from_slice(&chunk);
        }
    }
}

/// Log lines and deployments are told apart by their event's name.
fn understand(event: &str, data: &str) -> Update {
    let value: Value = serde_json::from_str(data).unwrap_or_default();
    // An update of a connection with several topics stands in an envelope.
    let view = value.get("data").cloned().unwrap_or(value);
    let update = match event.rsplit('.').next().unwrap_or(event) {
        "deployment" => serde_json::from_value(view).map(|deployment| Update::Deployment(Box::new(deployment))),
        "log" => serde_json::from_value(view).map(Update::Log),
        _ => Ok(Update::Other),
    };
    update.unwrap_or(Update::Other)
}

/// Splits a body into events, as the HTML standard says.
#[derive(Default)]
struct Parser {
    buffer: BytesMut,
    event: String,
    data: String,
}

impl Parser {
    fn next(&mut self) -> Option<(String, String)> {
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(end);
            self.buffer.advance(1);
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            if line.is_empty() {
                let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
                if data.is_empty() {
                    continue;
                }
                return Some((event, data));
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.event),
                "data" => {
                    if !self.data.is_empty() {
                        self.data.push('\n');
                    }
                    self.data.push_str(value);
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_they_were_cut() {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for piece in [": hello\n\nid: 1\nevent: lo", "g\nda", "ta: {\"a\":\r\ndata: 1}\n", "\ndata: x\n\n"] {
            parser.buffer.extend_from_slice(piece.as_bytes());
            events.extend(std::iter::from_fn(|| parser.next()));
        }
        assert_eq!(events, [("log".to_owned(), "{\"a\":\n1}".to_owned()), (String::new(), "x".to_owned())]);
    }

    #[test]
    fn a_line_is_understood_with_and_without_its_envelope() {
        let line = r#"{"id":3,"at":"2026-01-01T00:00:00Z","from":"web.1","text":"hi"}"#;
        for data in [line.to_owned(), format!(r#"{{"topic":"logs:x","data":{line}}}"#)] {
            assert!(matches!(understand("log", &data), Update::Log(line) if line.id == 3));
        }
        assert!(matches!(understand("instance", line), Update::Other));
    }
}
