//! `callboard env`.

use std::io::Read;

use callboard_messages::project::Environment;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    cli::{AppArgs, session::Session},
    error::{Error, Result},
    output::table,
};

#[derive(Debug, Args)]
pub struct Env {
    #[command(subcommand)]
    verb: EnvVerb,
}

#[derive(Debug, Subcommand)]
enum EnvVerb {
    /// Set variables: `env set NAME=value OTHER=value`; they apply from the next deploy or restart on
    Set {
        /// `NAME=value`; `NAME=-` reads the value from standard input
        #[arg(required = true, value_name = "NAME=VALUE")]
        variables: Vec<String>,
        /// Keep the values readable instead of sealing them as secrets
        #[arg(long)]
        plain: bool,
        #[command(flatten)]
        app: AppArgs,
    },
    /// Remove variables
    Unset {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        app: AppArgs,
    },
    /// List the variables; the values of secrets are never shown
    List {
        #[command(flatten)]
        app: AppArgs,
    },
}

impl Env {
    pub async fn run(self, session: &Session) -> Result {
        let (app, change) = match self.verb {
            EnvVerb::Set { variables, plain, app } => (app, Change::Set(variables, plain)),
            EnvVerb::Unset { names, app } => (app, Change::Unset(names)),
            EnvVerb::List { app } => (app, Change::None),
        };
        let change = change.read()?;
        let project = session.app(&app).await?;
        let path = format!("/projects/{}/env", project.id);
        let environment: Environment = match change {
            Change::Set(pairs, plain) => {
                let variables: Vec<_> = pairs
                    .iter()
                    .filter_map(|pair| pair.split_once('='))
                    .map(|(name, value)| json!({ "name": name, "value": value, "secret": !plain }))
                    .collect();
                session.client.put(&path, &json!({ "variables": variables })).await?
            }
            Change::Unset(names) => {
                let mut environment = None;
                for name in names {
                    let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
                    environment = Some(session.client.delete(&format!("{path}/{name}")).await?);
                }
                environment.ok_or_else(|| Error::usage("say which variables"))?
            }
            Change::None => {
                let environment: Environment = session.client.get(&path).await?;
                session.output.show(&environment, list);
                return Ok(());
            }
        };
        session.output.show(&environment, |environment| {
            format!(
                "{}\nThis applies from the next deploy or restart on: callboard restart --app {}",
                list(environment),
                project.name
            )
        });
        Ok(())
    }
}

enum Change {
    Set(Vec<String>, bool),
    Unset(Vec<String>),
    None,
}

impl Change {
    fn read(self) -> Result<Self> {
        let Self::Set(mut pairs, plain) = self else { return Ok(self) };
        for pair in &mut pairs {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(Error::usage(format!("{pair} has no value")).hint("write it as NAME=value"));
            };
            if value == "-" {
                let mut input = String::new();
                std::io::stdin()
                    .read_to_string(&mut input)
                    .map_err(|error| Error::failure(format!("could not read the value of {name}: {error}")))?;
                *pair = format!("{name}={}", input.trim_end_matches('\n'));
            }
        }
        Ok(Self::Set(pairs, plain))
    }
}

fn list(environment: &Environment) -> String {
    match environment.variables.as_slice() {
        [] => "There are no variables.".to_owned(),
        variables => table(
            ["NAME", "VALUE"],
            variables.iter().map(|v| [v.name.clone(), v.value.clone().unwrap_or_else(|| "(secret)".to_owned())]),
        )
        .trim_end()
        .to_owned(),
    }
}
