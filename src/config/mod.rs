//! Configuration: one file per feature, read whole and checked whole before anything starts.
//!
//! `docs/configuration.md` lists every setting; a test keeps it complete.

mod auth;
mod database;
mod deploy;
mod gateway;
mod node;
mod reader;
mod value;

pub use auth::AuthChoice;
pub use database::DatabaseChoice;
pub use deploy::DeployChoice;
pub use node::NodeSettings;
pub use reader::Entry;

use std::path::Path;

use callboard_http::{GatewaySettings, router};
use reader::Reader;

use crate::{
    cli::Globals,
    error::{Error, Result},
};

/// All that a node is told.
#[derive(Debug)]
pub struct Settings {
    /// The node itself: folder, log, master key.
    pub node: NodeSettings,
    /// Where data is kept.
    pub database: DatabaseChoice,
    /// The API and the pages.
    pub gateway: GatewaySettings,
    /// The apps' traffic.
    pub router: router::Settings,
    /// Accounts and sessions.
    pub auth: AuthChoice,
    /// Building and running apps.
    pub deploy: DeployChoice,
}

impl Settings {
    /// From the flags, the environment and the file; with every setting as it is shown.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn read(globals: &Globals, flags: &[(&'static str, String)]) -> Result<(Self, Vec<Entry>)> {
        let data = globals.data.as_ref().map(|data| ("CALLBOARD_DATA", data.display().to_string()));
        let flags = flags.iter().cloned().chain(data);
        Self::from_sources(flags, std::env::vars(), globals.config.as_deref())
    }

    fn from_sources(
        flags: impl IntoIterator<Item = (&'static str, String)>,
        environment: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<(Self, Vec<Entry>)> {
        let mut reader = Reader::new(flags, environment, file);
        let node = NodeSettings::read(&mut reader);
        let database = DatabaseChoice::read(&mut reader);
        let (gateway, router) = gateway::read(&mut reader);
        let auth = AuthChoice::read(&mut reader);
        let deploy = DeployChoice::read(&mut reader);
        let settings = Self { node, database, gateway, router, auth, deploy };
        match reader.finish() {
            Ok(entries) => Ok((settings, entries)),
            Err(errors) => Err(wrong(&errors)),
        }
    }
}

fn wrong(errors: &[String]) -> Error {
    let sentence = match errors {
        [only] => format!("the configuration is wrong: {only}"),
        several => format!("the configuration is wrong:\n  - {}", several.join("\n  - ")),
    };
    Error::usage(sentence).hint("callboard config --explain tells what each setting is for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_a_valid_configuration() {
        let (settings, entries) = Settings::from_sources([], [], None).unwrap();
        assert_eq!(settings.gateway.listen.port(), 8080);
        assert!(entries.iter().all(|entry| entry.variable.starts_with("CALLBOARD_") && !entry.about.is_empty()));
    }

    #[test]
    fn every_setting_is_documented() {
        let (_, entries) = Settings::from_sources([], [], None).unwrap();
        let documented = include_str!("../../docs/configuration.md");
        let missing: Vec<_> = entries
            .iter()
            .filter(|entry| !documented.contains(&format!("`{}`", entry.variable)))
            .map(|e| e.variable)
            .collect();
        assert!(missing.is_empty(), "docs/configuration.md does not tell of {missing:?}");
    }

    #[test]
    fn mistakes_of_every_feature_are_told_at_once() {
        let environment = [
            ("CALLBOARD_LISTEN", "nowhere"),
            ("CALLBOARD_CORS_ORIGINS", "*"),
            ("CALLBOARD_BASE_DOMAIN", "a:b"),
            ("CALLBOARD_DATABASE_URL", "mysql://x"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let error = Settings::from_sources([], environment, None).unwrap_err();
        assert_eq!(error.sentence.matches("\n  - ").count(), 4, "{}", error.sentence);
    }
}
