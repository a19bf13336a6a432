//! The servers that connect the nodes: Redis and RabbitMQ.

use std::time::Duration;

use callboard_bridge::{BridgeSettings, ClusterKey};
use callboard_cache::CacheSettings;
use callboard_messages::Secret;
use uuid::Uuid;

use super::reader::Reader;

/// Where the nodes meet.
#[derive(Debug)]
pub struct ServersChoice {
    /// `CALLBOARD_REDIS_URL`, or `_FILE`.
    pub redis_url: Option<Secret>,
    /// `CALLBOARD_REDIS_PREFIX`: before every key.
    pub redis_prefix: String,
    /// `CALLBOARD_REDIS_TIMEOUT`: of one command.
    pub redis_timeout: Duration,
    /// `CALLBOARD_AMQP_URL`, or `_FILE`.
    pub amqp_url: Option<Secret>,
    /// `CALLBOARD_AMQP_PREFIX`: before the name of every queue and exchange.
    pub amqp_prefix: String,
}

impl ServersChoice {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            redis_url: reader.secret(
                "CALLBOARD_REDIS_URL",
                "serve: a Redis server, redis://user:password@host:6379/0, or rediss:// with TLS.",
            ),
            redis_prefix: reader.value(
                "CALLBOARD_REDIS_PREFIX",
                "serve: before every key in Redis, so that clusters can share a server.",
                "callboard",
            ),
            redis_timeout: reader.within(
                "CALLBOARD_REDIS_TIMEOUT",
                "serve: how long a command to Redis may take before the node goes on without it.",
                Duration::from_millis(100),
                Duration::from_millis(10)..=Duration::from_secs(1),
            ),
            amqp_url: reader.secret(
                "CALLBOARD_AMQP_URL",
                "serve: a RabbitMQ server, amqp://user:password@host:5672/%2f, or amqps:// with TLS.",
            ),
            amqp_prefix: reader.value(
                "CALLBOARD_AMQP_PREFIX",
                "serve: before the name of every queue and exchange, so that clusters can share a virtual host.",
                "callboard",
            ),
        }
    }

    /// The way to Redis.
    pub fn cache(&self) -> CacheSettings {
        CacheSettings {
            prefix: self.redis_prefix.clone(),
            timeout: self.redis_timeout,
            ..CacheSettings::new(self.redis_url.as_ref().map(Secret::expose).unwrap_or_default())
        }
    }

    /// The way to RabbitMQ, for a node that signs with this key.
    pub fn bridge(&self, node: Uuid, name: &str, key: ClusterKey) -> BridgeSettings {
        let url = self.amqp_url.clone().unwrap_or_else(|| Secret::new(""));
        BridgeSettings {
            prefix: self.amqp_prefix.clone(),
            name: format!("callboard {name}"),
            ..BridgeSettings::new(url, node, key)
        }
    }

    /// What is wrong with both, without a look at the servers. Without a key there is no way to RabbitMQ.
    pub(super) fn check(&self, key: Option<&Secret>, reader: &mut Reader) {
        let redis = self.redis_url.as_ref().and_then(|_| self.cache().validate().err());
        let key = key.and_then(|key| ClusterKey::new(key.expose()).ok()).filter(|_| self.amqp_url.is_some());
        let rabbitmq = key.and_then(|key| self.bridge(Uuid::nil(), "", key).validate().err());
        for (settings, wrong) in [("CALLBOARD_REDIS_*", redis), ("CALLBOARD_AMQP_*", rabbitmq)] {
            for sentence in wrong.into_iter().flatten() {
                reader.require(false, || format!("{settings}: {sentence}"));
            }
        }
    }
}
