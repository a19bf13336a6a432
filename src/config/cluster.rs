//! The node among others.

use callboard_messages::Secret;
use url::Url;

use super::reader::Reader;

/// What tells a node of a cluster from the others, and what it hosts.
#[derive(Debug)]
pub struct ClusterChoice {
    /// `CALLBOARD_DOMAINS`: all unless told.
    pub domains: Vec<String>,
    /// `CALLBOARD_NODE_NAME`.
    pub name: Option<String>,
    /// `CALLBOARD_ADVERTISE_URL`: where other nodes reach this one.
    pub advertise_url: Option<Url>,
    /// `CALLBOARD_CLUSTER_KEY`, or `_FILE`: by it the nodes know each other.
    pub key: Option<Secret>,
    /// `CALLBOARD_CLUSTER_KEY_FORMER`, or `_FILE`: the key before it, while the key is changed.
    pub key_former: Option<Secret>,
}

/// Every domain that a node may host or leave to others. `cluster` is on each.
pub const DOMAINS: [&str; 4] = ["auth", "organization", "project", "deploy"];

impl ClusterChoice {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let choice = Self {
            domains: reader.value(
                "CALLBOARD_DOMAINS",
                "serve: the domains that this node hosts, of auth, organization, project and deploy; none is a gateway alone.",
                DOMAINS.map(str::to_owned).to_vec(),
            ),
            name: reader.value(
                "CALLBOARD_NODE_NAME",
                "serve: what people call this node; its host name and port when not set.",
                None,
            ),
            advertise_url: reader.value(
                "CALLBOARD_ADVERTISE_URL",
                "serve: where the other nodes reach this one, such as http://10.0.0.7:8080; the address it listens on when not set.",
                None,
            ),
            key: reader.secret(
                "CALLBOARD_CLUSTER_KEY",
                "serve: at least 32 characters, the same on every node; what they tell each other is signed with it.",
            ),
            key_former: reader.secret(
                "CALLBOARD_CLUSTER_KEY_FORMER",
                "serve: the cluster key before this one, when it was changed: events that it signed are still believed.",
            ),
        };
        for domain in choice.domains.iter().filter(|domain| !DOMAINS.contains(&domain.as_str())) {
            reader.require(domain == "none" && choice.domains.len() == 1, || {
                format!("CALLBOARD_DOMAINS has {domain:?}, but the domains are {}; or none", DOMAINS.join(", "))
            });
        }
        reader.require(choice.advertise_url.as_ref().is_none_or(is_reachable), || {
            "CALLBOARD_ADVERTISE_URL must be http://<host>:<port>, without a path".to_owned()
        });
        reader.require(choice.name.as_ref().is_none_or(|name| is_name(name)), || {
            "CALLBOARD_NODE_NAME must be 1 to 100 letters, digits, '.', ':', '_' and '-'".to_owned()
        });
        for (variable, key) in
            [("CALLBOARD_CLUSTER_KEY", &choice.key), ("CALLBOARD_CLUSTER_KEY_FORMER", &choice.key_former)]
        {
            reader.require(key.as_ref().is_none_or(|key| key.expose().len() >= 32), || {
                format!("{variable} must have at least 32 characters: openssl rand -base64 32")
            });
        }
        choice
    }

    /// The domains that this node hosts.
    pub fn hosted(&self) -> Vec<String> {
        DOMAINS
            .into_iter()
            .filter(|domain| self.domains.iter().any(|named| named == domain))
            .map(str::to_owned)
            .collect()
    }
}

/// The proxy between the nodes speaks HTTP/1.1 without TLS: they are on a network of their own.
fn is_reachable(url: &Url) -> bool {
    url.scheme() == "http" && url.host().is_some() && url.path() == "/" && url.query().is_none()
}

fn is_name(name: &str) -> bool {
    let spelt = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '_' | '-');
    (1..=100).contains(&name.len()) && name.chars().all(spelt)
}
