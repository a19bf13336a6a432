//! The events of several topics for one reader, until something ends it.

use std::{
    borrow::Cow,
    collections::{BTreeSet, VecDeque},
    future::ready,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use callboard_messages::Caller;
use callboard_supervisors::{LiveError, LiveEvent, LiveStream};
use futures_util::{
    StreamExt,
    stream::{LocalBoxStream, SelectAll},
};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{
    credentials::Credentials,
    topic::{LINES, Topic},
};
use crate::{
    problem::Problem,
    server::Stopping,
    worker::{Request, Worker},
};

const HEARTBEAT: Duration = Duration::from_secs(15);
/// How soon a revocation ends a stream.
const CHECK: Duration = Duration::from_millis(250);

/// Lines of the store that are remembered: a hub that has more to tell than half of them has cut the reader.
const TOLD: usize = 1024;

/// What a reader gets next.
#[derive(Debug)]
pub(super) enum Item {
    Event(Event),
    Heartbeat,
    /// Nothing more comes.
    End(End),
}

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct End {
    pub(super) reason: &'static str,
    /// Whether the reader may connect again as it is, and resume.
    pub(super) resume: bool,
}

impl End {
    pub(super) const fn for_now(reason: &'static str) -> Self {
        Self { reason, resume: true }
    }

    pub(super) const fn for_good(reason: &'static str) -> Self {
        Self { reason, resume: false }
    }
}

/// An event, and how far the reader is in every topic.
#[derive(Debug, Serialize)]
pub(super) struct Event {
    pub(super) topic: Arc<str>,
    pub(super) id: u64,
    pub(super) kind: Cow<'static, str>,
    pub(super) data: Value,
    #[serde(skip)]
    pub(super) position: String,
}

/// The number of a topic, and what the hub told.
type OfTopic = (usize, Result<Arc<LiveEvent>, LiveError>);

pub(super) struct Feed {
    worker: Rc<Worker>,
    caller: Caller,
    credentials: Credentials,
    topics: Vec<Following>,
    hub: SelectAll<LocalBoxStream<'static, OfTopic>>,
    /// What was read from the store, and is told before anything of the hub.
    backlog: VecDeque<(usize, u64, &'static str, Value)>,
    /// Topics of which the store has more.
    behind: VecDeque<usize>,
    heartbeat: Interval,
    check: Interval,
    stopping: Stopping,
    ended: bool,
}

struct Following {
    topic: Topic,
    name: Arc<str>,
    last_id: Option<u64>,
    /// The greatest line of its log that was told.
    last_line: u64,
    /// Lines that the store told last, which the hub may tell as well.
    told: BTreeSet<u64>,
}

impl Feed {
    /// Asks whether the caller may, then follows. The hub first and the store second: nothing falls between. A hub that
    /// does not wait while the store is read cuts the reader, who has come as far as the store then, and resumes there.
    pub(super) async fn open(request: &Request, topics: Vec<Topic>, after: Vec<Option<u64>>) -> Result<Self, Problem> {
        let credentials = Credentials::of(request).await?;
        let worker = Rc::clone(&request.worker);
        // Counted from here on, because every feed that is dropped is counted out.
        worker.shared.metrics.live.inc();
        let mut feed = Self {
            caller: request.caller.clone(),
            credentials,
            topics: Vec::with_capacity(topics.len()),
            hub: SelectAll::new(),
            backlog: VecDeque::new(),
            behind: VecDeque::new(),
            heartbeat: every(HEARTBEAT),
            check: every(CHECK),
            stopping: worker.shared.stopping.clone(),
            ended: false,
            worker,
        };
        for (index, (topic, after)) in topics.into_iter().zip(after).enumerate() {
            let beginning = topic.admit(feed.worker.bus(), &feed.caller).await?;
            let name = topic.name();
            let stream: LiveStream =
                feed.worker.shared.runtime.live().subscribe(&name, after.filter(|_| !topic.has_lines()));
            feed.hub.push(stream.map(move |event| (index, event)).boxed_local());
            feed.topics.push(Following {
                topic,
                name: name.into(),
                last_id: after,
                last_line: after.unwrap_or(0),
                told: BTreeSet::new(),
            });
            if let Some((kind, data)) = beginning {
                feed.backlog.push_back((index, after.unwrap_or(0), kind, data));
            }
            if after.is_some() && topic.has_lines() {
                feed.read_on(index).await?;
            }
        }
        Ok(feed)
    }

    /// Puts the next lines of a log into the backlog. It asks from the last one that was told: when the store does not
    /// know that one any more, it may have forgotten others after it, and the reader is told of the gap.
    async fn read_on(&mut self, index: usize) -> Result<(), Problem> {
        let Some(following) = self.topics.get(index) else { return Ok(()) };
        let last = following.last_line;
        let lines = following.topic.lines(self.worker.bus(), &self.caller, last.saturating_sub(1)).await?;
        self.behind.retain(|behind| *behind != index);
        if lines.len() >= LINES as usize {
            self.behind.push_back(index);
        }
        if last > 0 && lines.first().is_none_or(|(first, _)| *first != last) {
            self.backlog.push_back((index, last, "gap", Value::Null));
        }
        for (id, line) in lines.into_iter().filter(|(id, _)| *id > last) {
            if let Some(following) = self.topics.get_mut(index) {
                following.last_line = id;
                following.told.insert(id);
                if following.told.len() > TOLD {
                    following.told.pop_first();
                }
            }
            self.backlog.push_back((index, id, "log", line));
        }
        Ok(())
    }

    /// The next item; `None` after the end. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Item> {
        if self.ended {
            return None;
        }
        loop {
            let has_more = !self.backlog.is_empty() || !self.behind.is_empty();
            tokio::select! {
                biased;
                () = self.stopping.begun() => return self.end(End::for_now("the node stops; connect again")),
                end = confirm(&mut self.check, &mut self.credentials) => {
                    if let Some(end) = end {
                        return self.end(end);
                    }
                }
                () = ready(()), if has_more => {
                    if let Some((index, id, kind, data)) = self.backlog.pop_front() {
                        return self.event(index, id, kind.into(), data).map(Item::Event);
                    }
                    let Some(index) = self.behind.front().copied() else { continue };
                    if self.read_on(index).await.is_err() {
                        return self.end(End::for_now("the log can't be read now; resume"));
                    }
                }
                event = self.hub.next() => match event {
                    Some((index, Ok(event))) => {
                        if let Some(event) = self.live(index, &event) {
                            return Some(Item::Event(event));
                        }
                    }
                    Some((index, Err(LiveError::Gap))) => {
                        let id = self.topics.get(index).and_then(|topic| topic.last_id).unwrap_or(0);
                        return self.event(index, id, "gap".into(), Value::Null).map(Item::Event);
                    }
                    Some((_, Err(LiveError::Lagged))) => {
                        return self.end(End::for_now("the reader did not keep up; resume"));
                    }
                    Some((_, Err(LiveError::Interrupted))) => {
                        return self.end(End::for_now("what other nodes told may be lost; resume"));
                    }
                    None => return self.end(End::for_now("the topics ended")),
                },
                _ = self.heartbeat.tick() => return Some(Item::Heartbeat),
            }
        }
    }

    fn end(&mut self, end: End) -> Option<Item> {
        self.ended = true;
        Some(Item::End(end))
    }

    /// An event of the hub, unless the store told it already.
    fn live(&mut self, index: usize, event: &LiveEvent) -> Option<Event> {
        let topic = self.topics.get_mut(index)?;
        let mut id = event.id;
        if topic.topic.has_lines() {
            // A log resumes after a line, so its ids are those of its lines; what is no line happens after the last one.
            match event.data.get("id").and_then(Value::as_u64).filter(|_| event.kind == "log") {
                Some(line) if topic.told.contains(&line) => return None,
                // When an app moves, the last lines of one node may come after the first of another.
                Some(line) => {
                    topic.last_line = topic.last_line.max(line);
                    id = topic.last_line;
                }
                None => id = topic.last_line,
            }
        }
        self.event(index, id, event.kind.clone(), event.data.clone())
    }

    fn event(&mut self, index: usize, id: u64, kind: Cow<'static, str>, data: Value) -> Option<Event> {
        let topic = self.topics.get_mut(index)?;
        topic.last_id = Some(id);
        let name = Arc::clone(&topic.name);
        let ids = self.topics.iter().map(|topic| topic.last_id.map_or_else(String::new, |id| id.to_string()));
        let position = ids.collect::<Vec<_>>().join(";");
        Some(Event { topic: name, id, kind, data, position })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.worker.shared.metrics.live.dec();
    }
}

/// Waits for the next check, unless one is under way, and for what comes of it.
async fn confirm(check: &mut Interval, credentials: &mut Credentials) -> Option<End> {
    if !credentials.is_asking() {
        check.tick().await;
    }
    credentials.check().await
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}
