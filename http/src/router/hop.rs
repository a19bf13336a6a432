//! Requests forwarded from one node's router to another's.
//!
//! The forwarding node signs a request with a key of the cluster: so the other knows that the forwarding headers are a
//! router's and not a client's, and that it must not forward the request again. Without a valid signature the sender is
//! a client. The header ends at the router: apps and clients never get it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use actix_http::RequestHead;
use callboard_platform::cluster::Members;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// The header of a forwarded request.
pub(super) const HOP: &str = "x-callboard-hop";
/// The header of a response: this node does not run the app.
pub(super) const MISDIRECTED: &str = "x-callboard-misdirected";
/// The header of a response: this node runs the app, and no instance of it serves now. The request may have come here
/// because of that, in place of the node that was to answer it.
pub(super) const NO_INSTANCE: &str = "x-callboard-no-instance";
/// How far the clocks of two nodes may be apart, in seconds.
const SKEW: u64 = 120;
/// Shortest interval of the warning about clocks, in seconds.
const WARNED_EVERY: u64 = 60;

/// The router's view of other nodes.
pub(super) struct Hops {
    pub(super) members: Members,
    key: Hmac<Sha256>,
    /// When the log last warned about clocks.
    warned: AtomicU64,
}

/// The sender of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    /// A node of the cluster, whose clock or ours is wrong, or a replay of such a request: it is neither forwarded
    /// again nor trusted.
    LateNode,
    /// A node of the cluster has forwarded it just now.
    Node,
}

impl Hops {
    pub(super) fn new(members: Members, key: &[u8]) -> Result<Self, String> {
        // A key for this use alone, so that no signature for another is valid here.
        let mut derived: Hmac<Sha256> = Hmac::new_from_slice(key).map_err(|error| error.to_string())?;
        derived.update(b"callboard router hop");
        let derived = derived.finalize().into_bytes();
        let key = Hmac::new_from_slice(&derived).map_err(|error| error.to_string())?;
        Ok(Self { members, key, warned: AtomicU64::new(0) })
    }

    fn over(&self, to: Uuid, seconds: u64, head: &RequestHead, host: &str) -> Hmac<Sha256> {
        let mut mac = self.key.clone();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        for part in [to.to_string().as_str(), &seconds.to_string(), head.method.as_str(), host, target] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }

    /// The header's value for a request that is forwarded to this node.
    pub(super) fn sign(&self, to: Uuid, head: &RequestHead, host: &str) -> String {
        self.sign_at(now(), to, head, host)
    }

    pub(super) fn sign_at(&self, seconds: u64, to: Uuid, head: &RequestHead, host: &str) -> String {
        let signature = hex::encode(self.over(to, seconds, head, host).finalize().into_bytes());
        format!("{seconds}.{signature}")
    }

    /// The sender of this request.
    pub(super) fn sender(&self, head: &RequestHead, host: &str) -> Sender {
        let mut values = head.headers.get_all(HOP);
        let (Some(value), None) = (values.next(), values.next()) else { return Sender::Client };
        let parts = value.to_str().ok().and_then(|value| value.split_once('.'));
        let Some((Ok(seconds), Ok(signature))) = parts.map(|(at, mac)| (at.parse::<u64>(), hex::decode(mac))) else {
            return Sender::Client;
        };
        let mac = self.over(self.members.me().0, seconds, head, host);
        if mac.verify_slice(&signature).is_err() {
            return Sender::Client;
        }
        let now = now();
        if seconds.abs_diff(now) <= SKEW {
            return Sender::Node;
        }
        let warned = self.warned.load(Ordering::Relaxed);
        let is_due = now.saturating_sub(warned) >= WARNED_EVERY;
        if is_due && self.warned.compare_exchange(warned, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let seconds = seconds.abs_diff(now);
            tracing::warn!(seconds, "another node's request was not believed: its clock and ours are too far apart");
        }
        Sender::LateNode
    }
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
