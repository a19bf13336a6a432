//! Uploads to an object store that fails at any step of them.

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

/// The step of an upload from which on everything fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Step {
    Begin,
    Part,
    Complete,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    from: Step,
    kind: io::ErrorKind,
}

impl Failing {
    /// As the store of files reports it: the cause is below an error of its own.
    fn error(self) -> Error {
        let below = Error::Generic { store: "Failing", source: Box::new(io::Error::from(self.kind)) };
        Error::Generic { store: "Failing", source: Box::new(below) }
    }

    fn reach(self, step: Step) -> Result<()> {
        if step < self.from { Ok(()) } else { Err(self.error()) }
    }
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failing")
    }
}

#[async_trait]
impl ObjectStore for Failing {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(self.error())
    }
    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.reach(Step::Begin).map(|()| Box::new(*self) as Box<dyn MultipartUpload>)
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
impl MultipartUpload for Failing {
    fn put_part(&mut self, _: PutPayload) -> UploadPart {
        let reached = self.reach(Step::Part);
        async move { reached }.boxed()
    }
    async fn complete(&mut self) -> Result<PutResult> {
        Err(self.error())
    }
    async fn abort(&mut self) -> Result<()> {
        Err(self.error())
    }
}

#[actix_rt::test]
async fn an_upload_is_told_to_come_again_whenever_its_store_fails() {
    for (kind, full) in [
        (io::ErrorKind::StorageFull, true),
        (io::ErrorKind::QuotaExceeded, true),
        (io::ErrorKind::NotADirectory, false),
        (io::ErrorKind::ConnectionRefused, false),
    ] {
        for from in [Step::Begin, Step::Part, Step::Complete] {
            let folder = tempfile::tempdir().unwrap();
            let gateway = TestGateway::start_with_objects(folder, |_| {}, Arc::new(Failing { from, kind })).await;
            let user = gateway.administrator().await;
            let project = gateway.project(&user, "shop").await;
            let path = format!("/api/v1/projects/{}/sources", project["id"].as_str().unwrap());
            // A failing part shows at the end of a small upload, and on the way of a large one.
            for chunks in [1, 400] {
                let body = std::iter::repeat_n(Bytes::from(vec![7_u8; 64 * 1024]), chunks).map(Ok::<_, io::Error>);
                let request = gateway.request("POST", &path).by(&user).body(Body::wrap_stream(stream::iter(body)));
                let response = request.send().await.unwrap();
                let retry_after = response.headers().get("retry-after").cloned();
                let (status, code, detail) = problem(response).await;
                assert_eq!((status, code.as_str()), (503, "unavailable"), "{kind} from {from:?}");
                let (sentence, wait) =
                    if full { ("the disk of the node is full", "60") } else { ("send it again", "2") };
                assert!(detail.contains(sentence), "{kind} from {from:?}: {detail}");
                assert_eq!(retry_after.unwrap(), wait, "{kind} from {from:?}");
            }
            gateway.end().await;
        }
    }
}
