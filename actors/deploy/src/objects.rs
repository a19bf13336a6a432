//! The object store: uploads under `sources/`, releases under `releases/`, named by their content, and logs under `logs/`.

use std::{path::Path as FilePath, sync::Arc, time::Duration};

use bytes::Bytes;
use callboard_messages::Failure;
use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, buffered::BufWriter, path::Path};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The domain's part of the object store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
}

/// A store that does not answer comes back by itself; one that lets this node in no more does not.
fn failed(error: &object_store::Error) -> Failure {
    use object_store::Error::{
        InvalidPath, NotImplemented, NotSupported, PermissionDenied, Unauthenticated, UnknownConfigurationKey,
    };
    match error {
        PermissionDenied { .. }
        | Unauthenticated { .. }
        | UnknownConfigurationKey { .. }
        | InvalidPath { .. }
        | NotSupported { .. }
        | NotImplemented { .. } => Failure::Internal(format!("object store: {error}")),
        _ => {
            tracing::warn!(%error, "the object store can't be reached");
            Failure::Unavailable { retry_after: RETRY_AFTER }
        }
    }
}

/// Of what is on its way between a file and the store, whichever of them it was.
fn failed_on_the_way(error: &std::io::Error) -> Failure {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<object_store::Error>()) {
        Some(cause) => failed(cause),
        None => Failure::Internal(format!("a file on its way to or from the object store: {error}")),
    }
}

impl Objects {
    pub(crate) const fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// Where an upload is.
    pub(crate) fn source(id: Uuid) -> Path {
        Path::from(format!("sources/{id}"))
    }

    /// Where a release is. A name is used by one generation of its content and by no later one.
    pub(crate) fn release(digest: &str, generation: i64) -> Path {
        match generation {
            0 => Path::from(format!("releases/{digest}.tar.gz")),
            _ => Path::from(format!("releases/{digest}.{generation}.tar.gz")),
        }
    }

    /// Whether there is such an object.
    pub(crate) async fn has(&self, path: &Path) -> Result<bool, Failure> {
        match self.store.head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Copies an object into a new file. False when there is none.
    pub(crate) async fn download(&self, path: &Path, file: &FilePath) -> Result<bool, Failure> {
        let object = match self.store.get(path).await {
            Ok(object) => object,
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(failed(&error)),
        };
        let mut file = tokio::fs::File::create(file).await.map_err(|error| failed_on_the_way(&error))?;
        let mut chunks = object.into_stream();
        while let Some(chunk) = chunks.try_next().await.map_err(|error| failed(&error))? {
            file.write_all(&chunk).await.map_err(|error| failed_on_the_way(&error))?;
        }
        file.flush().await.map_err(|error| failed_on_the_way(&error)).map(|()| true)
    }

    /// Stores these bytes, instead of those that were there under the name.
    pub(crate) async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), Failure> {
        self.store.put(path, bytes.into()).await.map_err(|error| failed(&error)).map(drop)
    }

    /// The whole of a small object. `None` when there is none.
    pub(crate) async fn get(&self, path: &Path) -> Result<Option<Bytes>, Failure> {
        match self.store.get(path).await {
            Ok(object) => object.bytes().await.map_err(|error| failed(&error)).map(Some),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// The names and sizes of the objects in a folder.
    pub(crate) async fn list(&self, folder: &Path) -> Result<Vec<(Path, u64)>, Failure> {
        let objects = self.store.list(Some(folder)).map_ok(|object| (object.location, object.size));
        objects.try_collect().await.map_err(|error| failed(&error))
    }

    /// Stores a file as an object, which appears whole or not at all.
    pub(crate) async fn upload(&self, file: &FilePath, path: &Path) -> Result<(), Failure> {
        let mut file = tokio::fs::File::open(file).await.map_err(|error| failed_on_the_way(&error))?;
        let mut object = BufWriter::new(self.store.clone(), path.clone());
        match tokio::io::copy(&mut file, &mut object).await {
            Ok(_) => object.shutdown().await.map_err(|error| failed_on_the_way(&error)),
            Err(error) => {
                let _ = object.abort().await;
                Err(failed_on_the_way(&error))
            }
        }
    }

    /// Removes an object; one that is not there is removed already.
    pub(crate) async fn remove(&self, path: &Path) -> Result<(), Failure> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_store_that_does_not_answer_may_be_asked_again_and_one_that_refuses_may_not() {
        let generic = || object_store::Error::Generic { store: "S3", source: "connection refused".into() };
        let refused = || object_store::Error::PermissionDenied { path: "a".to_owned(), source: "403".into() };
        assert!(matches!(failed(&generic()), Failure::Unavailable { .. }));
        assert!(matches!(failed(&refused()), Failure::Internal(_)));
        assert!(matches!(failed_on_the_way(&generic().into()), Failure::Unavailable { .. }));
        assert!(matches!(failed_on_the_way(&refused().into()), Failure::Internal(_)));
        assert!(matches!(failed_on_the_way(&io::ErrorKind::StorageFull.into()), Failure::Internal(_)));
    }
}
