//! Uploads of sources, streamed to the object store: counted, hashed, never whole in memory.

use std::{rc::Rc, time::Duration};

use actix_web::{HttpResponse, dev::Payload, http::header};
use bytes::Bytes;
use callboard_messages::{
    Caller, Code, DomainError, Operation, ProjectId,
    deploy::{RegisterSource, Source},
    project::GetProject,
};
use callboard_supervisors::{
    Bus, Part,
    disk::{Disk, tells_no_room},
};
use futures_util::{Stream, StreamExt};
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart, path::Path};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    message,
    openapi::Docs,
    problem::Problem,
    server::Shared,
    worker::{Request, Worker},
};

/// Most parts of an object in flight.
const PARTS: usize = 4;
/// Retry delay while the disk is full, until an operator makes room.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(60);
/// Retry delay while the store is away, which is asked all the time.
const RETRY_WHEN_AWAY: Duration = Duration::from_secs(2);
const MEDIA_TYPES: [&str; 6] = [
    "application/gzip",
    "application/x-gzip",
    "application/x-tar+gzip",
    "application/zip",
    "application/x-zip-compressed",
    "application/octet-stream",
];

/// Streams the body to the store, then has the deploy domain record it. A caller without permission is refused before
/// the body is read.
pub(crate) async fn source(mut request: Request) -> Result<HttpResponse, Problem> {
    let project: GetProject = message::Input::of(request.fields()?).read()?;
    if !request.http.query_string().is_empty() {
        return Err(Problem::invalid("this takes no query parameters"));
    }
    check_media_type(&request)?;
    let project_id = project.project_id;
    request.worker.bus().ask(&request.caller, project).await?;
    let limit = request.worker.shared.settings.upload_limit;
    if message::declared_length(&request.http).is_some_and(|length| length > limit) {
        message::discard(&mut request.payload, &request.worker.shared.settings).await;
        return Err(Problem::too_large(limit));
    }
    if request.worker.bus().lacks(crate::DOMAIN, Part::Objects).is_some() {
        message::discard(&mut request.payload, &request.worker.shared.settings).await;
        return Err(Problem { close: true, ..store_away() });
    }

    let worker = Rc::clone(&request.worker);
    let body = Payload::take(&mut request.payload);
    let mut body = body.map(|chunk| chunk.map_err(|_| broken_off("the upload broke off")));
    let kept = keep(&worker, &request.caller, project_id, &mut body).await;
    let source = match kept {
        Ok(source) => source,
        Err(Refusal { problem, rest: Rest::Unread }) => {
            // A client that is still sending would not read the response before a reset.
            drain(&mut body, &worker).await;
            return Err(problem);
        }
        Err(Refusal { problem, rest: Rest::Gone }) => return Err(problem),
    };
    Ok(HttpResponse::Created().json(source))
}

/// Why an upload is refused, and what is to become of the rest of it.
pub(crate) struct Refusal {
    pub(crate) problem: Problem,
    pub(crate) rest: Rest,
}

/// The rest of a body.
pub(crate) enum Rest {
    /// More may come, and has to be read before the answer is.
    Unread,
    /// Nothing more comes.
    Gone,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, rest: Rest::Gone }
    }
}

fn unread(problem: Problem) -> Refusal {
    Refusal { problem, rest: Rest::Unread }
}

/// Keeps a source of the project, whose bytes are `body`, and has the deploy domain record it.
pub(crate) async fn keep<S>(
    worker: &Worker,
    caller: &Caller,
    project_id: ProjectId,
    body: &mut S,
) -> Result<Source, Refusal>
where
    S: Stream<Item = Result<Bytes, Problem>> + Unpin,
{
    let id = Uuid::now_v7();
    let path = Path::from(format!("sources/{id}"));
    let objects = worker.shared.objects.clone();
    let bus = worker.bus().clone();
    let disk = worker.shared.runtime.disk().clone();
    let failed = |error: object_store::Error| store_failed(&error, &disk, &bus);
    let upload = objects.put_multipart(&path).await.map_err(failed)?;
    // Parts already written are removed with this, also when the client goes and this future is dropped.
    let mut unfinished = Unfinished { upload: Some(WriteMultipart::new(upload)), stored: None };
    let (size, sha256) = receive(worker, body, &mut unfinished).await?;
    unfinished.stored = Some((objects, path));
    if let Some(upload) = unfinished.upload.take() {
        upload.finish().await.map_err(failed)?;
    }

    let register = RegisterSource { project_id, source: Source { id, size, sha256 } };
    let source = match bus.ask(caller, register).await {
        Ok(source) => source,
        Err(error) => {
            let problem = Problem::from(error);
            if !problem.certain {
                // It may be recorded all the same: then the object must stay.
                unfinished.stored = None;
            }
            return Err(problem.into());
        }
    };
    unfinished.stored = None;
    Ok(source)
}

/// Reads on for a while, as [`message::discard`] does.
async fn drain(body: &mut (impl Stream<Item = Result<Bytes, Problem>> + Unpin), worker: &Worker) {
    message::discard_stream(body, &worker.shared.settings).await;
}

/// Removes what was stored of a failed upload.
struct Unfinished {
    upload: Option<WriteMultipart>,
    stored: Option<(std::sync::Arc<dyn ObjectStore>, Path)>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let (upload, stored) = (self.upload.take(), self.stored.take());
        if upload.is_none() && stored.is_none() {
            return;
        }
        actix_rt::spawn(async move {
            if let Some(upload) = upload
                && let Err(error) = upload.abort().await
            {
                tracing::warn!(%error, "aborting an unfinished upload failed");
            }
            if let Some((objects, path)) = stored
                && let Err(error) = objects.delete(&path).await
                && !matches!(error, object_store::Error::NotFound { .. })
            {
                tracing::warn!(%error, %path, "removing a refused upload failed");
            }
        });
    }
}

async fn receive<S>(worker: &Worker, body: &mut S, to: &mut Unfinished) -> Result<(u64, String), Refusal>
where
    S: Stream<Item = Result<Bytes, Problem>> + Unpin,
{
    let limit = worker.shared.settings.upload_limit;
    let mut pace = worker.shared.settings.pace();
    let mut hash = Sha256::new();
    let mut size = 0_u64;
    loop {
        let until = pace.wait_until(Instant::now());
        let chunk = match tokio::time::timeout_at(until, body.next()).await {
            Ok(Some(chunk)) => chunk?,
            Ok(None) => break,
            Err(_) => return Err(broken_off("the upload stood still for too long, or came too slowly").into()),
        };
        pace.received(chunk.len(), Instant::now());
        size += chunk.len() as u64;
        if size > limit {
            return Err(unread(Problem::too_large(limit)));
        }
        hash.update(&chunk);
        if let Some(upload) = &mut to.upload {
            if let Err(error) = upload.wait_for_capacity(PARTS).await {
                let Shared { runtime, .. } = &*worker.shared;
                let problem = store_failed(&error, runtime.disk(), runtime.bus());
                return Err(unread(Problem { close: true, ..problem }));
            }
            upload.put(chunk);
        }
    }
    if size == 0 {
        return Err(Problem::invalid("the body is empty: send a tar.gz or zip archive").into());
    }
    Ok((size, hex::encode(hash.finalize())))
}

/// The problem of an upload of which nothing more comes.
pub(crate) fn broken_off(why: &'static str) -> Problem {
    Problem { close: true, ..Problem::invalid(why) }
}

fn store_failed(error: &object_store::Error, disk: &Disk, bus: &Bus) -> Problem {
    let cause = format!("object store: {error}");
    if !tells_no_room(error) {
        // Known outages are logged once, and not with each upload.
        let cause = bus.lacks(crate::DOMAIN, Part::Objects).is_none().then_some(cause);
        return Problem { cause, ..store_away() };
    }
    let detail = "the disk of the node is full, so that the source could not be kept; make room there, then retry";
    let problem = Problem::of(Code::Unavailable, detail);
    // A full disk of this node is logged once, and not with each upload.
    let cause = (!disk.is_full()).then_some(cause);
    Problem { retry_after: Some(RETRY_WHEN_FULL), cause, ..problem }
}

fn store_away() -> Problem {
    let detail = "the store of sources does not take the upload now; nothing of it was kept, so send it again";
    Problem { retry_after: Some(RETRY_WHEN_AWAY), ..Problem::of(Code::Unavailable, detail) }
}

fn check_media_type(request: &Request) -> Result<(), Problem> {
    let Some(value) = request.http.headers().get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let known = MEDIA_TYPES.iter().any(|known| known.eq_ignore_ascii_case(essence));
    if known { Ok(()) } else { Err(message::unsupported("application/gzip or application/zip")) }
}

pub(crate) fn docs() -> Docs {
    let fields = json!({
        "project_id": {"type": "string", "format": "uuid", "description": "Whose source."},
        "": {"type": "string", "format": "binary"},
    });
    Docs::saying::<<RegisterSource as Operation>::Reply>(
        "Uploads a source: the bytes of a tar.gz or zip archive. Its id is what POST /deployments takes.",
    )
    .with_fields(fields, &["project_id"])
    .refusing(<GetProject as Operation>::Error::CODES)
    .refusing(<RegisterSource as Operation>::Error::CODES)
    .with_media("application/gzip", "application/json")
}
