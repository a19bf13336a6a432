//! An object store without room.

use std::{fmt, io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, path::Path,
};
use reqwest::Body;

use super::fixture::{By, TestGateway, problem};

/// Begins every upload and has no room for any part of it.
#[derive(Debug)]
struct Full(io::ErrorKind);

impl Full {
    /// As the store of files tells it: the cause is below an error of its own.
    fn error(&self) -> Error {
        let below = Error::Generic { store: "Full", source: Box::new(io::Error::from(self.0)) };
        Error::Generic { store: "Full", source: Box::new(below) }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("full")
    }
}

#[async_trait]
impl ObjectStore for Full {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(self.error())
    }
    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Self(self.0)))
    }
    async fn get_opts(&self, _: &Path, _: GetOptions) -> Result<GetResult> {
        Err(self.error())
    }
    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        paths
    }
    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::empty().boxed()
    }
    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(self.error())
    }
    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(self.error())
    }
}

#[async_trait]
impl MultipartUpload for Full {
    fn put_part(&mut self, _: PutPayload) -> UploadPart {
        let error = self.error();
        async move { Err(error) }.boxed()
    }
    async fn complete(&mut self) -> Result<PutResult> {
        Err(self.error())
    }
    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}

#[actix_rt::test]
async fn an_upload_to_a_full_disk_is_told_so_and_may_be_sent_again() {
    for (kind, full) in [
        (io::ErrorKind::StorageFull, true),
        (io::ErrorKind::QuotaExceeded, true),
        (io::ErrorKind::NotADirectory, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let gateway = TestGateway::start_with_objects(folder, |_| {}, Arc::new(Full(kind))).await;
        let user = gateway.administrator().await;
        let project = gateway.project(&user, "shop").await;
        let path = format!("/api/v1/projects/{}/sources", project["id"].as_str().unwrap());
        // It shows at the end of a small one, and on the way of a large one.
        for chunks in [1, 400] {
            let body = std::iter::repeat_n(Bytes::from(vec![7_u8; 64 * 1024]), chunks).map(Ok::<_, io::Error>);
            let request = gateway.request("POST", &path).by(&user).body(Body::wrap_stream(stream::iter(body)));
            let response = request.send().await.unwrap();
            let retry_after = response.headers().get("retry-after").cloned();
            let (status, code, detail) = problem(response).await;
            assert_eq!((status, code.as_str()), (503, "unavailable"), "{kind}");
            let (sentence, wait) = if full { ("the disk of the node is full", "60") } else { ("send it again", "2") };
            assert!(detail.contains(sentence), "{kind}: {detail}");
            assert_eq!(retry_after.unwrap(), wait, "{kind}");
        }
        gateway.end().await;
    }
}
