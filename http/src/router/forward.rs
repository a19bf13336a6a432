//! Forwards one request to an instance, and its response to the client.
//!
//! Rules for retries: a request for which no connection was accepted goes to the next instance; a request that is known
//! not to have been sent goes to a new connection; a request that was sent over a kept connection, which then closed
//! without a byte of response, is sent once more if that can't do anything twice (an idempotent method without a body).
//! Every other failure is reported to the client.
//!
//! Requests at a node that was declared gone fail at once. One that can be sent again, as above, goes to the node that
//! takes the app over, and waits a while for it.

use std::{
    future::Future,
    rc::Rc,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use actix_http::{
    ConnectionType, Payload, Request, RequestHead, Response, StatusCode, Version,
    body::BodySize,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use callboard_platform::routing::{AppMetrics, InFlight, RouteState};
use hyper::body::{Body, Incoming};
use uuid::Uuid;

use super::{
    Proxied, Settings, Worker,
    body::{Relay, RequestBody, ResponseBody, Upload},
    census::Visit,
    choose::{Chosen, Tried},
    failure::{Failure, Visitor},
    headers::{self, Origin},
    hop::{self, Sender},
    pool::{Connection, Pool},
    upgrade,
};
use crate::{address, limits::Class, pace::Pace};

/// How long an instance that refused a connection is avoided while there are others.
const SUSPICION: Duration = Duration::from_secs(2);

/// How long a request at a node that is gone waits for the takeover of the app: some take longer than most.
const TAKEOVER_WITHIN: Duration = Duration::from_secs(30);
/// Interval of checking for the takeover, if no change wakes it.
const TAKEOVER_LOOK: Duration = Duration::from_millis(200);

/// An exchange whose response is on its way to the client; in flight until it is dropped.
pub(super) struct Exchange {
    connection: Option<Connection>,
    pool: Rc<Pool>,
    metrics: Option<AppMetrics>,
    started: Instant,
    _place: InFlight,
}

impl Exchange {
    /// Completes the exchange: the whole response was received, and the connection can be reused.
    pub fn complete(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.put(connection);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.took(self.started.elapsed());
        }
    }
}

/// A request being forwarded.
struct Forwarding<'a> {
    head: &'a RequestHead,
    app: &'a str,
    host: &'a str,
    request_id: &'a str,
    started: Instant,
    websocket: bool,
    sender: Sender,
    /// Whether sending it twice has the effect of sending it once, and it still can be sent.
    replayable: bool,
    length: Option<u64>,
    upload: Rc<Upload>,
}

impl Worker {
    /// Proxies the request. There always is a response.
    pub async fn forward(&self, mut request: Request, app: String, host: String) -> Proxied {
        let payload = Some(request.take_payload()).filter(|payload| !matches!(payload, Payload::None));
        let head = request.head();
        let request_id = headers::request_id(head);
        let websocket = headers::asks_for_websocket(head);
        let forwarding = Forwarding {
            head,
            app: &app,
            host: &host,
            request_id: &request_id,
            started: Instant::now(),
            websocket,
            sender: self.sender(head, &host),
            replayable: is_idempotent(head) && (payload.is_none() || websocket),
            length: head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()),
            upload: Upload::new(),
        };
        let outcome = match self.admit(&forwarding) {
            Ok(visit) => self.run(&forwarding, payload).await.map(|response| (response, visit)),
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(proxied) => proxied,
            Err(failure) => {
                let failure = self.limit(failure, &forwarding).await;
                tracing::debug!(app, request_id, status = failure.status().as_u16(), reason = %failure.reason(), "proxying a request failed");
                if let Some(route) = self.router.table.get(&app) {
                    route.metrics().answered(failure.status().as_u16());
                    route.metrics().took(forwarding.started.elapsed());
                }
                let forwarded = forwarding.sender != Sender::Client;
                (failure.page(&Visitor { head, app: &app, request_id: &request_id, forwarded }), None)
            }
        }
    }

    /// Counts a client in by its address; another node has counted those that it forwards.
    fn admit(&self, forwarding: &Forwarding<'_>) -> Result<Option<Visit>, Failure> {
        if forwarding.sender == Sender::Node {
            return Ok(None);
        }
        let census = &self.router.census;
        census.enter(self.subject(forwarding)).map(Some).ok_or_else(|| Failure::Crowded(census.limit()))
    }

    /// Counts a request for an app that does not exist against its address, as the API does.
    async fn limit(&self, failure: Failure, forwarding: &Forwarding<'_>) -> Failure {
        match &self.router.limits {
            Some(limits) if matches!(failure, Failure::UnknownApp) && forwarding.sender != Sender::Node => {
                let taken = limits.take(Class::Address, self.subject(forwarding)).await;
                taken.err().map_or(failure, Failure::RateLimited)
            }
            _ => failure,
        }
    }

    /// The subject that requests are counted against.
    fn subject(&self, forwarding: &Forwarding<'_>) -> u128 {
        let peer = forwarding.head.peer_addr.map(|peer| peer.ip());
        address::bucket(self.router.proxies.client_behind(peer, &forwarding.head.headers).address)
    }

    fn sender(&self, head: &RequestHead, host: &str) -> Sender {
        let sender = self.router.hops.as_ref().map_or(Sender::Client, |hops| hops.sender(head, host));
        if sender == Sender::LateNode {
            self.router.table.count_late_hop();
        }
        sender
    }

    async fn run(
        &self,
        forwarding: &Forwarding<'_>,
        mut payload: Option<Payload>,
    ) -> Result<Response<ResponseBody>, Failure> {
        check(forwarding)?;
        let mut unsent: Option<(Option<Uuid>, hyper::Request<RequestBody>)> = None;
        let mut tried = Tried::default();
        let has_body = payload.is_some() && !forwarding.websocket;
        let mut renew = false;
        let mut takeover = Takeover::default();
        loop {
            let chosen = self.choose(forwarding.app, forwarding.sender != Sender::Client, &mut tried).await;
            let Chosen { place, metrics } = match chosen {
                Err(failure) if failure.is_passing() && self.await_takeover(&takeover).await => {
                    tried = Tried::default();
                    continue;
                }
                chosen => chosen?,
            };
            let node = place.is_node().then(|| place.instance_id());
            let kept = if renew { None } else { self.pool.take(&place, forwarding.replayable) };
            let was_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => match self.pool.connect(place.endpoint()).await {
                    Ok(connection) => connection,
                    Err(error) => {
                        tracing::debug!(app = forwarding.app, instance = %place.instance_id(), %error, "an instance accepted no connection");
                        place.suspect(SUSPICION);
                        if place.is_lost() {
                            takeover.expect();
                        }
                        tried.ids.push(place.instance_id());
                        tried.failed = Some(match node {
                            Some(node) => Failure::node_refused(self.name_of(node), &error),
                            None => Failure::refused(&error),
                        });
                        continue;
                    }
                },
            };
            let message = match unsent.take() {
                Some((for_node, message)) if for_node == node => message,
                // Composed for another endpoint: the head is written anew.
                Some((_, message)) => self.compose(forwarding, node, Some(message.into_body()))?,
                None => self.compose(forwarding, node, self.body(forwarding, &mut payload))?,
            };
            connection.received.store(false, Ordering::Relaxed);
            let answer = connection.sender.try_send_request(message);
            let mut error = match self.within_timeout(answer, &forwarding.upload).await {
                // It had no effect there.
                Some(Ok(answer)) if !has_body && is_misdirected(node, &answer) && self.renew(&mut tried).await => {
                    continue;
                }
                // The list names the new owner before that node itself knows.
                Some(Ok(answer))
                    if !has_body && is_misdirected(node, &answer) && self.await_takeover(&takeover).await =>
                {
                    tried = Tried::default();
                    continue;
                }
                Some(Ok(answer)) if is_misdirected(node, &answer) => {
                    return Err(Failure::NoInstance(RouteState::Moving));
                }
                // Nor had it one at the new owner, as long as no instance serves.
                Some(Ok(answer)) if !has_body && is_unserved(node, &answer) && self.await_takeover(&takeover).await => {
                    tried = Tried::default();
                    continue;
                }
                Some(Ok(answer)) => return self.answer(forwarding, answer, connection, metrics, place, payload).await,
                Some(Err(error)) => error,
                None if place.is_lost() => return Err(Failure::NodeLost(self.name_of(place.instance_id()))),
                None if forwarding.upload.waiting_for_client() => return Err(Failure::ClientTooSlow),
                None => return Err(Failure::TooSlow(self.router.settings.response_timeout)),
            };
            let silent = !connection.received.load(Ordering::Relaxed);
            let unheard = error.take_message();
            if place.is_lost() {
                if unheard.is_none() && !forwarding.replayable {
                    return Err(Failure::NodeLost(self.name_of(place.instance_id())));
                }
                takeover.expect();
            }
            if let Some(message) = unheard {
                unsent = Some((node, message));
                if !was_kept {
                    place.suspect(SUSPICION);
                    tried.ids.push(place.instance_id());
                    tried.failed =
                        Some(Failure::Broken("it closed the connection before the request was sent".to_owned()));
                }
                renew = was_kept;
            } else if place.is_lost() {
                tried = Tried::default();
            } else if was_kept && forwarding.replayable && silent {
                renew = true;
            } else if forwarding.upload.late() {
                return Err(Failure::ClientTooSlow);
            } else if forwarding.upload.broken() {
                return Err(Failure::ClientBroke);
            } else {
                return Err(Failure::broken(error.error(), silent));
            }
        }
    }

    /// Waits a bounded time for the takeover of the app; false when none is expected, or none came in time.
    async fn await_takeover(&self, takeover: &Takeover) -> bool {
        if !takeover.is_expected() {
            return false;
        }
        let mut changes = self.router.table.changes();
        // A change of the table may be the takeover, but one to another node changes nothing here.
        let _ = tokio::time::timeout(TAKEOVER_LOOK, changes.changed()).await;
        true
    }

    fn body(&self, forwarding: &Forwarding<'_>, payload: &mut Option<Payload>) -> Option<RequestBody> {
        // A WebSocket's payload is the stream after the handshake: it stays here.
        let payload = if forwarding.websocket { None } else { payload.take() };
        let Settings { body_timeout, body_rate, .. } = *self.router.settings;
        let pace = || Pace::new(body_timeout, body_rate);
        payload.map(|payload| RequestBody::new(payload, forwarding.length, pace(), &forwarding.upload))
    }

    /// The message for an instance, or for another node.
    fn compose(
        &self,
        forwarding: &Forwarding<'_>,
        node: Option<Uuid>,
        body: Option<RequestBody>,
    ) -> Result<hyper::Request<RequestBody>, Failure> {
        let peer = forwarding.head.peer_addr.map(|peer| peer.ip());
        let hop =
            node.zip(self.router.hops.as_ref()).map(|(node, hops)| hops.sign(node, forwarding.head, forwarding.host));
        let origin = Origin {
            host: forwarding.host,
            peer,
            trusted: self.router.settings.trusts(peer),
            request_id: forwarding.request_id,
            websocket: forwarding.websocket,
            forwarded: forwarding.sender == Sender::Node,
            hop: hop.as_deref(),
        };
        let message = headers::request(forwarding.head, &origin).ok_or(Failure::Inexpressible)?;
        Ok(message.map(|()| body.unwrap_or_else(|| RequestBody::empty(&forwarding.upload))))
    }

    /// Waits for the head of the response; the time counts from the last piece of the request's body.
    async fn within_timeout<T>(&self, answer: impl Future<Output = T>, upload: &Upload) -> Option<T> {
        let timeout = self.router.settings.response_timeout;
        let mut deadline = Instant::now() + timeout;
        tokio::pin!(answer);
        loop {
            if let Ok(answer) = tokio::time::timeout_at(deadline.into(), &mut answer).await {
                return Some(answer);
            }
            let moved = upload.moved() + timeout;
            if moved <= Instant::now() {
                return None;
            }
            deadline = moved;
        }
    }

    async fn answer(
        &self,
        forwarding: &Forwarding<'_>,
        answer: hyper::Response<Incoming>,
        connection: Connection,
        metrics: Option<AppMetrics>,
        place: InFlight,
        payload: Option<Payload>,
    ) -> Result<Response<ResponseBody>, Failure> {
        let status = StatusCode::from_u16(answer.status().as_u16()).map_err(|_| Failure::Inexpressible)?;
        let mut head = Response::with_body(status, ());
        headers::response(answer.headers(), head.head_mut(), forwarding.request_id, status == StatusCode::NOT_MODIFIED);

        if status == StatusCode::SWITCHING_PROTOCOLS {
            let Some(payload) = payload.filter(|_| forwarding.websocket) else {
                return Err(Failure::Broken("it switched protocols without being asked to".to_owned()));
            };
            let tunnel = upgrade::tunnel(answer, payload, place).await?;
            metrics.iter().for_each(|metrics| metrics.answered(status.as_u16()));
            head.head_mut().set_connection_type(ConnectionType::Upgrade);
            return Ok(head.set_body(ResponseBody::Tunnel(tunnel)));
        }

        metrics.iter().for_each(|metrics| metrics.answered(status.as_u16()));
        let exchange = Exchange {
            connection: Some(connection),
            pool: Rc::clone(&self.pool),
            metrics,
            started: forwarding.started,
            _place: place,
        };
        let stated = answer.headers().get(hyper::header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        let incoming = answer.into_body();
        let size = match (status, &forwarding.head.method) {
            (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED, _) => BodySize::None,
            (_, &actix_http::Method::HEAD) => stated.map_or(BodySize::None, BodySize::Sized),
            _ => incoming.size_hint().exact().map_or(BodySize::Stream, BodySize::Sized),
        };
        frame(head.head_mut(), forwarding, size);
        if incoming.is_end_stream() {
            exchange.complete();
            return Ok(head.set_body(ResponseBody::Empty(size)));
        }
        Ok(head.set_body(ResponseBody::Relay(Relay::new(incoming, size, exchange))))
    }
}

/// Whether, and until when, a request waits for the takeover of its app.
#[derive(Default)]
struct Takeover(Option<Instant>);

impl Takeover {
    fn expect(&mut self) {
        self.0.get_or_insert_with(|| Instant::now() + TAKEOVER_WITHIN);
    }

    fn is_expected(&self) -> bool {
        self.0.is_some_and(|until| Instant::now() < until)
    }
}

/// Whether the node that runs the app reports that no instance of it serves.
fn is_unserved(node: Option<Uuid>, answer: &hyper::Response<Incoming>) -> bool {
    node.is_some() && answer.headers().contains_key(hop::NO_INSTANCE)
}

/// Whether another node reports that it does not run the app; an app's own response with this status is passed on.
fn is_misdirected(node: Option<Uuid>, answer: &hyper::Response<Incoming>) -> bool {
    node.is_some() && answer.headers().contains_key(hop::MISDIRECTED)
}

/// Keeps actix-http from a framing that the client could not read.
fn frame(head: &mut actix_http::ResponseHead, forwarding: &Forwarding<'_>, size: BodySize) {
    let old = forwarding.head.version < Version::HTTP_11;
    // After a refused upgrade, everything from this client would be taken for the stream.
    let spoilt = forwarding.websocket;
    if old || spoilt {
        head.no_chunking(true);
    }
    let upgrade = forwarding.head.connection_type() == ConnectionType::Upgrade;
    if upgrade || spoilt || (old && size == BodySize::Stream) {
        head.set_connection_type(ConnectionType::Close);
    }
}

fn check(forwarding: &Forwarding<'_>) -> Result<(), Failure> {
    let head = forwarding.head;
    if matches!(head.method, actix_http::Method::CONNECT | actix_http::Method::TRACE) {
        return Err(Failure::MethodRefused);
    }
    if headers::names_websocket(head) {
        let body = head.headers.contains_key(TRANSFER_ENCODING) || forwarding.length.is_some_and(|length| length > 0);
        if !forwarding.websocket || body || head.method != actix_http::Method::GET || head.version != Version::HTTP_11 {
            return Err(Failure::BadUpgrade);
        }
    }
    Ok(())
}

fn is_idempotent(head: &RequestHead) -> bool {
    use actix_http::Method;
    matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}
