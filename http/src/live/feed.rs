//! The events of several topics for one reader, until something ends it.

use std::{borrow::Cow, collections::VecDeque, rc::Rc, sync::Arc, time::Duration};

use callboard_messages::{OrganizationId, Secret};
use callboard_supervisors::{LiveError, LiveEvent, LiveStream};
use chrono::{DateTime, Utc};
use futures_util::{
    StreamExt,
    stream::{LocalBoxStream, SelectAll},
};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::topic::{LINES, Topic};
use crate::{
    problem::Problem,
    server::Stopping,
    session,
    worker::{Arrival, Request, Worker},
};

const HEARTBEAT: Duration = Duration::from_secs(15);
/// How soon a revocation ends a stream.
const CHECK: Duration = Duration::from_millis(500);

/// What a reader gets next.
#[derive(Debug)]
pub(super) enum Item {
    Event(Event),
    Heartbeat,
    /// Nothing more comes; why.
    End(&'static str),
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
    arrival: Rc<Arrival>,
    token: Option<Secret>,
    organization_id: Option<OrganizationId>,
    expires_at: DateTime<Utc>,
    epoch: u64,
    topics: Vec<Following>,
    hub: SelectAll<LocalBoxStream<'static, OfTopic>>,
    /// What came before the stream, and is told first.
    backlog: VecDeque<(usize, u64, &'static str, Value)>,
    heartbeat: Interval,
    check: Interval,
    stopping: Stopping,
    ended: bool,
}

struct Following {
    name: Arc<str>,
    last_id: Option<u64>,
    /// The last line of its log that was told.
    last_line: u64,
    has_lines: bool,
}

impl Feed {
    /// Asks whether the caller may, then follows. The hub first and the store second: nothing falls between.
    pub(super) async fn open(request: &Request, topics: Vec<Topic>, after: Vec<Option<u64>>) -> Result<Self, Problem> {
        let Some(expires_at) = request.expires_at else { return Err(Problem::unauthenticated()) };
        let worker = Rc::clone(&request.worker);
        // Counted from here on, because every feed that is dropped is counted out.
        worker.shared.metrics.live.inc();
        let mut feed = Self {
            arrival: Rc::clone(&request.arrival),
            token: token(request),
            organization_id: session::organization_of(&request.http),
            expires_at,
            epoch: worker.shared.revocations.epoch(),
            topics: Vec::with_capacity(topics.len()),
            hub: SelectAll::new(),
            backlog: VecDeque::new(),
            heartbeat: every(HEARTBEAT),
            check: every(CHECK),
            stopping: worker.shared.stopping.clone(),
            ended: false,
            worker,
        };
        for (index, (topic, after)) in topics.into_iter().zip(after).enumerate() {
            let deployment = topic.authorize(request).await?;
            let name = topic.name();
            let stream: LiveStream =
                feed.worker.shared.runtime.live().subscribe(&name, after.filter(|_| !topic.has_lines()));
            feed.hub.push(stream.map(move |event| (index, event)).boxed_local());
            let mut following =
                Following { name: name.into(), last_id: after, last_line: 0, has_lines: topic.has_lines() };
            if let Some(deployment) = deployment {
                let data = serde_json::to_value(deployment).unwrap_or_default();
                feed.backlog.push_back((index, after.unwrap_or(0), "deployment", data));
            }
            if let (Some(after), true) = (after, topic.has_lines()) {
                following.last_line = feed.catch_up(request, &topic, index, after).await?;
            }
            feed.topics.push(following);
        }
        Ok(feed)
    }

    /// Puts the lines after `after` into the backlog; answers the last one's id.
    async fn catch_up(&mut self, request: &Request, topic: &Topic, index: usize, after: u64) -> Result<u64, Problem> {
        const PAGES: usize = 20;
        let mut last = after;
        for _ in 0..PAGES {
            let lines = topic.lines(request, last).await?.items;
            let count = lines.len();
            for line in lines {
                last = last.max(line.id);
                self.backlog.push_back((index, line.id, "log", serde_json::to_value(line).unwrap_or_default()));
            }
            if count < LINES as usize {
                break;
            }
        }
        Ok(last)
    }

    /// The next item; `None` after the end.
    pub(super) async fn next(&mut self) -> Option<Item> {
        if self.ended {
            return None;
        }
        loop {
            if let Some((index, id, kind, data)) = self.backlog.pop_front() {
                return self.event(index, id, kind.into(), data).map(Item::Event);
            }
            tokio::select! {
                biased;
                () = self.stopping.begun() => return self.end("the node stops; connect again"),
                _ = self.check.tick() => {
                    if let Some(why) = self.check_session().await {
                        return self.end(why);
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
                    Some((_, Err(LiveError::Lagged))) => return self.end("the reader did not keep up; resume"),
                    None => return self.end("the topics ended"),
                },
                _ = self.heartbeat.tick() => return Some(Item::Heartbeat),
            }
        }
    }

    fn end(&mut self, why: &'static str) -> Option<Item> {
        self.ended = true;
        Some(Item::End(why))
    }

    /// An event of the hub, unless the store told it already.
    fn live(&mut self, index: usize, event: &LiveEvent) -> Option<Event> {
        let topic = self.topics.get_mut(index)?;
        let mut id = event.id;
        if topic.has_lines {
            // A log resumes after a line, so its ids are those of its lines; what is no line happens after the last one.
            match event.data.get("id").and_then(Value::as_u64).filter(|_| event.kind == "log") {
                Some(line) if line <= topic.last_line => return None,
                Some(line) => {
                    topic.last_line = line;
                    id = line;
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

    /// Why the stream must end, if the caller's credentials don't hold any more.
    async fn check_session(&mut self) -> Option<&'static str> {
        let now = self.worker.clock().now();
        let is_current = self.worker.shared.revocations.is_current();
        let epoch = self.worker.shared.revocations.epoch();
        if is_current && epoch == self.epoch && now < self.expires_at {
            return None;
        }
        let token = self.token.clone()?;
        match self.worker.ask_auth(token, self.organization_id, &self.arrival).await {
            Ok(validated) => {
                self.epoch = epoch;
                self.expires_at = validated.expires_at;
                None
            }
            // Auth being away for a moment is no reason: it is asked again at the next check.
            Err(problem) if problem.status.is_server_error() => None,
            Err(_) => Some("the session has ended; sign in again"),
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.worker.shared.metrics.live.dec();
    }
}

fn token(request: &Request) -> Option<Secret> {
    session::token_of(&request.worker, &request.http, &request.arrival)
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}
