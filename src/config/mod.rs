//! Configuration: one file per feature, read whole and checked whole before anything starts.
//!
//! `docs/configuration.md` lists every setting; a test keeps it complete.

mod auth;
mod cluster;
mod database;
mod deploy;
mod gateway;
mod node;
mod objects;
mod reader;
mod servers;
mod telemetry;
mod value;

pub use auth::AuthChoice;
pub use cluster::ClusterChoice;
pub use database::DatabaseChoice;
pub use deploy::DeployChoice;
pub use node::NodeSettings;
pub use objects::{ObjectsChoice, ObjectsLocation};
pub use reader::Entry;
pub use servers::ServersChoice;
pub use telemetry::{LogFormat, TelemetrySettings};

use std::path::{Path, PathBuf};

use callboard_http::{GatewaySettings, router};
use reader::{Reader, is_read};

use crate::{
    cli::Globals,
    domains,
    error::{Error, Result},
};

/// What kind of node the settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A node alone: it needs no server.
    Dev,
    /// One of several: it needs PostgreSQL, Redis, RabbitMQ, a shared object store, and the keys they all have.
    Serve,
}

/// All that a node is told.
#[derive(Debug)]
pub struct Settings {
    /// The node itself: folder, log, master key.
    pub node: NodeSettings,
    /// The node among others.
    pub cluster: ClusterChoice,
    /// Redis and RabbitMQ.
    pub servers: ServersChoice,
    /// The log, and traces.
    pub telemetry: TelemetrySettings,
    /// Where data is kept.
    pub database: DatabaseChoice,
    /// Where sources, releases and logs are kept.
    pub objects: ObjectsChoice,
    /// The API and the pages.
    pub gateway: GatewaySettings,
    /// The apps' traffic.
    pub router: router::Settings,
    /// Accounts and sessions.
    pub auth: AuthChoice,
    /// Building and running apps.
    pub deploy: DeployChoice,
    /// Files that hold secrets, as absolute paths.
    pub private: Vec<PathBuf>,
}

impl Settings {
    /// From the flags, the environment and the file; with every setting as it is shown.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn read(globals: &Globals, flags: &[(&'static str, String)], mode: Mode) -> Result<(Self, Vec<Entry>)> {
        let data = globals.data.as_ref().map(|data| ("CALLBOARD_DATA", data.display().to_string()));
        let flags = flags.iter().cloned().chain(data);
        let mut environment = Vec::new();
        // Other programs' variables may be anything.
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => environment.push((name, value)),
                (Ok(name), Err(_)) if is_read(&name) => return Err(wrong(&[format!("{name} is no UTF-8 text")])),
                _ => {}
            }
        }
        Self::from_sources(flags, environment, globals.config.as_deref(), mode)
    }

    fn from_sources(
        flags: impl IntoIterator<Item = (&'static str, String)>,
        environment: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
        mode: Mode,
    ) -> Result<(Self, Vec<Entry>)> {
        let mut reader = Reader::new(flags, environment, file);
        let node = NodeSettings::read(&mut reader);
        let cluster = ClusterChoice::read(&mut reader);
        let servers = ServersChoice::read(&mut reader);
        let telemetry = TelemetrySettings::read(&mut reader);
        let mut database = DatabaseChoice::read(&mut reader);
        let objects = ObjectsChoice::read(&mut reader);
        let (gateway, router) = gateway::read(&mut reader);
        let auth = AuthChoice::read(&mut reader);
        let deploy = DeployChoice::read(&mut reader);
        database.threads = domains::threads(gateway.workers, &cluster.hosted(mode));
        let private = reader.private();
        let settings =
            Self { node, cluster, servers, telemetry, objects, database, gateway, router, auth, deploy, private };
        settings.servers.check(settings.cluster.key.as_ref(), &mut reader);
        if mode == Mode::Serve {
            settings.require_of_a_cluster(&mut reader);
        }
        match reader.finish() {
            Ok(entries) => Ok((settings, entries)),
            Err(errors) => Err(wrong(&errors)),
        }
    }
}

impl Settings {
    /// What a node can't do without when it is one of several.
    fn require_of_a_cluster(&self, reader: &mut Reader) {
        let needed = [
            (
                &self.database.url,
                "CALLBOARD_DATABASE_URL",
                "a PostgreSQL server, postgres://user:password@host/database",
            ),
            (&self.servers.redis_url, "CALLBOARD_REDIS_URL", "a Redis server, redis://host:6379"),
            (&self.servers.amqp_url, "CALLBOARD_AMQP_URL", "a RabbitMQ server, amqp://user:password@host:5672/%2f"),
            (&self.cluster.key, "CALLBOARD_CLUSTER_KEY", "a key that every node has: openssl rand -base64 32"),
            (&self.node.master_key, "CALLBOARD_MASTER_KEY", "a key that every node has: openssl rand -base64 32"),
        ];
        let listen = self.gateway.listen;
        reader.require(self.cluster.advertise_url.is_some() || !listen.ip().is_unspecified(), || {
            format!("CALLBOARD_ADVERTISE_URL is not set: {listen} does not say where other nodes reach this one")
        });
        reader.require(self.objects.url.is_some() || reader.complains_of("CALLBOARD_OBJECTS_URL"), || {
            "CALLBOARD_OBJECTS_URL is not set: callboard serve needs a store that every node reaches, s3://bucket or \
             file:///folder of a shared disk"
                .to_owned()
        });
        for (value, variable, what) in needed {
            // One that is set and can't be read has its sentence already.
            let is_told = value.is_some() || reader.complains_of(variable);
            reader.require(is_told, || format!("{variable} is not set: callboard serve needs {what}"));
        }
    }
}

/// The refusal to start, with all that is wrong.
pub fn wrong(errors: &[String]) -> Error {
    let sentence = match errors {
        [only] => format!("the configuration is wrong: {only}"),
        several => format!("the configuration is wrong:\n  - {}", several.join("\n  - ")),
    };
    Error::usage(sentence).hint("callboard config --explain tells what each setting is for")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains;

    #[test]
    fn the_defaults_are_a_valid_configuration() {
        let (settings, entries) = Settings::from_sources([], [], None, Mode::Dev).unwrap();
        assert_eq!(settings.gateway.listen.port(), 8080);
        assert!(entries.iter().all(|entry| entry.variable.starts_with("CALLBOARD_") && !entry.about.is_empty()));
    }

    #[test]
    fn every_setting_is_documented() {
        let (_, entries) = Settings::from_sources([], [], None, Mode::Dev).unwrap();
        let documented = include_str!("../../docs/configuration.md");
        let of_domains: Vec<String> = domains::stores().map(|store| domains::database_variable(store.name)).collect();
        let missing: Vec<_> = entries
            .into_iter()
            .map(|entry| entry.variable)
            // One for each domain, told of together.
            .filter(|name| !of_domains.contains(&name.to_string()))
            .chain(["CALLBOARD_<DOMAIN>_DATABASE_URL".into()])
            .filter(|name| !documented.contains(&format!("`{name}`")))
            .collect();
        assert!(missing.is_empty(), "docs/configuration.md does not tell of {missing:?}");
    }

    #[test]
    fn a_node_of_a_cluster_is_told_all_that_it_lacks_at_once() {
        let environment = [("CALLBOARD_DOMAINS", "deploy,shop"), ("CALLBOARD_CLUSTER_KEY", "short")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let error = Settings::from_sources([], environment, None, Mode::Serve).unwrap_err();
        for variable in ["DATABASE_URL", "REDIS_URL", "AMQP_URL", "MASTER_KEY", "DOMAINS", "CLUSTER_KEY"] {
            assert!(error.sentence.contains(&format!("CALLBOARD_{variable} ")), "{variable}: {}", error.sentence);
        }
    }

    #[test]
    fn mistakes_of_every_feature_are_told_at_once() {
        let environment = [
            ("CALLBOARD_LISTEN", "nowhere"),
            ("CALLBOARD_CORS_ORIGINS", "*"),
            ("CALLBOARD_BASE_DOMAIN", "a:b"),
            ("CALLBOARD_DATABASE_URL", "mysql://x"),
            ("CALLBOARD_MASTER_KEY", "x"),
            ("CALLBOARD_REDIS_URL", "redis://host/no-number"),
            ("CALLBOARD_AMQP_URL", "amqp://host:no-port"),
            ("CALLBOARD_AMQP_PREFIX", "two words"),
            ("CALLBOARD_CLUSTER_KEY", "d3JvbmcgY29uZmlndXJhdGlvbnMgYXJlIHRvbGQuLi4="),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let error = Settings::from_sources([], environment, None, Mode::Dev).unwrap_err();
        assert_eq!(error.sentence.matches("\n  - ").count(), 8, "{}", error.sentence);
    }
}
