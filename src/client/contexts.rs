//! Saved contexts: the nodes a person has signed in to, in `~/.config/callboard/contexts.toml`, for its owner only.
//!
//! Beside them stands by what each node knows this device, which outlives the sessions: a device that an account knows
//! waits for no stranger when it signs in.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use callboard_messages::{Secret, auth::Tokens};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::{Context, Error, Result};

/// An access token is renewed when it has less than this left.
const MARGIN_SECONDS: u64 = 30;

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Contexts {
    /// The one that is used when nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, SavedContext>,
    /// One for each account of a node that has signed in here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    devices: Vec<Device>,
}

/// What this device shows when an account signs in.
#[derive(Debug, Serialize, Deserialize)]
struct Device {
    url: Url,
    email: String,
    token: Secret,
}

impl Device {
    fn is_of(&self, url: &Url, email: &str) -> bool {
        self.url == *url && self.email.eq_ignore_ascii_case(email)
    }
}

impl Contexts {
    /// What this device shows when this account signs in at this node, if it has done so before.
    pub fn device(&self, url: &Url, email: &str) -> Option<&Secret> {
        self.devices.iter().find(|device| device.is_of(url, email)).map(|device| &device.token)
    }

    /// Keeps it for the next time.
    pub fn remember_device(&mut self, url: &Url, email: &str, token: Secret) {
        self.devices.retain(|device| !device.is_of(url, email));
        self.devices.push(Device { url: url.clone(), email: email.to_owned(), token });
    }
}

/// A node and the credential for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedContext {
    /// Its name; not in the file, where it is the key.
    #[serde(skip)]
    pub name: String,
    /// Where the node is.
    pub url: Url,
    /// An access token, or an API key when there is no refresh token.
    pub access_token: Secret,
    /// Renews the access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Secret>,
    /// Unix time at which the access token expires; an API key has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

impl SavedContext {
    /// Whether the access token should be renewed before it is used.
    pub fn expires_soon(&self) -> bool {
        self.expires_at.is_some_and(|at| at < now() + MARGIN_SECONDS)
    }

    /// Holds these tokens from now on.
    pub fn take(&mut self, tokens: &Tokens) {
        self.access_token = tokens.access_token.clone();
        self.refresh_token = Some(tokens.refresh_token.clone());
        self.expires_at = Some(now() + tokens.expires_in);
    }
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `$XDG_CONFIG_HOME/callboard/contexts.toml`, or below `~/.config`.
pub fn path() -> Result<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".config")))
        .ok_or_else(|| Error::usage("there is no home folder; set HOME or XDG_CONFIG_HOME"))?;
    Ok(folder.join("callboard/contexts.toml"))
}

/// What is saved; nothing when there is no file.
pub fn load() -> Result<Contexts> {
    let path = path()?;
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Contexts::default()),
        Err(error) => return Err(Error::failure(format!("could not read {}: {error}", path.display()))),
    };
    let mut contexts: Contexts = toml::from_str(&text).map_err(|error| {
        Error::usage(format!("{} is damaged: {}", path.display(), error.message()))
            .hint("mend it, or remove it and sign in again")
    })?;
    for (name, context) in &mut contexts.contexts {
        context.name.clone_from(name);
    }
    Ok(contexts)
}

/// Writes a context under its name; others stay.
pub fn store(context: &SavedContext) -> Result {
    let mut contexts = load()?;
    contexts.contexts.insert(context.name.clone(), context.clone());
    save(&contexts)
}

/// Replaces the file.
pub fn save(contexts: &Contexts) -> Result {
    let path = path()?;
    let text = toml::to_string(contexts).context(|| "write the saved contexts".to_owned())?;
    write_private(&path, text.as_bytes()).context(|| format!("write {}", path.display()))
}

/// Writes a file that only its owner can read, whole or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = folder.join(format!(".{name}.{}", std::process::id()));
    drop(fs::remove_file(&draft));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

/// Whether only its owner can read a file, and the owner is who runs this program.
pub fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs::symlink_metadata(path) else { return false };
    let own = fs::metadata("/proc/self").map_or(true, |process| process.uid() == metadata.uid());
    metadata.is_file() && own && metadata.permissions().mode() & 0o077 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_kept_for_each_account_of_each_node() {
        let [here, there] = ["https://a.example/", "https://b.example/"].map(|url| Url::parse(url).unwrap());
        let mut contexts: Contexts = toml::from_str("").unwrap();
        for (url, email, token) in [
            (&here, "ann@a.example", "1"),
            (&here, "bob@a.example", "2"),
            (&there, "ann@a.example", "3"),
            (&here, "Ann@a.example", "4"),
        ] {
            contexts.remember_device(url, email, Secret::new(token));
        }
        let contexts: Contexts = toml::from_str(&toml::to_string(&contexts).unwrap()).unwrap();
        let kept = |url, email| contexts.device(url, email).map(Secret::expose);
        assert_eq!(kept(&here, "ann@a.example"), Some("4"));
        assert_eq!(kept(&here, "bob@a.example"), Some("2"));
        assert_eq!(kept(&there, "ann@a.example"), Some("3"));
        assert_eq!(kept(&there, "bob@a.example"), None);
        assert_eq!(contexts.devices.len(), 3);
    }

    #[test]
    fn a_private_file_is_replaced_whole_and_read_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.toml");
        write_private(&path, b"1").unwrap();
        write_private(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert!(is_private(&path));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!is_private(&path));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
