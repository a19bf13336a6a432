//! `callboard login` and `callboard logout`: saved contexts.

use std::io::{BufRead, IsTerminal};

use callboard_messages::{
    Secret,
    auth::{Identity, Tokens},
};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use url::Url;

use crate::{
    cli::Globals,
    client::{
        Client, Credential,
        contexts::{self, SavedContext},
        target,
    },
    error::{Error, Result, Status},
    output::{self, Output, complain},
};

#[derive(Debug, Args)]
pub struct Login {
    /// Where the node is
    #[arg(default_value = "http://localhost:8080", env = "CALLBOARD_URL")]
    url: String,
    /// The e-mail address of the account; asked for when absent
    #[arg(long)]
    email: Option<String>,
    /// An API key instead of e-mail and password; `-` reads it from standard input
    #[arg(long, conflicts_with = "email")]
    token: Option<String>,
    /// The context's name; default: the node's host
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    context: String,
    node: Url,
    email: String,
}

impl Login {
    pub async fn run(self, output: Output) -> Result {
        let url = target::parse_url(&self.url)?;
        let host = url.host_str().unwrap_or("node");
        let name = self.name.clone().unwrap_or_else(|| match url.port() {
            Some(port) => format!("{host}-{port}"),
            None => host.to_owned(),
        });
        let saved = match &self.token {
            Some(token) => with_key(name, url.clone(), token).await?,
            None => self.with_password(name, url.clone()).await?,
        };
        let client = Client::new(url.clone(), Credential::Session(saved.clone()))?;
        let identity: Identity = client.get("/auth/whoami").await?;

        let mut all = contexts::load()?;
        all.current = Some(saved.name.clone());
        all.contexts.insert(saved.name.clone(), saved.clone());
        contexts::save(&all)?;
        let answer = Answer { context: saved.name, node: url, email: identity.account.email };
        output.show(&answer, |a| format!("Signed in to {} as {}; saved as the context {}", a.node, a.email, a.context));
        Ok(())
    }

    async fn with_password(&self, name: String, url: Url) -> Result<SavedContext> {
        let email = match &self.email {
            Some(email) => email.clone(),
            None => ask("E-mail: ")?,
        };
        let password = ask_password()?;
        let client = Client::new(url.clone(), Credential::None)?;
        let body = match contexts::load()?.device(&url, &email) {
            Some(device) => json!({ "email": email, "password": password, "device": device }),
            // A node that has never given one may not know the field.
            None => json!({ "email": email, "password": password }),
        };
        let tokens: Tokens = client.post("/auth/login", &body).await.map_err(|error| match error.status {
            Status::NotSignedIn => Error { hint: None, ..error },
            _ => error,
        })?;
        let mut saved =
            SavedContext { name, url, access_token: Secret::new(""), refresh_token: None, expires_at: None };
        saved.take(&tokens);
        if let Some(device) = tokens.device {
            let mut all = contexts::load()?;
            all.remember_device(&saved.url, &email, device);
            contexts::save(&all)?;
        }
        Ok(saved)
    }
}

async fn with_key(name: String, url: Url, token: &str) -> Result<SavedContext> {
    let token = if token == "-" { read_line()? } else { token.to_owned() };
    Ok(SavedContext { name, url, access_token: Secret::new(token), refresh_token: None, expires_at: None })
}

fn ask(question: &str) -> Result<String> {
    if std::io::stdin().is_terminal() {
        output::question(question);
    }
    read_line()
}

fn ask_password() -> Result<Secret> {
    let password = match std::io::stdin().is_terminal() {
        true => rpassword::prompt_password("Password: ")
            .map_err(|error| Error::failure(format!("could not read the password: {error}")))?,
        false => read_line()?,
    };
    Ok(Secret::new(password))
}

fn read_line() -> Result<String> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(0) => {
            Err(Error::usage("standard input has ended")
                .hint("type the answer, or send one line each: e-mail, password"))
        }
        Ok(_) => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(Error::failure(format!("could not read standard input: {error}"))),
    }
}

#[derive(Debug, Args)]
pub struct Logout {}

impl Logout {
    pub async fn run(self, globals: &Globals, output: Output) -> Result {
        let mut all = contexts::load()?;
        let name = globals.context.clone().or_else(|| all.current.clone());
        let Some(saved) = name.as_ref().and_then(|name| all.contexts.remove(name)) else {
            return Err(Error::new(Status::NotSignedIn, "there is no such saved context"));
        };
        if all.current == name {
            all.current = None;
        }
        if saved.refresh_token.is_some() {
            let client = Client::new(saved.url.clone(), Credential::Session(saved.clone()))?;
            // A session that the node no longer knows, or a node that is gone, is forgotten all the same.
            if let Err(error) = client.post::<serde_json::Value>("/auth/logout", &json!({})).await {
                complain(&format!("warning: the session could not be ended on the node: {}", error.sentence));
            }
        }
        contexts::save(&all)?;
        output.show(&json!({ "context": saved.name }), |_| format!("Forgot the context {}", saved.name));
        Ok(())
    }
}
