//! An object store that stops a node where a test wants it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, path::Path,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Where a node is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// It has found the object there.
    Found,
    /// It is about to remove it.
    Removes,
    /// It looks for what is in the folder.
    Lists,
}

/// A store that stops the next node that comes to a moment of an object, until it is let on.
pub(super) struct Gate {
    pub(super) inner: Arc<dyn ObjectStore>,
    armed: Mutex<Option<(Moment, String)>>,
    reached: Semaphore,
    opened: Semaphore,
    /// Whoever looks into a folder panics.
    pub(super) panics: AtomicBool,
}

impl Gate {
    pub(super) fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            armed: Mutex::default(),
            reached: Semaphore::new(0),
            opened: Semaphore::new(0),
            panics: AtomicBool::new(false),
        })
    }

    pub(super) fn arm(&self, moment: Moment, name: &str) {
        *self.armed.lock() = Some((moment, name.to_owned()));
    }

    async fn pass(&self, moment: Moment, path: &Path) {
        let stops = |armed: &mut (Moment, String)| armed.0 == moment && path.as_ref().contains(&armed.1);
        if self.armed.lock().take_if(stops).is_some() {
            self.reached.add_permits(1);
            self.opened.acquire().await.unwrap().forget();
        }
    }

    pub(super) async fn until_reached(&self) {
        let reached = tokio::time::timeout(super::fixture::DEADLINE, self.reached.acquire()).await;
        reached.expect("nobody came to the moment").unwrap().forget();
    }

    pub(super) fn open(&self) {
        self.opened.add_permits(1);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// The trait's own way to share a store: removals need it beyond the call.
#[derive(Debug, Clone)]
pub(super) struct Gated(pub(super) Arc<Gate>);

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gated")
    }
}

#[async_trait]
impl ObjectStore for Gated {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let looks = options.head;
        let found = self.0.inner.get_opts(path, options).await;
        if looks && found.is_ok() {
            self.0.pass(Moment::Found, path).await;
        }
        found
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let gate = self.0.clone();
        let paths = paths.and_then(move |path| {
            let gate = gate.clone();
            async move {
                gate.pass(Moment::Removes, &path).await;
                Ok(path)
            }
        });
        self.0.inner.delete_stream(paths.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        assert!(!self.0.panics.load(Ordering::SeqCst), "the store panics, as it was told to");
        let (gate, prefix) = (self.0.clone(), prefix.cloned());
        let listed = async move {
            gate.pass(Moment::Lists, prefix.as_ref().unwrap_or(&Path::default())).await;
            gate.inner.list(prefix.as_ref())
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.inner.copy_opts(from, to, options).await
    }
}
