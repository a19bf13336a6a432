//! Tells a missing object from a missing store.
//!
//! A folder that is no longer mounted, or a bucket that was removed, has no objects either: a release that can be read
//! again in a moment would count as gone for good. Every node of a cluster finds the [mark](objects::mark) at its start,
//! so a store without it is away.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

use super::objects;

/// A store that must have the mark.
#[derive(Debug)]
pub struct Marked(Arc<dyn ObjectStore>);

impl Marked {
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self(store)
    }

    /// `missing`, unless the store itself is away.
    async fn judge(&self, missing: Error) -> Error {
        let reason = match objects::mark(&*self.0).await {
            Ok(Some(_)) => return missing,
            Ok(None) => "it lacks the mark by which this cluster knows it".into(),
            Err(no_bucket @ Error::NotFound { .. }) => no_bucket.into(),
            Err(error) => return error,
        };
        Error::Generic { store: "marked", source: reason }
    }
}

impl fmt::Display for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Marked {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        match self.0.get_opts(path, options).await {
            Err(missing @ Error::NotFound { .. }) => Err(self.judge(missing).await),
            found => found,
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use object_store::{ObjectStoreExt, local::LocalFileSystem};

    use super::*;

    #[tokio::test]
    async fn an_object_is_missing_only_from_a_store_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (mounted, away) = (folder.path().join("mounted"), folder.path().join("away"));
        fs::create_dir(&mounted).unwrap();
        let plain: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&mounted).unwrap());
        objects::leave_mark(&*plain).await.unwrap();
        let (store, path) = (Marked::new(plain), Path::from("releases/a.tar.gz"));
        let is_missing = async || {
            let (head, get) = (store.head(&path).await, store.get(&path).await);
            let [head, get] = [head.err(), get.err()].map(|error| matches!(error, Some(Error::NotFound { .. })));
            assert_eq!(head, get);
            head
        };
        assert!(is_missing().await);
        store.put(&path, "archive".into()).await.unwrap();
        fs::rename(&mounted, &away).unwrap();
        assert!(!is_missing().await, "the folder is not there");
        fs::create_dir(&mounted).unwrap();
        assert!(!is_missing().await, "the folder is there, and not mounted");
        let Err(error) = store.head(&path).await else { panic!("it is not there") };
        assert!(error.to_string().contains("lacks the mark"), "{error}");
        fs::remove_dir(&mounted).unwrap();
        fs::rename(&away, &mounted).unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "archive".as_bytes());
    }
}
