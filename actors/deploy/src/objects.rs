//! The object store: uploads under `sources/`, releases under `releases/`, named by their content, and logs under `logs/`.

use std::{path::Path as FilePath, sync::Arc};

use bytes::Bytes;
use callboard_messages::Failure;
use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, buffered::BufWriter, path::Path};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

/// The domain's part of the object store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Internal(format!("object store: {error}"))
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
            Err(error) => Err(failed(error)),
        }
    }

    /// Copies an object into a new file. False when there is none.
    pub(crate) async fn download(&self, path: &Path, file: &FilePath) -> Result<bool, Failure> {
        let object = match self.store.get(path).await {
            Ok(object) => object,
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        let mut file = tokio::fs::File::create(file).await.map_err(failed)?;
        let mut chunks = object.into_stream();
        while let Some(chunk) = chunks.try_next().await.map_err(failed)? {
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed).map(|()| true)
    }

    /// Stores these bytes, instead of those that were there under the name.
    pub(crate) async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), Failure> {
        self.store.put(path, bytes.into()).await.map_err(failed).map(drop)
    }

    /// The whole of a small object. `None` when there is none.
    pub(crate) async fn get(&self, path: &Path) -> Result<Option<Bytes>, Failure> {
        match self.store.get(path).await {
            Ok(object) => object.bytes().await.map_err(failed).map(Some),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The names and sizes of the objects in a folder.
    pub(crate) async fn list(&self, folder: &Path) -> Result<Vec<(Path, u64)>, Failure> {
        let objects = self.store.list(Some(folder)).map_ok(|object| (object.location, object.size));
        objects.try_collect().await.map_err(failed)
    }

    /// Stores a file as an object, which appears whole or not at all.
    pub(crate) async fn upload(&self, file: &FilePath, path: &Path) -> Result<(), Failure> {
        let mut file = tokio::fs::File::open(file).await.map_err(failed)?;
        let mut object = BufWriter::new(self.store.clone(), path.clone());
        match tokio::io::copy(&mut file, &mut object).await {
            Ok(_) => object.shutdown().await.map_err(failed),
            Err(error) => {
                let _ = object.abort().await;
                Err(failed(error))
            }
        }
    }

    /// Removes an object; one that is not there is removed already.
    pub(crate) async fn remove(&self, path: &Path) -> Result<(), Failure> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}
