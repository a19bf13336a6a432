//! Which node a verb talks to.
//!
//! In this order: `--context`, `--data`, `CALLBOARD_URL` with `CALLBOARD_TOKEN`, the node on this machine whose
//! `data/cli.json` stands in this folder or one above it, the current saved context. A `cli.json` counts only when it
//! is its reader's own and private: nobody else's folder can send a source elsewhere.

use std::{fs, path::Path};

use callboard_messages::Secret;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Client, Credential, contexts};
use crate::{
    cli::Globals,
    error::{Error, Result, Status},
};

/// The name of the file in the data folder.
pub const LOCAL_FILE: &str = "cli.json";

/// What a node leaves for the command line on its own machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LocalNode {
    /// Where it listens.
    pub url: Url,
    /// The API key of the local operator.
    pub key: Secret,
    /// The node's process.
    pub pid: u32,
}

/// The node and the credential that the options, the environment and the folder name.
pub fn find(globals: &Globals) -> Result<Client> {
    if let Some(name) = &globals.context {
        return saved(name);
    }
    if let Some(data) = &globals.data {
        let path = data.join(LOCAL_FILE);
        let local = read_local(&path)?.ok_or_else(|| {
            Error::new(Status::Unreachable, format!("no node has been started with the data folder {}", data.display()))
                .hint(format!("start one with: callboard dev --data {}", data.display()))
        })?;
        return Client::new(local.url, Credential::Local(local.key, path));
    }
    if let Some(url) = std::env::var("CALLBOARD_URL").ok().filter(|url| !url.is_empty()) {
        let url = parse_url(&url)?;
        let token = std::env::var("CALLBOARD_TOKEN").ok().filter(|token| !token.is_empty());
        return Client::new(url, token.map_or(Credential::None, |token| Credential::Key(Secret::new(token))));
    }
    let here = std::env::current_dir().unwrap_or_default();
    for folder in here.ancestors() {
        let path = folder.join("data").join(LOCAL_FILE);
        if let Some(local) = read_local(&path)? {
            return Client::new(local.url, Credential::Local(local.key, path));
        }
    }
    match contexts::load()?.current {
        Some(name) => saved(&name),
        None => Err(Error::new(Status::NotSignedIn, "there is no node to talk to").hint(
            "start one with `callboard dev`, name its folder with --data, or sign in with `callboard login <url>`",
        )),
    }
}

fn saved(name: &str) -> Result<Client> {
    let mut contexts = contexts::load()?;
    let Some(context) = contexts.contexts.remove(name) else {
        let known: Vec<&str> = contexts.contexts.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none is saved".to_owned() } else { format!("saved: {}", known.join(", ")) };
        return Err(
            Error::usage(format!("there is no context {name}; {known}")).hint("make one with: callboard login <url>")
        );
    };
    Client::new(context.url.clone(), Credential::Session(context))
}

/// The node that wrote this file, when there is one that may be trusted.
pub fn read_local(path: &Path) -> Result<Option<LocalNode>> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(None) };
    if !contexts::is_private(path) {
        let path = path.display();
        return Err(Error::usage(format!("{path} is not private to you, so it is not used"))
            .hint(format!("if it is yours: chmod 600 {path}")));
    }
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::failure(format!("{} is damaged: {error}", path.display())).hint("restart the node"))
}

/// An `http` or `https` URL; `https` when only a host is given, `http` for this machine.
pub fn parse_url(text: &str) -> Result<Url> {
    let local = text.starts_with("localhost") || text.starts_with("127.0.0.1");
    let full = match text {
        _ if text.contains("://") => text.to_owned(),
        _ if local => format!("http://{text}"),
        _ => format!("https://{text}"),
    };
    let url = Url::parse(&full).map_err(|error| Error::usage(format!("{text} is no URL: {error}")))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(Error::usage(format!("{text} is no http or https URL"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_host_is_https_and_this_machine_is_http() {
        assert_eq!(parse_url("callboard.example").unwrap().as_str(), "https://callboard.example/");
        assert_eq!(parse_url("localhost:8080").unwrap().as_str(), "http://localhost:8080/");
        assert!(parse_url("ftp://x").is_err());
    }

    #[test]
    fn a_file_that_others_can_read_is_not_trusted() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOCAL_FILE);
        let node = LocalNode { url: parse_url("localhost:1").unwrap(), key: Secret::new("cb_a_b"), pid: 1 };
        contexts::write_private(&path, &serde_json::to_vec(&node).unwrap()).unwrap();
        assert_eq!(read_local(&path).unwrap().unwrap().key.expose(), "cb_a_b");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read_local(&path).unwrap_err().sentence.contains("not private"));
        assert!(read_local(&folder.path().join("none")).unwrap().is_none());
    }
}
