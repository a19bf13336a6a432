//! The master key, which wraps every project's data key: from the configuration, or from a file in the data folder that
//! the first start creates.

use std::{fs, path::Path};

use callboard_messages::Secret;
use callboard_supervisors::seal::MasterKey;

use crate::{
    client::contexts::{is_private, write_private},
    error::{Context, Error, Result},
};

/// The key, and whether it was created just now: then this is the data folder's first start.
pub fn load(configured: Option<&Secret>, data: &Path) -> Result<(MasterKey, bool)> {
    if let Some(secret) = configured {
        let key = MasterKey::from_base64(secret.expose())
            .map_err(|error| Error::usage(format!("CALLBOARD_MASTER_KEY is not usable: {error}")))?;
        return Ok((key, false));
    }
    let path = data.join("master.key");
    match fs::read_to_string(&path) {
        Ok(text) => read(&text, &path).map(|key| (key, false)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = MasterKey::generate().context(|| "make a master key".to_owned())?;
            write_private(&path, format!("{}\n", key.to_base64().expose()).as_bytes())
                .context(|| format!("write {}", path.display()))?;
            Ok((key, true))
        }
        Err(error) => Err(Error::failure(format!("could not read {}: {error}", path.display()))),
    }
}

fn read(text: &str, path: &Path) -> Result<MasterKey> {
    let path_shown = path.display();
    if !is_private(path) {
        return Err(Error::failure(format!("{path_shown} can be read by others, so it is no secret"))
            .hint(format!("chmod 600 {path_shown}, and make sure that it is yours")));
    }
    MasterKey::from_base64(text).map_err(|error| {
        Error::failure(format!("{path_shown} is damaged: {error}"))
            .hint("restore it from a backup: without it the secrets of the apps can't be read")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(loaded: (MasterKey, bool)) -> (String, bool) {
        (loaded.0.to_base64().expose().to_owned(), loaded.1)
    }

    #[test]
    fn the_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (key, made) = text(load(None, folder.path()).unwrap());
        assert!(made);
        assert_eq!(text(load(None, folder.path()).unwrap()), (key, false));
        fs::write(folder.path().join("master.key"), "short").unwrap();
        assert!(load(None, folder.path()).err().unwrap().sentence.contains("is damaged"));
    }

    #[test]
    fn a_configured_key_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let key = MasterKey::generate().unwrap().to_base64();
        assert_eq!(text(load(Some(&key), folder.path()).unwrap()), (key.expose().to_owned(), false));
        assert!(load(Some(&Secret::new("x")), folder.path()).is_err());
    }
}
