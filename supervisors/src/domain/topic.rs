//! What of a domain can be followed live, without the types of its contract: so that a gateway follows the topics of every
//! domain, wherever that is hosted, and knows none of them.

use callboard_messages::{
    CallError, Caller, Failure, Operation,
    code::Refused,
    live::{Log, Topic},
};
use futures_util::{FutureExt, future::LocalBoxFuture};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::call::bus::Bus;

/// A topic of a domain.
#[derive(Clone, Copy)]
pub struct LiveTopic {
    kind: &'static str,
    asks: [Option<&'static str>; 2],
    admit: Admit,
    lines: Option<Lines>,
}

type Asked<'a, T> = LocalBoxFuture<'a, Result<T, CallError<Refused>>>;
type Admit = for<'a> fn(&'a Bus, &'a Caller, Uuid) -> Asked<'a, Option<Beginning>>;
type Lines = for<'a> fn(&'a Bus, &'a Caller, Uuid, u64, u32) -> Asked<'a, Vec<Line>>;

/// The kind and the data of the event that a stream begins with.
type Beginning = (&'static str, Value);

/// The id and the data of a line that is kept.
type Line = (u64, Value);

impl LiveTopic {
    pub(crate) fn of<T: Topic>() -> Self {
        let asks = [Some(T::Admission::NAME), None];
        Self { kind: T::KIND, asks, admit: |bus, caller, id| admit::<T>(bus, caller, id).boxed_local(), lines: None }
    }

    pub(crate) fn of_log<T: Log>() -> Self {
        let asks = [Some(T::Admission::NAME), Some(T::Lines::NAME)];
        let lines: Lines = |bus, caller, id, after, limit| lines::<T>(bus, caller, id, after, limit).boxed_local();
        Self { asks, lines: Some(lines), ..Self::of::<T>() }
    }

    /// What stands before the id.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// The operations that are asked for whoever follows it.
    pub fn asks(&self) -> impl Iterator<Item = &'static str> {
        self.asks.into_iter().flatten()
    }

    /// Whether its lines are kept, under ids of their own.
    #[must_use]
    pub const fn has_lines(&self) -> bool {
        self.lines.is_some()
    }

    /// Whether the caller may follow this one; what its stream begins with.
    ///
    /// # Errors
    /// What the domain refuses, or the failure that kept it from answering.
    pub async fn admit(&self, bus: &Bus, caller: &Caller, id: Uuid) -> Result<Option<Beginning>, CallError<Refused>> {
        (self.admit)(bus, caller, id).await
    }

    /// Up to `limit` lines after the line `after`, oldest first; none of a topic that keeps none.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub async fn lines(
        &self,
        bus: &Bus,
        caller: &Caller,
        id: Uuid,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Line>, CallError<Refused>> {
        match self.lines {
            Some(lines) => lines(bus, caller, id, after, limit).await,
            None => Ok(Vec::new()),
        }
    }
}

async fn admit<T: Topic>(bus: &Bus, caller: &Caller, id: Uuid) -> Result<Option<Beginning>, CallError<Refused>> {
    let reply = bus.ask(caller, T::admission(id)).await.map_err(CallError::untyped)?;
    if let Some(permission) = T::PERMISSION.filter(|permission| !caller.scopes.allows(permission)) {
        return Err(Failure::Forbidden(permission.into()).into());
    }
    T::BEGINNING.map(|kind| Ok((kind, written(&reply)?))).transpose()
}

async fn lines<T: Log>(
    bus: &Bus,
    caller: &Caller,
    id: Uuid,
    after: u64,
    limit: u32,
) -> Result<Vec<Line>, CallError<Refused>> {
    let reply = bus.ask(caller, T::lines(id, after, limit)).await.map_err(CallError::untyped)?;
    T::kept(reply).into_iter().map(|(id, line)| Ok((id, written(&line)?))).collect()
}

fn written(data: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(data).map_err(|error| Failure::Internal(format!("a live event cannot be written: {error}")))
}

impl Bus {
    /// What can be followed of all domains, here and on other nodes.
    pub fn topics(&self) -> impl Iterator<Item = LiveTopic> {
        self.domains().iter().flat_map(|core| core.topics.iter().copied())
    }
}
