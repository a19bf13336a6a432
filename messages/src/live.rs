//! What of a domain can be followed live, and by whom.
//!
//! A domain publishes events under the name of a topic, `<kind>:<id>`. It says so by one of these types and by one line of its
//! contract, from which every gateway knows whom to ask whether somebody may follow, and what its store still has.

use serde::Serialize;
use uuid::Uuid;

use crate::Operation;

/// What people watch of one thing, such as a deployment.
pub trait Topic: 'static {
    /// What stands before the id.
    const KIND: &'static str;
    /// Asked in the follower's name: whoever it refuses may not follow.
    type Admission: Operation;
    /// What a follower needs besides.
    const PERMISSION: Option<&'static str> = None;
    /// The kind of the event that a stream begins with, if it begins with the reply to its admission.
    const BEGINNING: Option<&'static str> = None;

    /// The question about the thing with this id.
    fn admission(id: Uuid) -> Self::Admission;

    /// The name under which its events are published.
    fn name(id: impl Into<Uuid>) -> String {
        format!("{}:{}", Self::KIND, id.into())
    }
}

/// A topic whose lines are kept under ids of their own, and read again by whoever resumes. They are published as events
/// of the kind `log` whose data has that `id`.
pub trait Log: Topic {
    /// Reads lines.
    type Lines: Operation;
    /// A line, as it is published.
    type Line: Serialize;

    /// Asks for up to `limit` lines after the line `after`.
    fn lines(id: Uuid, after: u64, limit: u32) -> Self::Lines;

    /// The lines with their ids, oldest first.
    fn kept(reply: <Self::Lines as Operation>::Reply) -> Vec<(u64, Self::Line)>;
}
