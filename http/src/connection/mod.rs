//! A client's connection, between its socket and actix-http.
//!
//! actix-http is a server for programs that trust their peers: it reads as many requests as have come and frames each
//! response by the head that it read last, answers what it can't parse without a reason, waits for a second head
//! without a limit, and does not notice when the client has gone. The stream that it reads from adds what is missing:
//!
//! - a head is handed on when it is whole and unambiguous, and otherwise answered with a reason (`head`);
//! - the bytes of a request are handed on when the one before is answered (`framing` counts them, `turn` says when);
//! - a client that has gone ends its request, if the service asks for that (`presence`);
//! - a head has a time limit, and an idle connection is closed.

mod alarm;
mod framing;
mod head;
mod presence;
mod refusal;
mod serve;
mod stream;
mod turn;

pub(crate) use alarm::Alarm;
pub use serve::{Edge, listen};
pub(crate) use turn::{Turn, Turns};
