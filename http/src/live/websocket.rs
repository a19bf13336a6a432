//! A WebSocket that tells and does not listen: each event is one text frame.

use actix_http::ws::Frame;
use actix_web::{FromRequest, HttpResponse, dev::Payload, web};
use actix_ws::{CloseCode, CloseReason, Session};
use tokio::time::timeout;

use super::{
    SEND_WITHIN,
    feed::{Feed, Item},
    frames::Frames,
};
use crate::{problem::Problem, session::origin, worker::Request};

/// Browsers open WebSockets across origins, with cookies, without asking anyone.
pub(super) fn check_origin(request: &Request) -> Result<(), Problem> {
    if origin::may_connect(&request.http, &request.worker) { Ok(()) } else { Err(crate::session::foreign_page()) }
}

pub(super) async fn answer(mut request: Request, feed: Feed) -> Result<HttpResponse, Problem> {
    let no_handshake = |_| Problem::invalid("this is no WebSocket handshake");
    let frames = Frames::new(request.payload.take());
    // The messages of actix-ws are let go: it judges a frame when it has all of it.
    let nothing = web::Payload::from_request(&request.http, &mut Payload::None).await.map_err(no_handshake)?;
    let (response, session, _) = actix_ws::handle(&request.http, nothing).map_err(no_handshake)?;
    actix_rt::spawn(tell(feed, session, frames));
    Ok(response)
}

async fn tell(mut feed: Feed, mut session: Session, mut frames: Frames) {
    let reason = loop {
        tokio::select! {
            frame = frames.next() => match frame {
                Some(Ok(Frame::Ping(bytes))) => {
                    if !matches!(timeout(SEND_WITHIN, session.pong(&bytes)).await, Ok(Ok(()))) {
                        return;
                    }
                }
                Some(Ok(Frame::Close(reason))) => break reason,
                Some(Ok(_)) => {}
                Some(Err((code, why))) => break closing(code, why),
                None => return,
            },
            item = feed.next() => {
                let sent = match item {
                    Some(Item::Event(event)) => {
                        let text = serde_json::to_string(&event).unwrap_or_default();
                        timeout(SEND_WITHIN, session.text(text)).await
                    }
                    Some(Item::Heartbeat) => timeout(SEND_WITHIN, session.ping(b"")).await,
                    Some(Item::End(end)) => {
                        let code = if end.resume { CloseCode::Again } else { CloseCode::Policy };
                        break closing(code, end.reason);
                    }
                    None => return,
                };
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        }
    };
    // The reader may be gone; there is nobody else to tell.
    let _ = timeout(SEND_WITHIN, session.close(reason)).await;
}

fn closing(code: CloseCode, why: &str) -> Option<CloseReason> {
    Some(CloseReason { code, description: Some(why.to_owned()) })
}
