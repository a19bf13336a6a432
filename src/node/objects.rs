//! The object store: a folder, or a bucket of an S3-compatible server. Sources, releases and logs are in it, so that no
//! node's own disk has the only copy of anything.

use std::{
    error::Error as _,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use object_store::{
    BackoffConfig, ClientOptions, Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig, aws::AmazonS3Builder, local::LocalFileSystem, path::Path as ObjectPath, prefix::PrefixStore,
};
use uuid::Uuid;

use crate::{
    client::install_crypto_provider,
    config::{ObjectsChoice, Place},
    error::{Context, Error, Result},
};

/// How long the start waits for the store to answer.
const CHECK: Duration = Duration::from_secs(15);
/// A server that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(20);
/// The longest that one request may take: a part of an upload, or one release.
const REQUEST: Duration = Duration::from_secs(300);
/// What a server refuses for a while, or a connection that breaks, is tried again.
const RETRIES: usize = 4;
/// No attempt begins later than this after the first.
const RETRY_TIME: Duration = Duration::from_secs(20);

/// Opens the store and makes sure that it can be written, or tells what to mend.
pub async fn open(choice: &ObjectsChoice, data: &Path) -> Result<Arc<dyn ObjectStore>> {
    match choice.place(data) {
        Place::Folder(folder) => open_folder(&folder),
        Place::Bucket { name, prefix } => {
            let store = Arc::new(PrefixStore::new(connect(choice, &name)?, prefix));
            check(&*store).await.map_err(|error| refused(choice, &name, &error))?;
            Ok(store)
        }
    }
}

/// The object by which a store is known, wherever it is reached.
const MARK: &str = "store.id";
/// The longest text that can be a mark, in bytes.
const MARK_BYTES: u64 = 100;

/// What the store is known by, if a node has left its mark in it.
///
/// # Errors
/// When the store can't tell.
pub async fn mark(store: &dyn ObjectStore) -> std::result::Result<Option<String>, StoreError> {
    let found = match store.get(&ObjectPath::from(MARK)).await {
        Err(StoreError::NotFound { .. }) => return Ok(None),
        found => found?,
    };
    if found.meta.size > MARK_BYTES {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&found.bytes().await?).trim().to_owned()))
}

/// Leaves a mark in a store that has none; the one that it has then.
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

/// Where the store is, as people are told.
pub fn shown(choice: &ObjectsChoice, data: &Path) -> String {
    match choice.place(data) {
        Place::Folder(folder) => folder.display().to_string(),
        Place::Bucket { name, prefix } => format!("s3://{name}/{prefix}"),
    }
}

/// The folder of the store, if it is one: apps are not to see it.
pub fn folder(choice: &ObjectsChoice, data: &Path) -> Option<PathBuf> {
    match choice.place(data) {
        Place::Folder(folder) => Some(folder),
        Place::Bucket { .. } => None,
    }
}

fn open_folder(folder: &Path) -> Result<Arc<dyn ObjectStore>> {
    fs::create_dir_all(folder).context(|| format!("make {}", folder.display()))?;
    let store = LocalFileSystem::new_with_prefix(folder).context(|| format!("open {}", folder.display()))?;
    Ok(Arc::new(store))
}

fn connect(choice: &ObjectsChoice, bucket: &str) -> Result<impl ObjectStore> {
    install_crypto_provider();
    let client = ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(5))
        .with_read_timeout(SILENCE)
        .with_timeout(REQUEST)
        .with_allow_http(choice.endpoint.as_ref().is_some_and(|url| url.scheme() == "http"));
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(3),
        ..BackoffConfig::default()
    };
    let retry = RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_TIME };
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

/// Writes, reads and removes a small object: what a node does all day.
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

/// What the operator has to mend. The address and the bucket are named; the credentials never are.
fn refused(choice: &ObjectsChoice, bucket: &str, error: &StoreError) -> Error {
    let server = choice.endpoint.as_ref().map_or("Amazon S3", |url| url.as_str().trim_end_matches('/'));
    let whole = causes(error);
    let says = |text: &str| whole.contains(text);
    if says("NoSuchBucket") {
        return Error::usage(format!("{server} has no bucket {bucket:?}"))
            .hint("make the bucket, or name another in CALLBOARD_OBJECTS_URL");
    }
    let is_denied = matches!(error, StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. });
    let wrong_key = says("InvalidAccessKeyId") || says("SignatureDoesNotMatch");
    if wrong_key || is_denied {
        let what = if wrong_key { "does not know these credentials" } else { "does not let these credentials in" };
        return Error::usage(format!("{server} {what} for the bucket {bucket:?}")).hint(
            "CALLBOARD_OBJECTS_ACCESS_KEY and CALLBOARD_OBJECTS_SECRET_KEY must be of an account that may put, get \
             and delete objects in it",
        );
    }
    Error::usage(format!("the object store at {server} (bucket {bucket:?}) can't be used: {}", last_cause(error)))
        .hint("CALLBOARD_OBJECTS_ENDPOINT must name an S3-compatible server that answers")
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

/// The deepest cause, which says it shortest.
fn last_cause(error: &StoreError) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(deeper) = deepest.source() {
        deepest = deeper;
    }
    deepest.to_string()
}
