//! A client's connection, between its socket and actix-http.
//!
//! actix-http is a server for programs that trust their peers: it reads as many requests as have come and frames each
//! answer by the head that it read last, answers what it can't parse without a word, waits for a second head as long as
//! for ever, and does not look whether anybody still waits for the answer. What is missing stands here, in the stream that
//! it reads from:
//!
//! - a head is handed on when it is whole and can be read in one way only, and otherwise answered with a reason (`head`);
//! - the bytes of a request are handed on when the one ahead is answered (`framing` counts them, `turn` says when);
//! - a client that has left ends its request, if the service asks for that (`presence`);
//! - a head has a time to arrive, and what stands still is closed.

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
