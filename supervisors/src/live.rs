//! Live updates: a hub of topics on every node, connected to those of other nodes.
//!
//! A topic keeps its last events, so that a reader who lost its connection resumes after the last id it saw. Publishers
//! never wait for readers: each has a bounded buffer, and one that falls behind is cut with an error.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures_util::Stream;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::time::clock::Clock;

/// Events that a topic keeps for readers who resume.
const HISTORY: usize = 512;
/// Events a reader may be behind.
const BUFFER: usize = 512;
/// How long a topic without readers is remembered after its last event.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Number of topics from which expired ones are removed whenever one is added.
const TOPICS: usize = 1024;

/// One update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveEvent {
    /// Increasing within a topic, also over restarts of the node. Assigned when the event is published, unless its
    /// publisher keeps ids of its own: a greater one than the topic's last stays as it is.
    pub id: u64,
    /// What happened, such as `deployment.status`.
    pub kind: Cow<'static, str>,
    /// Its data.
    pub data: serde_json::Value,
}

impl LiveEvent {
    /// An event whose id the hub assigns.
    #[must_use]
    pub const fn new(kind: &'static str, data: serde_json::Value) -> Self {
        Self { id: 0, kind: Cow::Borrowed(kind), data }
    }
}

/// Why a stream ends, or does not begin where it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// The reader was too slow and was cut; it may resume after the last id it saw.
    #[error("the reader did not keep up and was cut")]
    Lagged,
    /// Events of other nodes may have been lost; the reader may resume after the last id it saw.
    #[error("some of what other nodes told may be lost")]
    Interrupted,
    /// Events between the id asked for and the oldest one kept are lost; the stream goes on from there.
    #[error("some events since then are no longer remembered")]
    Gap,
}

/// The hub. Cheap to clone.
#[derive(Clone)]
pub struct Live {
    clock: Clock,
    topics: Arc<Mutex<HashMap<String, Topic>>>,
    others: Arc<OnceLock<Arc<dyn LiveTransport>>>,
}

/// Sends events to the hubs of other nodes.
pub trait LiveTransport: Send + Sync {
    /// Sends an event. Never waits: an event that can't be sent now is lost to other nodes.
    fn tell(&self, topic: &str, event: &LiveEvent);
}

struct Topic {
    last_id: u64,
    last_use: Instant,
    /// The last events, in order of their ids.
    history: VecDeque<Arc<LiveEvent>>,
    /// Id of the first event since those of other nodes may have been lost; [`u64::MAX`] until there is one.
    whole_from: u64,
    readers: Vec<Reader>,
}

struct Reader {
    events: mpsc::Sender<Arc<LiveEvent>>,
    cut: Cut,
}

/// Why a reader was cut, once it is.
type Cut = Arc<OnceLock<LiveError>>;

impl Live {
    /// An empty hub.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, topics: Arc::default(), others: Arc::default() }
    }

    /// Connects the hub to other nodes, once.
    pub fn connect(&self, others: Arc<dyn LiveTransport>) {
        if self.others.set(others).is_err() {
            tracing::error!("the live hub is connected already, and stays connected as it was");
        }
    }

    /// Publishes an event, here and on other nodes, and returns its id. Never waits.
    pub fn publish(&self, topic: &str, mut event: LiveEvent) -> u64 {
        let event = {
            let mut topics = self.topics.lock();
            let topic = self.topic(&mut topics, topic);
            if event.id <= topic.last_id {
                event.id = self.next_id(topic);
            }
            let event = Arc::new(event);
            topic.append(event.clone());
            event
        };
        if let Some(others) = self.others.get() {
            others.tell(topic, &event);
        }
        event.id
    }

    /// Takes an event that another node published, with the id it has there, which a different event may have here. One
    /// that is known already, or is older than what is kept, is ignored.
    pub fn receive(&self, topic: &str, event: LiveEvent) {
        let mut topics = self.topics.lock();
        self.topic(&mut topics, topic).insert(Arc::new(event));
    }

    /// Notes that other nodes' events of a topic, or of every one, may have been lost: its readers are cut, and one
    /// that resumes from before gets [`LiveError::Gap`].
    pub fn interrupt(&self, topic: Option<&str>) {
        let mut topics = self.topics.lock();
        match topic {
            Some(name) => topics.get_mut(name).into_iter().for_each(Topic::interrupt),
            None => topics.values_mut().for_each(Topic::interrupt),
        }
    }

    /// Follows a topic: from now on, or after the event `after` that the reader saw last.
    #[must_use]
    pub fn subscribe(&self, topic: &str, after: Option<u64>) -> LiveStream {
        let mut topics = self.topics.lock();
        let topic = self.topic(&mut topics, topic);
        topic.readers.retain(|reader| !reader.events.is_closed());
        let (events, received) = mpsc::channel(BUFFER);
        let cut = Cut::default();
        topic.readers.push(Reader { events, cut: cut.clone() });

        let mut missed = VecDeque::new();
        if let Some(after) = after {
            let seen_is_remembered = topic.history.front().is_some_and(|oldest| oldest.id <= after);
            let is_whole = after >= topic.whole_from && (seen_is_remembered || after == topic.last_id);
            if after != 0 && !is_whole {
                missed.push_back(Err(LiveError::Gap));
            }
            missed.extend(topic.history.iter().filter(|event| event.id > after).cloned().map(Ok));
        }
        LiveStream { missed, received, cut, ended: false }
    }

    fn topic<'a>(&self, topics: &'a mut HashMap<String, Topic>, name: &str) -> &'a mut Topic {
        let now = self.clock.instant();
        if !topics.contains_key(name) && topics.len() >= TOPICS {
            topics.retain(|_, topic| {
                topic.readers.retain(|reader| !reader.events.is_closed());
                !topic.readers.is_empty() || now.saturating_duration_since(topic.last_use) < REMEMBERED
            });
        }
        let topic = topics.entry(name.to_owned()).or_insert_with(|| Topic {
            last_id: 0,
            last_use: now,
            history: VecDeque::new(),
            whole_from: 0,
            readers: Vec::new(),
        });
        topic.last_use = now;
        topic
    }

    /// The time in microseconds, or one more than the last id: an id from before a restart is never used again.
    fn next_id(&self, topic: &Topic) -> u64 {
        u64::try_from(self.clock.now().timestamp_micros()).unwrap_or(0).max(topic.last_id + 1)
    }
}

impl Topic {
    fn append(&mut self, event: Arc<LiveEvent>) {
        self.last_id = event.id;
        if self.whole_from == u64::MAX {
            self.whole_from = event.id;
        }
        self.deliver(&event);
        self.history.push_back(event);
        self.trim();
    }

    /// Nodes that publish to one topic use increasing ids, but their events may arrive in another order, and two nodes
    /// may give the same id to different events, which are both kept.
    fn insert(&mut self, event: Arc<LiveEvent>) {
        if event.id > self.last_id {
            return self.append(event);
        }
        let place = self.history.partition_point(|known| known.id <= event.id);
        let is_known =
            self.history.range(..place).rev().take_while(|known| known.id == event.id).any(|known| *known == event);
        let is_forgotten = place == 0 && self.history.len() >= HISTORY;
        if !is_known && !is_forgotten {
            self.deliver(&event);
            self.history.insert(place, event);
            self.trim();
        }
    }

    fn deliver(&mut self, event: &Arc<LiveEvent>) {
        self.readers.retain(|reader| match reader.events.try_send(event.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                reader.cut(LiveError::Lagged);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }

    fn interrupt(&mut self) {
        self.whole_from = u64::MAX;
        self.readers.drain(..).for_each(|reader| reader.cut(LiveError::Interrupted));
    }

    fn trim(&mut self) {
        while self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }
}

impl Reader {
    /// The reader gets what is in its buffer, then this error.
    fn cut(&self, why: LiveError) {
        // The first cut counts.
        let _ = self.cut.set(why);
    }
}

/// The events of one topic for one reader; ends when the reader is cut.
#[derive(Debug)]
pub struct LiveStream {
    missed: VecDeque<Result<Arc<LiveEvent>, LiveError>>,
    received: mpsc::Receiver<Arc<LiveEvent>>,
    cut: Cut,
    ended: bool,
}

impl Stream for LiveStream {
    type Item = Result<Arc<LiveEvent>, LiveError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(event) = self.missed.pop_front() {
            return Poll::Ready(Some(event));
        }
        if let Some(event) = ready!(self.received.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(event)));
        }
        let cut = self.cut.get().filter(|_| !self.ended).copied();
        self.ended = true;
        Poll::Ready(cut.map(Err))
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use futures_util::{FutureExt, StreamExt};
    use serde_json::json;

    use super::*;

    fn hub() -> Live {
        Live::new(Clock::manual(DateTime::UNIX_EPOCH + Duration::from_secs(1)))
    }

    async fn next(stream: &mut LiveStream) -> Result<u64, LiveError> {
        stream.next().await.unwrap().map(|event| event.data.as_u64().unwrap())
    }

    #[actix_rt::test]
    async fn a_reader_sees_what_is_published_after_it_came() {
        let live = hub();
        live.publish("a", LiveEvent::new("n", json!(1)));
        let mut stream = live.subscribe("a", None);
        live.publish("b", LiveEvent::new("n", json!(2)));
        live.publish("a", LiveEvent::new("n", json!(3)));
        assert_eq!(next(&mut stream).await, Ok(3));
        assert!(stream.next().now_or_never().is_none());
    }

    #[actix_rt::test]
    async fn a_reader_resumes_after_the_id_it_saw_last() {
        let live = hub();
        let ids: Vec<u64> = (1..=5).map(|n| live.publish("a", LiveEvent::new("n", json!(n)))).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        let mut stream = live.subscribe("a", Some(ids[2]));
        live.publish("a", LiveEvent::new("n", json!(6)));
        for expected in [4, 5, 6] {
            assert_eq!(next(&mut stream).await, Ok(expected));
        }
    }

    #[actix_rt::test]
    async fn a_reader_of_forgotten_events_is_told_of_the_gap() {
        let live = hub();
        let first = live.publish("a", LiveEvent::new("n", json!(0)));
        for n in 1..=HISTORY as u64 {
            live.publish("a", LiveEvent::new("n", json!(n)));
        }
        let mut stream = live.subscribe("a", Some(first));
        assert_eq!(next(&mut stream).await, Err(LiveError::Gap));
        assert_eq!(next(&mut stream).await, Ok(1));
        assert_eq!(next(&mut live.subscribe("new topic", Some(7))).await, Err(LiveError::Gap));
    }

    #[actix_rt::test]
    async fn a_slow_reader_is_cut_and_others_are_not() {
        let live = hub();
        let mut slow = live.subscribe("a", None);
        let mut quick = live.subscribe("a", None);
        for n in 0..=BUFFER as u64 {
            live.publish("a", LiveEvent::new("n", json!(n)));
            assert_eq!(next(&mut quick).await, Ok(n));
        }
        for n in 0..BUFFER as u64 {
            assert_eq!(next(&mut slow).await, Ok(n));
        }
        assert_eq!(next(&mut slow).await, Err(LiveError::Lagged));
        assert!(slow.next().await.is_none());
    }

    #[actix_rt::test]
    async fn readers_of_what_may_be_lost_are_cut_and_told_of_the_gap_when_they_resume() {
        let live = hub();
        let last = live.publish("a", LiveEvent::new("n", json!(1)));
        let (mut one, mut other) = (live.subscribe("a", Some(0)), live.subscribe("b", None));
        live.interrupt(Some("a"));
        live.interrupt(Some("unknown"));
        assert_eq!((next(&mut one).await, next(&mut one).await), (Ok(1), Err(LiveError::Interrupted)));
        assert!(one.next().await.is_none());
        assert!(other.next().now_or_never().is_none(), "of another topic nothing is lost");
        live.interrupt(None);
        assert_eq!(next(&mut other).await, Err(LiveError::Interrupted));

        let mut resumed = live.subscribe("a", Some(last));
        let later = live.publish("a", LiveEvent::new("n", json!(2)));
        assert_eq!((next(&mut resumed).await, next(&mut resumed).await), (Err(LiveError::Gap), Ok(2)));
        let mut resumed = live.subscribe("a", Some(later));
        live.publish("a", LiveEvent::new("n", json!(3)));
        assert_eq!(next(&mut resumed).await, Ok(3), "what came afterwards is whole");
    }

    #[derive(Default)]
    struct Told(Mutex<Vec<(String, u64)>>);

    impl LiveTransport for Told {
        fn tell(&self, topic: &str, event: &LiveEvent) {
            self.0.lock().push((topic.to_owned(), event.id));
        }
    }

    #[actix_rt::test]
    async fn what_other_nodes_tell_is_heard_once_and_in_its_place() {
        let (live, told) = (hub(), Arc::new(Told::default()));
        live.connect(told.clone());
        let mut stream = live.subscribe("a", None);
        let event = |id, n: u64| LiveEvent { id, ..LiveEvent::new("n", json!(n)) };
        for (id, n) in [(10, 1), (30, 3), (30, 3), (20, 2), (20, 2), (20, 5), (10, 1)] {
            live.receive("a", event(id, n));
        }
        for expected in [1, 3, 2, 5] {
            assert_eq!(next(&mut stream).await, Ok(expected));
        }
        assert!(stream.next().now_or_never().is_none());
        let mut resumed = live.subscribe("a", Some(10));
        for expected in [2, 5, 3] {
            assert_eq!(next(&mut resumed).await, Ok(expected));
        }
        assert!(told.0.lock().is_empty(), "what was heard is not told again");
        let id = live.publish("a", LiveEvent::new("n", json!(4)));
        assert_eq!(*told.0.lock(), [("a".to_owned(), id)]);
    }

    #[actix_rt::test]
    async fn topics_nobody_reads_are_forgotten_in_time() {
        let clock = Clock::manual(DateTime::UNIX_EPOCH);
        let live = Live::new(clock.clone());
        for n in 0..TOPICS {
            live.publish(&n.to_string(), LiveEvent::new("n", json!(n)));
        }
        let _read = live.subscribe("0", None);
        clock.advance(REMEMBERED);
        live.publish("new", LiveEvent::new("n", json!(0)));
        assert_eq!(live.topics.lock().len(), 2);
    }
}
