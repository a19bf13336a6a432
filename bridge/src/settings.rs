//! Settings of a bridge, with their defaults.

use std::{fmt, time::Duration};

use callboard_messages::Secret;
use lapin::uri::AMQPUri;
use uuid::Uuid;

use crate::key::ClusterKey;

/// Settings of a [`Bridge`](crate::Bridge).
#[derive(Clone)]
pub struct BridgeSettings {
    /// `amqp://user:password@host:port/vhost`, or `amqps`.
    pub url: Secret,
    /// Prefix of every exchange and queue: clusters that share a virtual host have different ones. Default:
    /// `callboard`.
    pub prefix: String,
    /// The id of this node's process; another after each start.
    pub node: Uuid,
    /// The name of the node's connections at the broker. Default: its id.
    pub name: String,
    /// The key of the cluster.
    pub key: ClusterKey,
    /// Time limit of connecting. Default: 5 s.
    pub connect_within: Duration,
    /// How long the broker may be silent before the connection is given up. Default: 5 s.
    pub silence: Duration,
    /// Requests in one AMQP message. Default: 64.
    pub batch_requests: usize,
    /// Bytes after which an AMQP message takes no further request. Default: 64 KiB.
    pub batch_bytes: usize,
    /// The largest request, reply or event, in bytes. Default: 16 MiB.
    pub message_bytes: usize,
    /// Pending calls to other nodes. Default: 16384.
    pub calls: usize,
    /// How long a domain may take no events on this node before another node is to have them. Default: 10 s.
    pub patience: Duration,
    /// How long nodes pass each other an event that their version of its subscriber does not react to, before it is a
    /// dead letter. Default: 60 s.
    pub unknown_for: Duration,
}

impl BridgeSettings {
    /// The defaults.
    #[must_use]
    pub fn new(url: Secret, node: Uuid, key: ClusterKey) -> Self {
        Self {
            url,
            prefix: "callboard".to_owned(),
            node,
            name: format!("callboard {node}"),
            key,
            connect_within: Duration::from_secs(5),
            silence: Duration::from_secs(5),
            batch_requests: 64,
            batch_bytes: 64 * 1024,
            message_bytes: 16 * 1024 * 1024,
            calls: 16_384,
            patience: Duration::from_secs(10),
            unknown_for: Duration::from_secs(60),
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// A sentence for each invalid one. None of them shows the URL, which may hold a password.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let second = Duration::from_secs(1);
        let prefix = !self.prefix.is_empty()
            && self.prefix.len() <= 64
            && self.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        let rules = [
            (prefix, "the prefix is made of up to 64 letters, digits, '_', '-' and '.'"),
            (self.connect_within >= Duration::from_millis(100), "connect_within must be at least 100 ms"),
            (self.silence >= second && self.silence <= 60 * second, "silence must be between 1 s and 60 s"),
            (self.batch_requests >= 1, "batch_requests must be at least 1"),
            (self.message_bytes >= 1024, "message_bytes must be at least 1024"),
            (self.message_bytes <= 64 * 1024 * 1024, "message_bytes must be at most 67108864"),
            (self.calls >= 1, "calls must be at least 1"),
            (self.patience <= 60 * second, "patience must be at most 60 s"),
            (self.unknown_for <= 3600 * second, "unknown_for must be at most 3600 s"),
        ];
        let mut wrong: Vec<String> =
            rules.iter().filter(|(holds, _)| !holds).map(|(_, rule)| format!("bridge: {rule}")).collect();
        wrong.extend(self.uri().err());
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The parsed URL, with the connection's parameters.
    pub(crate) fn uri(&self) -> Result<AMQPUri, String> {
        let mut uri: AMQPUri = self.url.expose().parse().map_err(|error: String| {
            // The parser's error may quote the URL.
            let reason = error.split(':').next().unwrap_or_default();
            format!("bridge: the URL of the broker is not amqp://user:password@host:port/vhost ({reason})")
        })?;
        uri.query.heartbeat = Some(u16::try_from(self.silence.as_secs()).unwrap_or(60).max(1));
        uri.query.frame_max = Some(64 * 1024);
        Ok(uri)
    }
}

impl fmt::Debug for BridgeSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeSettings")
            .field("prefix", &self.prefix)
            .field("node", &self.node)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
