//! Uploads of sources, streamed to the object store: counted, hashed, never whole in memory.

use std::time::Duration;

use actix_web::{HttpResponse, http::header};
use callboard_messages::{
    Code, DomainError, Operation,
    deploy::{RegisterSource, Source},
    project::GetProject,
};
use callboard_supervisors::{
    Bus, Part,
    disk::{Disk, tells_no_room},
};
use futures_util::StreamExt;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart, path::Path};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{message, openapi::Docs, problem::Problem, server::Shared, worker::Request};

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

    let id = Uuid::now_v7();
    let path = Path::from(format!("sources/{id}"));
    let objects = request.worker.shared.objects.clone();
    let bus = request.worker.bus().clone();
    let disk = request.worker.shared.runtime.disk().clone();
    let failed = |error: object_store::Error| store_failed(&error, &disk, &bus);
    let upload = objects.put_multipart(&path).await.map_err(failed)?;
    // Parts already written are removed with this, also when the client goes and this future is dropped.
    let mut unfinished = Unfinished { upload: Some(WriteMultipart::new(upload)), stored: None };
    let (size, sha256) = receive(&mut request, &mut unfinished, limit).await?;
    unfinished.stored = Some((objects, path));
    if let Some(upload) = unfinished.upload.take() {
        upload.finish().await.map_err(failed)?;
    }

    let register = RegisterSource { project_id, source: Source { id, size, sha256 } };
    let outcome = request.worker.bus().ask(&request.caller, register).await;
    let source = match outcome {
        Ok(source) => source,
        Err(error) => {
            let problem = Problem::from(error);
            if !problem.certain {
                // It may be recorded all the same: then the object must stay.
                unfinished.stored = None;
            }
            return Err(problem);
        }
    };
    unfinished.stored = None;
    Ok(HttpResponse::Created().json(source))
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

async fn receive(request: &mut Request, to: &mut Unfinished, limit: u64) -> Result<(u64, String), Problem> {
    let mut pace = request.worker.shared.settings.pace();
    let mut hash = Sha256::new();
    let mut size = 0_u64;
    loop {
        let until = pace.wait_until(Instant::now());
        let chunk = match tokio::time::timeout_at(until, request.payload.next()).await {
            Ok(Some(chunk)) => chunk.map_err(|_| broken_off("the upload broke off"))?,
            Ok(None) => break,
            Err(_) => return Err(broken_off("the upload stood still for too long, or came too slowly")),
        };
        pace.received(chunk.len(), Instant::now());
        size += chunk.len() as u64;
        if size > limit {
            message::discard(&mut request.payload, &request.worker.shared.settings).await;
            return Err(Problem::too_large(limit));
        }
        hash.update(&chunk);
        if let Some(upload) = &mut to.upload {
            if let Err(error) = upload.wait_for_capacity(PARTS).await {
                // A client that is still sending would not read the response before a reset.
                message::discard(&mut request.payload, &request.worker.shared.settings).await;
                let Shared { runtime, .. } = &*request.worker.shared;
                return Err(Problem { close: true, ..store_failed(&error, runtime.disk(), runtime.bus()) });
            }
            upload.put(chunk);
        }
    }
    if size == 0 {
        return Err(Problem::invalid("the body is empty: send a tar.gz or zip archive"));
    }
    Ok((size, hex::encode(hash.finalize())))
}

fn broken_off(why: &'static str) -> Problem {
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
