//! Server-sent events.

use std::convert::Infallible;

use actix_web::{
    HttpResponse,
    http::header::{self, HeaderValue},
};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;

use super::{
    SEND_WITHIN,
    feed::{Feed, Item},
};

/// Events that wait for their reader, beyond those the hub keeps for it.
const WAITING: usize = 16;

/// Streams the feed. The response alone could not tell a reader that stands still: it is not asked for more.
pub(super) fn answer(feed: Feed) -> HttpResponse {
    let (told, mut telling) = mpsc::channel(WAITING);
    actix_rt::spawn(tell(feed, told));
    let events = stream::poll_fn(move |cx| telling.poll_recv(cx).map(|text| text.map(Ok::<Bytes, Infallible>)));
    let mut response = HttpResponse::Ok().content_type("text/event-stream; charset=utf-8").streaming(events);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// Until the feed ends, or the reader goes away or does not read.
async fn tell(mut feed: Feed, told: mpsc::Sender<Bytes>) {
    let mut text = Bytes::from_static(b"retry: 2000\n\n");
    while let Ok(Ok(())) = tokio::time::timeout(SEND_WITHIN, told.send(text)).await {
        let item = tokio::select! {
            item = feed.next() => item,
            () = told.closed() => return,
        };
        text = match item {
            Some(Item::Event(event)) => {
                let data = serde_json::to_string(&event).unwrap_or_default();
                Bytes::from(format!("id: {}\nevent: {}\ndata: {data}\n\n", event.position, event.kind))
            }
            Some(Item::Heartbeat) => Bytes::from_static(b": heartbeat\n\n"),
            Some(Item::End(end)) => {
                let data = serde_json::to_string(&end).unwrap_or_default();
                Bytes::from(format!("event: end\ndata: {data}\n\n"))
            }
            None => return,
        };
    }
}
