//! The node among others.

use callboard_messages::Secret;
use url::Url;

use super::{Mode, reader::Reader, value::Value};
use crate::domains;

/// What tells a node of a cluster from the others, and what it hosts.
#[derive(Debug)]
pub struct ClusterChoice {
    /// `CALLBOARD_DOMAINS`.
    pub domains: Hosted,
    /// `CALLBOARD_NODE_NAME`.
    pub name: Option<String>,
    /// `CALLBOARD_ADVERTISE_URL`: where other nodes reach this one.
    pub advertise_url: Option<Url>,
    /// `CALLBOARD_CLUSTER_KEY`, or `_FILE`: by it the nodes know each other.
    pub key: Option<Secret>,
    /// `CALLBOARD_CLUSTER_KEY_FORMER`, or `_FILE`: the key before it, while the key is changed.
    pub key_former: Option<Secret>,
}

/// The domains that a node hosts, as an operator writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosted {
    /// `all`.
    All,
    /// `none`: a gateway alone.
    None,
    /// `auth,project`.
    Only(Vec<String>),
    /// `all-but:deploy,project`.
    AllBut(Vec<String>),
}

/// Before the domains that are left to other nodes.
const ALL_BUT: &str = "all-but:";

impl Value for Hosted {
    fn parse(text: &str) -> Result<Self, String> {
        let (text, is_all_but) = match text.trim().strip_prefix(ALL_BUT) {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let named = Vec::<String>::parse(text)?;
        match (named.as_slice(), is_all_but) {
            ([], _) => Err("all, none, a list of domains, or all-but: and a list of domains".to_owned()),
            (_, true) => Ok(Self::AllBut(named)),
            ([only], false) if only == "all" => Ok(Self::All),
            ([only], false) if only == "none" => Ok(Self::None),
            (_, false) => Ok(Self::Only(named)),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::None => "none".to_owned(),
            Self::Only(named) => named.join(","),
            Self::AllBut(named) => format!("{ALL_BUT}{}", named.join(",")),
        }
    }
}

impl Hosted {
    /// The domains that are named, to be hosted or to be left out.
    fn named(&self) -> &[String] {
        match self {
            Self::All | Self::None => &[],
            Self::Only(named) | Self::AllBut(named) => named,
        }
    }

    fn has(&self, domain: &str) -> bool {
        let is_named = self.named().iter().any(|named| named == domain);
        match self {
            Self::All => true,
            Self::None => false,
            Self::Only(_) => is_named,
            Self::AllBut(_) => !is_named,
        }
    }
}

impl ClusterChoice {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let choice = Self {
            domains: reader.value(
                "CALLBOARD_DOMAINS",
                "serve: the domains that this node hosts: all, a list such as auth,project, all-but:deploy, or none, which is a gateway alone; callboard domains lists them.",
                Hosted::All,
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
        for domain in choice.domains.named().iter().filter(|domain| !domains::names().any(|name| name == *domain)) {
            let known: Vec<&str> = domains::names().collect();
            reader.require(false, || {
                format!("CALLBOARD_DOMAINS has {domain:?}, but the domains are {}; or all, or none", known.join(", "))
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

    /// The domains that this node hosts, of which a node alone has all.
    pub fn hosted(&self, mode: Mode) -> Vec<String> {
        let is_hosted = |domain: &&str| mode == Mode::Dev || self.domains.has(domain);
        domains::names().filter(is_hosted).map(str::to_owned).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_named_to_be_hosted_or_to_be_left_to_other_nodes() {
        let all: Vec<&str> = domains::names().collect();
        let but = |left: &[&str]| all.iter().copied().filter(|name| !left.contains(name)).collect::<Vec<_>>();
        let cases = [
            ("all", "all", all.clone()),
            (" none ", "none", Vec::new()),
            ("deploy,", "deploy", vec!["deploy"]),
            ("deploy, auth", "deploy,auth", vec!["auth", "deploy"]),
            ("all-but:deploy", "all-but:deploy", but(&["deploy"])),
            ("all-but:deploy,auth", "all-but:deploy,auth", but(&["auth", "deploy"])),
        ];
        for (text, shown, expected) in cases {
            let hosted = Hosted::parse(text).unwrap();
            assert_eq!(hosted.show(), shown);
            assert_eq!(Hosted::parse(shown).unwrap(), hosted);
            assert_eq!(domains::names().filter(|name| hosted.has(name)).collect::<Vec<_>>(), expected, "{text}");
        }
        for wrong in ["", ",", "all-but:", "all-but: ,"] {
            assert!(Hosted::parse(wrong).is_err(), "{wrong}");
        }
        // Told as unknown domains.
        for strange in ["none,auth", "auth,all", "auth,all-but:deploy", "all-but:none"] {
            let known = |named: &String| domains::names().any(|name| name == named);
            assert!(!Hosted::parse(strange).unwrap().named().iter().all(known), "{strange}");
        }
    }
}
