//! Where sources, releases and logs are kept.

use std::path::{Path, PathBuf};

use callboard_messages::Secret;
use url::Url;

use super::reader::Reader;

/// A folder, or a bucket of an S3-compatible server.
#[derive(Debug, Clone)]
pub struct ObjectsChoice {
    /// `CALLBOARD_OBJECTS_URL`: `file:///folder` or `s3://bucket/prefix`; the data folder unless set.
    pub url: Option<Url>,
    /// `CALLBOARD_OBJECTS_ENDPOINT`: of a server that is not Amazon's.
    pub endpoint: Option<Url>,
    /// `CALLBOARD_OBJECTS_REGION`.
    pub region: String,
    /// `CALLBOARD_OBJECTS_ACCESS_KEY`, or `_FILE`.
    pub access_key: Option<Secret>,
    /// `CALLBOARD_OBJECTS_SECRET_KEY`, or `_FILE`.
    pub secret_key: Option<Secret>,
    /// `CALLBOARD_OBJECTS_PATH_STYLE`: whether the bucket is in the path rather than in the host's name.
    pub path_style: bool,
}

/// Which of them it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectsLocation {
    /// A folder of this machine, or one that it mounts.
    Folder(PathBuf),
    /// A bucket, and what stands before each object's name in it.
    Bucket {
        /// Its name.
        name: String,
        /// Without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl ObjectsChoice {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let url: Option<Url> = reader.value(
            "CALLBOARD_OBJECTS_URL",
            "Where sources, releases and logs are kept: file:///folder or s3://bucket/prefix; the data folder when not set.",
            None,
        );
        let endpoint: Option<Url> = reader.value(
            "CALLBOARD_OBJECTS_ENDPOINT",
            "S3: the server, such as https://minio.example.com:9000; Amazon's when not set.",
            None,
        );
        let has_endpoint = endpoint.is_some();
        let choice = Self {
            url,
            endpoint,
            region: reader.value("CALLBOARD_OBJECTS_REGION", "S3: the region of the bucket.", "us-east-1"),
            access_key: reader.secret(
                "CALLBOARD_OBJECTS_ACCESS_KEY",
                "S3: the id of the access key; without one, the usual AWS_ variables and the machine's or pod's own role are taken.",
            ),
            secret_key: reader.secret("CALLBOARD_OBJECTS_SECRET_KEY", "S3: the secret of the access key."),
            path_style: reader
                .value::<Option<bool>>(
                    "CALLBOARD_OBJECTS_PATH_STYLE",
                    "S3: whether the bucket's name is in the path instead of the host's name; true where an endpoint is named.",
                    None,
                )
                .unwrap_or(has_endpoint),
        };
        choice.check(reader);
        choice
    }

    fn check(&self, reader: &mut Reader) {
        let location = self.url.as_ref().map(location_of).transpose();
        reader.require(location.is_ok(), || {
            "CALLBOARD_OBJECTS_URL must be file:///folder or s3://bucket/prefix, without a password".to_owned()
        });
        reader.require(self.access_key.is_some() == self.secret_key.is_some(), || {
            "CALLBOARD_OBJECTS_ACCESS_KEY and CALLBOARD_OBJECTS_SECRET_KEY belong together; one is missing".to_owned()
        });
        let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.host().is_some();
        reader.require(self.endpoint.as_ref().is_none_or(is_web), || {
            "CALLBOARD_OBJECTS_ENDPOINT must begin with http:// or https://".to_owned()
        });
        let is_bucket = matches!(location, Ok(Some(ObjectsLocation::Bucket { .. })));
        reader.require(is_bucket || (self.endpoint.is_none() && self.access_key.is_none()), || {
            "CALLBOARD_OBJECTS_ENDPOINT and CALLBOARD_OBJECTS_ACCESS_KEY are of use only with CALLBOARD_OBJECTS_URL=s3://…"
                .to_owned()
        });
    }

    /// Where they are, for a node with this data folder.
    pub fn location(&self, data: &Path) -> ObjectsLocation {
        let told = self.url.as_ref().and_then(|url| location_of(url).ok());
        told.unwrap_or_else(|| ObjectsLocation::Folder(data.join("objects")))
    }
}

fn location_of(url: &Url) -> Result<ObjectsLocation, ()> {
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    match url.scheme() {
        _ if !plain => Err(()),
        "file" => url.to_file_path().map(ObjectsLocation::Folder),
        "s3" => match url.host_str() {
            Some(name) if url.port().is_none() => {
                Ok(ObjectsLocation::Bucket { name: name.to_owned(), prefix: url.path().trim_matches('/').to_owned() })
            }
            _ => Err(()),
        },
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<ObjectsChoice, Vec<String>> {
        let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut reader = Reader::new([], environment, None);
        let choice = ObjectsChoice::read(&mut reader);
        reader.finish().map(|_| choice)
    }

    #[test]
    fn objects_are_in_the_data_folder_unless_told() {
        let data = Path::new("/data");
        let location = |url: &str| read(&[("CALLBOARD_OBJECTS_URL", url)]).unwrap().location(data);
        assert_eq!(read(&[]).unwrap().location(data), ObjectsLocation::Folder("/data/objects".into()));
        assert_eq!(location("file:///srv/shared%20objects"), ObjectsLocation::Folder("/srv/shared objects".into()));
        let bucket = |prefix: &str| ObjectsLocation::Bucket { name: "releases".to_owned(), prefix: prefix.to_owned() };
        assert_eq!(location("s3://releases"), bucket(""));
        assert_eq!(location("s3://releases/team/a/"), bucket("team/a"));
    }

    #[test]
    fn what_can_be_no_store_is_refused() {
        for url in ["http://x/y", "s3:///prefix", "s3://user:secret@bucket", "s3://bucket:90/x", "file://host/x"] {
            assert!(read(&[("CALLBOARD_OBJECTS_URL", url)]).is_err(), "{url}");
        }
        let s3 = ("CALLBOARD_OBJECTS_URL", "s3://b");
        assert!(read(&[s3, ("CALLBOARD_OBJECTS_ACCESS_KEY", "k")]).is_err());
        assert!(read(&[s3, ("CALLBOARD_OBJECTS_ENDPOINT", "ftp://x")]).is_err());
        assert!(read(&[("CALLBOARD_OBJECTS_ENDPOINT", "http://127.0.0.1:1")]).is_err());
    }

    #[test]
    fn a_server_that_is_not_amazon_s_has_the_bucket_in_its_path() {
        let s3 = ("CALLBOARD_OBJECTS_URL", "s3://b");
        assert!(!read(&[s3]).unwrap().path_style);
        let endpoint = ("CALLBOARD_OBJECTS_ENDPOINT", "http://127.0.0.1:9000");
        assert!(read(&[s3, endpoint]).unwrap().path_style);
        assert!(!read(&[s3, endpoint, ("CALLBOARD_OBJECTS_PATH_STYLE", "false")]).unwrap().path_style);
    }
}
