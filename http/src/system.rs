//! Probes, metrics, discovery and the actor tree.

use std::{net::IpAddr, sync::atomic::Ordering};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderValue},
};
use callboard_messages::{Code, auth::GetJwks};
use callboard_supervisors::{Part, Readiness};
use prometheus::{Encoder, TextEncoder};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{openapi::Docs, problem::Problem, session, worker::Request};

/// The process answers.
pub(crate) async fn health(_: Request) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(json!({"status": "ok"})))
}

/// What a request to each domain would meet now, and whether this node may get traffic.
///
/// The status is for load balancers: it says what this node alone is unfit for, while another may be fit. A server or
/// node that is away is away for all gateways, so it is only reported, as the part that is missing: otherwise every
/// gateway would leave the service, and the apps with it, which do not need that part. A full disk is only reported
/// too: reads and the apps go on.
pub(crate) async fn ready(request: Request) -> Result<HttpResponse, Problem> {
    let shared = &request.worker.shared;
    let domains = shared.runtime.ready();
    let is_unfit = |domain: &Readiness| !domain.remote && domain.part == Some(Part::Domain);
    let status = match () {
        () if shared.stopping.is_begun() => "draining",
        () if shared.held.load(Ordering::Acquire) => "starting",
        () if domains.iter().any(is_unfit) => "unavailable",
        () if domains.iter().all(|domain| domain.ready) => "ready",
        () => "impaired",
    };
    let mut response = match status {
        "ready" | "impaired" => HttpResponse::Ok(),
        _ => HttpResponse::ServiceUnavailable(),
    };
    let disk = if shared.runtime.disk().is_full() { "full" } else { "ok" };
    Ok(response.json(json!({"status": status, "disk": disk, "domains": domains})))
}

/// Metrics as Prometheus text, for the bearer of the metrics token, and for administrators. Without a configured token,
/// programs on this machine need none.
pub(crate) async fn metrics(request: Request) -> Result<HttpResponse, Problem> {
    let is_open = request.worker.shared.settings.metrics_token.is_none() && is_local(&request);
    if !is_open && !has_metrics_token(&request) {
        let session = session::authenticate(&request.worker, &request.http, &request.arrival).await?;
        if !session.caller.administrator {
            return Err(Problem::of(Code::Forbidden, "this needs the permission administrator"));
        }
    }
    let shared = &request.worker.shared;
    let mut families = shared.runtime.metrics().gather();
    families.extend(shared.metrics.registry.gather());
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    encoder.encode(&families, &mut text).map_err(|error| Problem::internal(format!("metrics: {error}")))?;
    Ok(HttpResponse::Ok().content_type(encoder.format_type()).body(text))
}

fn has_metrics_token(request: &Request) -> bool {
    let token = request.worker.shared.settings.metrics_token.as_ref();
    let given = || request.http.headers().get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ");
    // Hashes of equal length, compared in full: the duration reveals nothing about the token.
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    token.zip(given()).is_some_and(|(token, given)| {
        digest(token.expose()).iter().zip(digest(given)).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    })
}

/// Whether the request comes directly from this machine, by a name of this machine: not through a proxy on it, nor from
/// a page whose own name resolves to loopback.
fn is_local(request: &Request) -> bool {
    let http = &request.http;
    let direct = !http.headers().contains_key("x-forwarded-for") && !http.headers().contains_key(header::FORWARDED);
    direct && request.arrival.client.address.is_loopback() && host_is_local(http)
}

fn host_is_local(http: &HttpRequest) -> bool {
    let Some(host) = http.headers().get(header::HOST).and_then(|host| host.to_str().ok()) else { return true };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The actor tree now.
pub(crate) async fn actors(request: Request) -> Result<HttpResponse, Problem> {
    if !request.http.query_string().is_empty() {
        return Err(Problem::invalid("this takes no query parameters"));
    }
    Ok(HttpResponse::Ok().json(request.worker.shared.runtime.tree()))
}

pub(crate) fn actors_docs() -> Docs {
    Docs::saying::<serde_json::Value>(
        "The actor tree: domains, shards and background children. Each with its state, restarts, queue depth, calls in \
         flight and their limit, and breaker.",
    )
}

/// The API's description.
pub(crate) async fn openapi(request: Request) -> Result<HttpResponse, Problem> {
    let document = request.worker.shared.document();
    let known = request.http.headers().get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if known == Some(document.etag.as_str()) {
        HttpResponse::NotModified().finish()
    } else {
        HttpResponse::Ok().content_type("application/json").body(document.bytes.clone())
    };
    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// The public signing keys.
pub(crate) async fn jwks(request: Request) -> Result<HttpResponse, Problem> {
    let keys = request.worker.bus().ask(&request.caller, GetJwks {}).await?;
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "public, max-age=60")).json(keys))
}

/// OpenID Connect Discovery: how programs verify our tokens. Its addresses are as configured, whatever name the request
/// came by: an attacker who could choose them could have programs trust other keys.
pub(crate) async fn discovery(request: Request) -> Result<HttpResponse, Problem> {
    let shared = &request.worker.shared;
    let base = &shared.address;
    let document = json!({
        "issuer": shared.issuer,
        "jwks_uri": format!("{base}/.well-known/jwks.json"),
        "token_endpoint": format!("{base}/api/v1/auth/login"),
        "userinfo_endpoint": format!("{base}/api/v1/auth/whoami"),
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["token"],
        "subject_types_supported": ["public"],
    });
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "public, max-age=60")).json(document))
}
