//! A WebSocket that tells and does not listen: each event is one text frame.

use actix_web::{FromRequest, HttpResponse, web};
use actix_ws::{CloseCode, CloseReason, Message, MessageStream, Session};

use super::{
    SEND_WITHIN,
    feed::{Feed, Item},
};
use crate::{problem::Problem, session::origin, worker::Request};

/// A reader sends pongs and a close, nothing large.
const FRAME: usize = 4 * 1024;

/// Browsers open WebSockets across origins, with cookies, without asking anyone.
pub(super) fn check_origin(request: &Request) -> Result<(), Problem> {
    if origin::may_connect(&request.http, &request.worker) { Ok(()) } else { Err(crate::session::foreign_page()) }
}

pub(super) async fn answer(mut request: Request, feed: Feed) -> Result<HttpResponse, Problem> {
    let no_handshake = |_| Problem::invalid("this is no WebSocket handshake");
    let payload = web::Payload::from_request(&request.http, &mut request.payload).await.map_err(no_handshake)?;
    let (response, session, messages) = actix_ws::handle(&request.http, payload).map_err(no_handshake)?;
    actix_rt::spawn(tell(feed, session, messages.max_frame_size(FRAME)));
    Ok(response)
}

async fn tell(mut feed: Feed, mut session: Session, mut messages: MessageStream) {
    let reason = loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(Ok(Message::Ping(bytes))) => {
                    if session.pong(&bytes).await.is_err() {
                        return;
                    }
                }
                Some(Ok(Message::Pong(_) | Message::Nop)) => {}
                Some(Ok(Message::Close(reason))) => break reason,
                Some(Ok(_)) => break closing(CloseCode::Policy, "this stream only tells"),
                Some(Err(_)) => break closing(CloseCode::Size, "that is not a small WebSocket frame"),
                None => return,
            },
            item = feed.next() => {
                let sent = match item {
                    Some(Item::Event(event)) => {
                        let text = serde_json::to_string(&event).unwrap_or_default();
                        tokio::time::timeout(SEND_WITHIN, session.text(text)).await
                    }
                    Some(Item::Heartbeat) => tokio::time::timeout(SEND_WITHIN, session.ping(b"")).await,
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
    let _ = tokio::time::timeout(SEND_WITHIN, session.close(reason)).await;
}

fn closing(code: CloseCode, why: &str) -> Option<CloseReason> {
    Some(CloseReason { code, description: Some(why.to_owned()) })
}
