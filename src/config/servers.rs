//! The servers that connect the nodes: Redis and RabbitMQ.

use std::time::Duration;

use callboard_messages::Secret;

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
        let choice = Self {
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
        };
        let has_scheme = |secret: &Option<Secret>, schemes: &[&str]| {
            secret.as_ref().is_none_or(|secret| schemes.iter().any(|scheme| secret.expose().starts_with(scheme)))
        };
        reader.require(has_scheme(&choice.redis_url, &["redis://", "rediss://", "redis+unix://"]), || {
            "CALLBOARD_REDIS_URL must begin with redis:// or rediss://".to_owned()
        });
        reader.require(has_scheme(&choice.amqp_url, &["amqp://", "amqps://"]), || {
            "CALLBOARD_AMQP_URL must begin with amqp:// or amqps://".to_owned()
        });
        choice
    }
}
