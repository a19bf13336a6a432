//! The object store: a folder, or a bucket of an S3-compatible server. Sources, releases and logs are in it, so that no
//! node's own disk has the only copy of anything.

use std::{
    error::Error as _,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use callboard_supervisors::{About, Dependency};
use object_store::{
    BackoffConfig, ClientOptions, Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig, aws::AmazonS3Builder, local::LocalFileSystem, path::Path as ObjectPath, prefix::PrefixStore,
};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    client::install_crypto_provider,
    config::{ObjectsChoice, ObjectsLocation},
    error::{Context, Error, Result},
};

/// Time limit of the check at the start.
const CHECK: Duration = Duration::from_secs(15);
/// A server that is silent for this long is given up.
const SILENCE: Duration = Duration::from_secs(20);
/// Time limit of one request: a part of an upload, or one release.
const REQUEST: Duration = Duration::from_secs(300);
/// Retries of a request that the server refuses for a while, or whose connection breaks.
const RETRIES: usize = 4;
/// Time after the first attempt in which others may begin.
const RETRY_TIME: Duration = Duration::from_secs(20);
/// Time limit of the answer when the store is watched.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// Opens the store and checks that it can be written; the error says what to mend.
pub async fn open(choice: &ObjectsChoice, data: &Path) -> Result<Arc<dyn ObjectStore>> {
    match choice.location(data) {
        ObjectsLocation::Folder(folder) => open_folder(&folder),
        ObjectsLocation::Bucket { name, prefix } => {
            let store = Arc::new(PrefixStore::new(connect(choice, &name, &Patience::of_requests())?, prefix));
            check(&*store).await.map_err(|error| refused(choice, &name, &error))?;
            Ok(store)
        }
    }
}

/// The object that identifies a store, whatever its address.
const MARK: &str = "store.id";
/// Longest mark, in bytes.
const MARK_BYTES: u64 = 100;

/// The mark of the store, if a node has left one.
///
/// # Errors
/// When the store fails.
pub async fn mark(store: &dyn ObjectStore) -> std::result::Result<Option<String>, StoreError> {
    let found = match store.get(&ObjectPath::from(MARK)).await {
        Err(error @ StoreError::NotFound { .. }) if !lacks_bucket(&error) => return Ok(None),
        found => found?,
    };
    if found.meta.size > MARK_BYTES {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&found.bytes().await?).trim().to_owned()))
}

/// Leaves a mark in a store without one. Returns the store's mark.
///
/// # Errors
/// When the store can't be written.
pub async fn leave_mark(store: &dyn ObjectStore) -> std::result::Result<String, StoreError> {
    if let Some(mark) = mark(store).await? {
        return Ok(mark);
    }
    let ours = Uuid::now_v7().to_string();
    let (path, first) = (ObjectPath::from(MARK), PutOptions::from(PutMode::Create));
    match store.put_opts(&path, ours.clone().into(), first).await {
        Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
        // A server without conditional writes: of two nodes that start together, one finds the other's mark.
        Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => {
            store.put(&path, ours.clone().into()).await?;
        }
        Err(error) => return Err(error),
    }
    Ok(mark(store).await?.unwrap_or(ours))
}

/// The store as a dependency; `None` for a folder of a node that is alone, which is always reachable.
///
/// It is asked for its mark, which every node of a cluster has found at its start (`is_marked`): a folder that is no
/// longer mounted does not have it.
///
/// # Errors
/// When the client of a bucket can't be set up.
pub fn dependency(choice: &ObjectsChoice, data: &Path, is_marked: bool) -> Result<Option<Dependency>> {
    let (name, store): (_, Arc<dyn ObjectStore>) = match choice.location(data) {
        ObjectsLocation::Folder(_) if !is_marked => return Ok(None),
        ObjectsLocation::Folder(folder) => (format!("the object store in {}", folder.display()), open_folder(&folder)?),
        ObjectsLocation::Bucket { name: bucket, prefix } => {
            let store = PrefixStore::new(connect(choice, &bucket, &Patience::of_looks())?, prefix);
            (format!("the object store at {} (bucket {bucket:?})", server(choice)), Arc::new(store))
        }
    };
    let about = About { answers_within: ANSWERS_WITHIN, ..About::from(name) };
    // A folder on a network may never answer, and a look at it can't be cancelled: no second one is begun then.
    let looking = Arc::new(Mutex::new(()));
    Ok(Some(Dependency::new(about, move || {
        let (store, looking) = (store.clone(), looking.clone());
        async move {
            let Ok(turn) = looking.try_lock_owned() else { return Err("there is no answer".to_owned()) };
            let look = tokio::spawn(async move {
                let found = mark(&*store).await;
                drop(turn);
                found
            });
            match look.await.map_err(|error| error.to_string())? {
                Ok(None) if is_marked => {
                    Err("it lacks the mark by which this cluster knows it; see that it is the one \
                                             that the nodes had, and mounted if it is a folder"
                        .to_owned())
                }
                Ok(_) => Ok(()),
                Err(error) if is_denied(&error) => Err("it does not let this node in".to_owned()),
                Err(error) => Err(last_cause(&error)),
            }
        }
    })))
}

/// The location of the store, for people.
pub fn shown(choice: &ObjectsChoice, data: &Path) -> String {
    match choice.location(data) {
        ObjectsLocation::Folder(folder) => folder.display().to_string(),
        ObjectsLocation::Bucket { name, prefix } => format!("s3://{name}/{prefix}"),
    }
}

/// The folder of the store, if it is one: apps must not see it.
pub fn folder(choice: &ObjectsChoice, data: &Path) -> Option<PathBuf> {
    match choice.location(data) {
        ObjectsLocation::Folder(folder) => Some(folder),
        ObjectsLocation::Bucket { .. } => None,
    }
}

fn open_folder(folder: &Path) -> Result<Arc<dyn ObjectStore>> {
    fs::create_dir_all(folder).context(|| format!("make {}", folder.display()))?;
    let store = LocalFileSystem::new_with_prefix(folder).context(|| format!("open {}", folder.display()))?;
    Ok(Arc::new(store))
}

/// Time limits of requests to a bucket's server.
struct Patience {
    connecting: Duration,
    silence: Duration,
    request: Duration,
    retries: usize,
}

impl Patience {
    const fn of_requests() -> Self {
        Self { connecting: Duration::from_secs(5), silence: SILENCE, request: REQUEST, retries: RETRIES }
    }

    /// Each look is one request, and the next one comes soon.
    const fn of_looks() -> Self {
        Self { connecting: ANSWERS_WITHIN, silence: ANSWERS_WITHIN, request: ANSWERS_WITHIN, retries: 0 }
    }
}

fn connect(choice: &ObjectsChoice, bucket: &str, patience: &Patience) -> Result<impl ObjectStore + use<>> {
    install_crypto_provider();
    let client = ClientOptions::new()
        .with_connect_timeout(patience.connecting)
        .with_read_timeout(patience.silence)
        .with_timeout(patience.request)
        .with_allow_http(choice.endpoint.as_ref().is_some_and(|url| url.scheme() == "http"));
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(3),
        ..BackoffConfig::default()
    };
    let retry = RetryConfig { backoff, max_retries: patience.retries, retry_timeout: RETRY_TIME };
    let mut builder = match (&choice.access_key, &choice.secret_key) {
        (Some(id), Some(secret)) => {
            AmazonS3Builder::new().with_access_key_id(id.expose()).with_secret_access_key(secret.expose())
        }
        _ => AmazonS3Builder::from_env(),
    };
    if let Some(endpoint) = &choice.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
    }
    builder
        .with_bucket_name(bucket)
        .with_region(&choice.region)
        .with_virtual_hosted_style_request(!choice.path_style)
        .with_client_options(client)
        .with_retry(retry)
        .build()
        .map_err(|error| Error::usage(format!("the object store can't be set up: {}", last_cause(&error))))
}

/// Writes, reads and removes a small object, as a node does.
async fn check(store: &dyn ObjectStore) -> std::result::Result<(), StoreError> {
    let path = ObjectPath::from(format!("checks/{}", Uuid::now_v7()));
    let round = async {
        store.put(&path, PutPayload::from_static(b"callboard")).await?;
        store.get(&path).await?.bytes().await?;
        store.delete(&path).await
    };
    match tokio::time::timeout(CHECK, round).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError::Generic { store: "S3", source: Box::new(io::Error::from(io::ErrorKind::TimedOut)) }),
    }
}

/// The error for the operator. The address and the bucket are named; the credentials never are.
fn refused(choice: &ObjectsChoice, bucket: &str, error: &StoreError) -> Error {
    let server = server(choice);
    let whole = causes(error);
    let says = |text: &str| whole.contains(text);
    if lacks_bucket(error) {
        return Error::usage(format!("{server} has no bucket {bucket:?}"))
            .hint("make the bucket, or name another in CALLBOARD_OBJECTS_URL");
    }
    let wrong_key = says("InvalidAccessKeyId") || says("SignatureDoesNotMatch");
    if wrong_key || is_denied(error) {
        let what = if wrong_key { "does not know these credentials" } else { "does not let these credentials in" };
        return Error::usage(format!("{server} {what} for the bucket {bucket:?}")).hint(
            "CALLBOARD_OBJECTS_ACCESS_KEY and CALLBOARD_OBJECTS_SECRET_KEY must be of an account that may put, get \
             and delete objects in it",
        );
    }
    Error::usage(format!("the object store at {server} (bucket {bucket:?}) can't be used: {}", last_cause(error)))
        .hint("CALLBOARD_OBJECTS_ENDPOINT must name an S3-compatible server that answers")
}

fn server(choice: &ObjectsChoice) -> &str {
    choice.endpoint.as_ref().map_or("Amazon S3", |url| url.as_str().trim_end_matches('/'))
}

const fn is_denied(error: &StoreError) -> bool {
    matches!(error, StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. })
}

fn lacks_bucket(error: &StoreError) -> bool {
    causes(error).contains("NoSuchBucket")
}

fn causes(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// The deepest cause, whose message is the shortest.
fn last_cause(error: &StoreError) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(deeper) = deepest.source() {
        deepest = deeper;
    }
    deepest.to_string()
}
