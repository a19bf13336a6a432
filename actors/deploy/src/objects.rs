//! The object store: uploads under `sources/`, releases under `releases/`, named by their content, and logs under `logs/`.

use std::{
    path::Path as FilePath,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use callboard_messages::Failure;
use callboard_supervisors::Outage;
use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, buffered::BufWriter, path::Path};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The domain's objects in the store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    reach: Arc<Reach>,
}

/// The reachability of the store, as its users have found it.
struct Reach {
    outage: Outage,
    /// Whether writes fail. A store with a full disk may still be read, which does not end such an outage.
    takes_nothing: AtomicBool,
}

/// Kind of an access to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl Reach {
    /// Notes the outcome of an access. Returns whether an outage begins.
    fn note<T>(&self, access: Access, result: &Result<T, Failed>) -> bool {
        match result {
            Ok(_) => {
                if access == Access::Write || !self.takes_nothing.load(Ordering::Acquire) {
                    self.outage.works();
                    self.takes_nothing.store(false, Ordering::Release);
                }
                false
            }
            Err(Failed { failure, reason }) if failure.is_outage() => {
                self.takes_nothing.fetch_or(access == Access::Write, Ordering::AcqRel);
                self.outage.failed(reason)
            }
            Err(_) => false,
        }
    }
}

/// A failure of the store as a build or an upload reports it, with its reason.
#[derive(Debug)]
struct Failed {
    failure: Failure,
    reason: String,
}

/// A store that does not answer comes back by itself; one that refuses this node does not.
fn failed(error: &object_store::Error) -> Failed {
    use object_store::Error::{
        InvalidPath, NotImplemented, NotSupported, PermissionDenied, Unauthenticated, UnknownConfigurationKey,
    };
    match error {
        PermissionDenied { .. }
        | Unauthenticated { .. }
        | UnknownConfigurationKey { .. }
        | InvalidPath { .. }
        | NotSupported { .. }
        | NotImplemented { .. } => Failed::fault(format!("object store: {error}")),
        _ => Failed { failure: Failure::Unavailable { retry_after: RETRY_AFTER }, reason: error.to_string() },
    }
}

/// The failure of a transfer between a file and the store, whichever of them failed.
fn failed_on_the_way(error: &std::io::Error) -> Failed {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<object_store::Error>()) {
        Some(cause) => failed(cause),
        None => Failed::fault(format!("a file on its way to or from the object store: {error}")),
    }
}

impl Failed {
    fn fault(reason: String) -> Self {
        Self { failure: Failure::Internal(reason.clone()), reason }
    }
}

impl Objects {
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        let outage = Outage::new("the object store");
        Self { store, reach: Arc::new(Reach { outage, takes_nothing: AtomicBool::new(false) }) }
    }

    /// Notes the outcome of an access.
    fn note<T>(&self, access: Access, result: Result<T, Failed>) -> Result<T, Failure> {
        if self.reach.note(access, &result) {
            tokio::spawn(until_it_works(Arc::downgrade(&self.store), Arc::downgrade(&self.reach)));
        }
        result.map_err(|failed| failed.failure)
    }

    /// The path of an upload.
    pub(crate) fn source(id: Uuid) -> Path {
        Path::from(format!("sources/{id}"))
    }

    /// The path of a release. A name is used by one generation of its content and by no later one.
    pub(crate) fn release(digest: &str, generation: i64) -> Path {
        match generation {
            0 => Path::from(format!("releases/{digest}.tar.gz")),
            _ => Path::from(format!("releases/{digest}.{generation}.tar.gz")),
        }
    }

    /// Whether the object exists.
    pub(crate) async fn has(&self, path: &Path) -> Result<bool, Failure> {
        let found = some_of(self.store.head(path).await);
        self.note(Access::Read, found.map(|found| found.is_some()))
    }

    /// Copies an object into a new file. False when it does not exist.
    pub(crate) async fn download(&self, path: &Path, file: &FilePath) -> Result<bool, Failure> {
        self.note(Access::Read, self.copy_to(path, file).await)
    }

    async fn copy_to(&self, path: &Path, file: &FilePath) -> Result<bool, Failed> {
        let Some(object) = some_of(self.store.get(path).await)? else { return Ok(false) };
        let mut file = tokio::fs::File::create(file).await.map_err(|error| failed_on_the_way(&error))?;
        let mut chunks = object.into_stream();
        while let Some(chunk) = chunks.try_next().await.map_err(|error| failed(&error))? {
            file.write_all(&chunk).await.map_err(|error| failed_on_the_way(&error))?;
        }
        file.flush().await.map_err(|error| failed_on_the_way(&error)).map(|()| true)
    }

    /// Stores these bytes, in place of any under the name.
    pub(crate) async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), Failure> {
        let put = self.store.put(path, bytes.into()).await.map_err(|error| failed(&error));
        self.note(Access::Write, put.map(drop))
    }

    /// The content of a small object. `None` when it does not exist.
    pub(crate) async fn get(&self, path: &Path) -> Result<Option<Bytes>, Failure> {
        let read = async {
            let Some(object) = some_of(self.store.get(path).await)? else { return Ok(None) };
            object.bytes().await.map_err(|error| failed(&error)).map(Some)
        };
        self.note(Access::Read, read.await)
    }

    /// The names and sizes of the objects in a folder.
    pub(crate) async fn list(&self, folder: &Path) -> Result<Vec<(Path, u64)>, Failure> {
        let objects = self.store.list(Some(folder)).map_ok(|object| (object.location, object.size));
        self.note(Access::Read, objects.try_collect().await.map_err(|error| failed(&error)))
    }

    /// Stores a file as an object, which appears whole or not at all.
    pub(crate) async fn upload(&self, file: &FilePath, path: &Path) -> Result<(), Failure> {
        self.note(Access::Write, self.copy_from(file, path).await)
    }

    async fn copy_from(&self, file: &FilePath, path: &Path) -> Result<(), Failed> {
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

    /// Removes an object, which need not exist.
    pub(crate) async fn remove(&self, path: &Path) -> Result<(), Failure> {
        let removed = some_of(self.store.delete(path).await);
        self.note(Access::Write, removed.map(drop))
    }
}

/// Reads from an object store that is away until it answers: the caller that met the outage may want nothing more, and
/// then nothing else would end the outage.
async fn until_it_works(store: Weak<dyn ObjectStore>, reach: Weak<Reach>) {
    loop {
        tokio::time::sleep(RETRY_AFTER).await;
        let (Some(store), Some(reach)) = (store.upgrade(), reach.upgrade()) else { return };
        if !reach.outage.is_on() {
            return;
        }
        let read = some_of(store.head(&Path::from("is-there")).await);
        reach.note(Access::Read, &read);
    }
}

/// The result, or `None` when the object does not exist.
fn some_of<T>(found: object_store::Result<T>) -> Result<Option<T>, Failed> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn generic() -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: "connection refused".into() }
    }

    fn refused() -> object_store::Error {
        object_store::Error::PermissionDenied { path: "a".to_owned(), source: "403".into() }
    }

    #[test]
    fn a_store_that_does_not_answer_may_be_asked_again_and_one_that_refuses_may_not() {
        assert!(matches!(failed(&generic()).failure, Failure::Unavailable { .. }));
        assert!(matches!(failed(&refused()).failure, Failure::Internal(_)));
        assert!(matches!(failed_on_the_way(&generic().into()).failure, Failure::Unavailable { .. }));
        assert!(matches!(failed_on_the_way(&refused().into()).failure, Failure::Internal(_)));
        assert!(matches!(failed_on_the_way(&io::ErrorKind::StorageFull.into()).failure, Failure::Internal(_)));
    }

    #[test]
    fn an_outage_of_the_store_is_one_however_much_fails_and_ends_with_what_began_it() {
        let objects = Objects::new(Arc::new(object_store::memory::InMemory::new()));
        let (reach, is_on) = (&objects.reach, || objects.reach.outage.is_on());
        let done = |access| reach.note(access, &Ok(()));
        let away = |access| reach.note::<()>(access, &Err(failed(&generic())));
        reach.note::<()>(Access::Write, &Err(failed(&refused())));
        assert!(!is_on(), "a store that refuses is there");
        // Writes fail, and reads succeed.
        for nth in 0..3 {
            assert_eq!(away(Access::Write), nth == 0, "it begins once");
            done(Access::Read);
            assert!(is_on());
        }
        away(Access::Read);
        done(Access::Write);
        assert!(!is_on());
        away(Access::Read);
        assert!(is_on());
        done(Access::Read);
        assert!(!is_on());
    }

    #[tokio::test]
    async fn a_store_that_nobody_needs_any_more_is_said_to_be_back_all_the_same() {
        let objects = Objects::new(Arc::new(object_store::memory::InMemory::new()));
        objects.note::<()>(Access::Read, Err(failed(&generic()))).unwrap_err();
        assert!(objects.reach.outage.is_on());
        let is_over = async {
            while objects.reach.outage.is_on() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), is_over).await.expect("somebody asks it");
    }
}
