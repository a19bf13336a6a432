//! Checks of the servers that a node of a cluster depends on, before anything starts, so that all mistakes are reported
//! at once.
//!
//! A server that refuses this node, or can never have worked, is a mistake in the configuration. Redis and RabbitMQ,
//! which a node can do without for a while, may also just be away: that is no reason not to start once a node of this
//! folder has reached them.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc, time::Duration};

use callboard_bridge::{Bridge, BridgeSettings};
use callboard_cache::Cache;
use callboard_messages::Secret;
use callboard_supervisors::{Backoff, Clock, db::Databases, retry};
use object_store::ObjectStore;
use sha2::{Digest, Sha256};
use tokio::{net::TcpStream, time::Instant};
use url::Url;

use super::objects;
use crate::{
    client::contexts::write_private,
    config::{Mode, Settings},
    domains,
    error::{Context, Result},
};

/// The servers that this folder's nodes have reached, by the hashes of their URLs.
const REACHED: &str = "servers.json";
/// How long an unresponsive server is awaited: those that start with the node may need a moment.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(500);
/// Time limit of a port to accept a connection.
const ANSWER: Duration = Duration::from_secs(2);

/// The outcome of a failed check.
enum Look {
    Good,
    /// It answers, and refuses.
    Refused(String),
    /// It is not the expected server.
    Untrusted(String),
    /// It does not answer.
    Away(String),
}

/// What the checks have opened.
pub struct Opened {
    /// The bridge to the other nodes.
    pub bridge: Option<Bridge>,
    /// Sources and releases.
    pub objects: Option<Arc<dyn ObjectStore>>,
    /// The servers that answer now, or did once.
    pub reached: Reached,
}

/// Checks all servers at the same time; a sentence for every mistake.
pub async fn look(
    settings: &Settings,
    data: &Path,
    databases: &Databases,
    cache: &Cache,
    bridge: BridgeSettings,
) -> (Opened, Vec<String>) {
    let mut reached = Reached::read(data);
    let mut wrong = Vec::new();
    let hosted = settings.cluster.hosted(Mode::Serve);
    let domains = domains::stores_of(&hosted).map(|store| store.name);
    let postgres = futures_util::future::join_all(domains.map(|domain| postgres(settings, databases, domain)));
    let (knows_redis, knows_rabbitmq) =
        (reached.has(settings.servers.redis_url.as_ref()), reached.has(settings.servers.amqp_url.as_ref()));
    let redis = patiently(knows_redis, async || match cache.check().await {
        Ok(()) => Look::Good,
        Err(callboard_cache::CheckError::Refused(reason)) => Look::Refused(reason),
        Err(callboard_cache::CheckError::Untrusted(reason)) => Look::Untrusted(reason),
        Err(callboard_cache::CheckError::Unreachable(reason)) => Look::Away(reason),
    });
    let objects = objects::open(&settings.objects, data);
    let (postgres, replica, redis, (rabbitmq, bridge), objects) =
        tokio::join!(postgres, databases.check_replica(), redis, rabbitmq(knows_rabbitmq, bridge), objects);

    let mut told = BTreeSet::new();
    wrong.extend(postgres.into_iter().flatten().filter(|sentence| told.insert(sentence.clone())));
    match replica {
        Ok(()) => {}
        Err(error) if error.is_refusal() => wrong.push(format!(
            "the replica of PostgreSQL refuses this node: {error}; correct the user, password or database in \
             CALLBOARD_DATABASE_READ_URL"
        )),
        // The primary answers meanwhile.
        Err(error) => tracing::warn!("the replica of PostgreSQL can't be reached now: {error}"),
    }
    let others = [
        ("Redis", "CALLBOARD_REDIS_URL", &settings.servers.redis_url, redis),
        ("RabbitMQ", "CALLBOARD_AMQP_URL", &settings.servers.amqp_url, rabbitmq),
    ];
    for (server, variable, url, look) in others {
        match look {
            Look::Good => reached.add(url.as_ref()),
            Look::Refused(reason) => wrong.push(format!(
                "{server} refuses this node: {reason}; correct the user, password or place in {variable}"
            )),
            Look::Untrusted(reason) => wrong.push(format!(
                "{server} shows a certificate that this node does not trust: {reason}; correct the certificate, or the \
                 host in {variable}, or name the authority's certificate in SSL_CERT_FILE"
            )),
            Look::Away(reason) if reached.has(url.as_ref()) => {
                tracing::warn!(
                    "{server} can't be reached now, and this node goes on without it until it can: {reason}"
                );
            }
            Look::Away(reason) => wrong.push(format!(
                "{server} can't be reached: {reason}; start it, or correct the host and port in {variable}"
            )),
        }
    }
    let objects = objects.map_err(|error| {
        let hint = error.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        wrong.push(format!("{}{hint}", error.sentence));
    });
    (Opened { bridge, objects: objects.ok(), reached }, wrong)
}

/// The bridge starts also without its broker, so the broker's port is checked beside it.
async fn rabbitmq(is_known: bool, settings: BridgeSettings) -> (Look, Option<Bridge>) {
    let url = Url::parse(settings.url.expose()).ok();
    let look = patiently(is_known, async || {
        let Some((host, port)) = url.as_ref().and_then(|url| Some((url.host_str()?, url.port()))) else {
            return Look::Refused("its URL names no host".to_owned());
        };
        let port = port.unwrap_or(if settings.url.expose().starts_with("amqps") { 5671 } else { 5672 });
        match tokio::time::timeout(ANSWER, TcpStream::connect((host, port))).await {
            Ok(Ok(_)) => Look::Good,
            Ok(Err(error)) => Look::Away(format!("{host}:{port}: {error}")),
            Err(_) => Look::Away(format!("{host}:{port} does not answer")),
        }
    })
    .await;
    if let Look::Refused(_) = look {
        return (look, None);
    }
    match Bridge::start(settings.clone()).await {
        Ok(bridge) => (look, Some(bridge)),
        Err(error) => (Look::Refused(error.to_string()), None),
    }
}

/// The variable with the URL of a domain's database.
pub fn database_variable(settings: &Settings, domain: &str) -> String {
    if settings.database.own_urls.iter().any(|(of, _)| *of == domain) {
        domains::database_variable(domain)
    } else {
        "CALLBOARD_DATABASE_URL".to_owned()
    }
}

async fn postgres(settings: &Settings, databases: &Databases, domain: &str) -> Option<String> {
    let variable = database_variable(settings, domain);
    let deadline = Instant::now() + PATIENCE;
    let check = async || databases.check(domain).await;
    let checked = retry(&Clock::system(), Backoff::constant(PAUSE), check, |error, _| {
        if error.is_refusal() || Instant::now() >= deadline { Err(error) } else { Ok(()) }
    })
    .await;
    let error = checked.err()?;
    let (what, mend) = match error.is_refusal() {
        true => ("refuses this node", "correct the user, password or database"),
        false => ("can't be reached", "start it, or correct the host and port"),
    };
    Some(format!("PostgreSQL {what}: {error}; {mend} in {variable}"))
}

/// Repeats a check for a while without an answer, unless the server has answered before: then it is just away.
async fn patiently(is_known: bool, look: impl AsyncFn() -> Look) -> Look {
    let deadline = Instant::now() + if is_known { Duration::ZERO } else { PATIENCE };
    loop {
        match look().await {
            Look::Away(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            other => return other,
        }
    }
}

/// The servers that were reached, by hash.
#[derive(Default)]
pub struct Reached(BTreeSet<String>);

impl Reached {
    /// A file that is missing or unreadable counts as empty.
    fn read(data: &Path) -> Self {
        let text = fs::read_to_string(data.join(REACHED)).unwrap_or_default();
        Self(serde_json::from_str(&text).unwrap_or_default())
    }

    fn has(&self, url: Option<&Secret>) -> bool {
        url.is_some_and(|url| self.0.contains(&hash(url)))
    }

    fn add(&mut self, url: Option<&Secret>) {
        self.0.extend(url.map(hash));
    }

    /// Writes them for the next start.
    pub fn write(&self, data: &Path) -> Result {
        let path = data.join(REACHED);
        let text = serde_json::to_vec(&self.0).context(|| "write down which servers were reached".to_owned())?;
        write_private(&path, &text).context(|| format!("write {}", path.display()))
    }
}

/// The URL holds a password, so it is not written down.
fn hash(url: &Secret) -> String {
    hex::encode(Sha256::digest(url.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_was_reached_once_is_remembered_and_its_password_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let url = Secret::new("redis://user:hunter2@host");
        let mut reached = Reached::read(folder.path());
        assert!(!reached.has(Some(&url)));
        reached.add(Some(&url));
        reached.write(folder.path()).unwrap();
        assert!(Reached::read(folder.path()).has(Some(&url)));
        assert!(!Reached::read(folder.path()).has(Some(&Secret::new("redis://other"))));
        assert!(!fs::read_to_string(folder.path().join(REACHED)).unwrap().contains("hunter2"));
    }
}
