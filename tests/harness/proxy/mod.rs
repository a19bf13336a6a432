//! A network between a program and its server that does what networks do: it cuts connections, swallows what is sent without
//! a word, is late, is slow. For AMQP it also repeats, holds back and reorders messages, as brokers and relays that
//! crash and retry do.

mod amqp;

use std::{
    collections::BinaryHeap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::random::Random;
use amqp::{Session, Unit};

/// What is between the two ends now.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    refused: bool,
    silent: bool,
    late: Duration,
    bytes_per_second: Option<u32>,
    /// Raised to break all connections that are open.
    generation: u64,
}

/// How messages that a client publishes are treated; each is a probability.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mangling {
    /// Sent twice.
    pub duplicate: f64,
    /// Held back for up to half a second.
    pub delay: f64,
    /// Passed by the ones after it.
    pub reorder: f64,
}

/// How many messages were treated so.
#[derive(Debug, Default)]
pub struct Mangled {
    pub duplicated: AtomicU64,
    pub delayed: AtomicU64,
    pub reordered: AtomicU64,
}

struct Shared {
    upstream: SocketAddr,
    weather: watch::Sender<Weather>,
    connections: AtomicUsize,
    speaks_amqp: bool,
    mangling: Mutex<Mangling>,
    mangled: Mangled,
    random: Mutex<Random>,
}

/// Listens on a port of its own until it is dropped.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// Before any server of this machine.
    pub async fn before(port: u16) -> Self {
        Self::start(port, false, 0).await
    }

    /// Before a RabbitMQ: it can mangle messages, by the chance of this seed.
    pub async fn before_amqp(port: u16, seed: u64) -> Self {
        Self::start(port, true, seed).await
    }

    async fn start(upstream: u16, speaks_amqp: bool, seed: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream: SocketAddr::from(([127, 0, 0, 1], upstream)),
            weather: watch::Sender::new(Weather::default()),
            connections: AtomicUsize::new(0),
            speaks_amqp,
            mangling: Mutex::default(),
            mangled: Mangled::default(),
            random: Mutex::new(Random::new(seed)),
        });
        let listening = tokio::spawn(listen(listener, shared.clone()));
        Self { port, shared, listening }
    }

    /// Breaks every connection; new ones are closed at once.
    pub fn cut(&self) {
        self.change(|weather| {
            weather.refused = true;
            weather.generation += 1;
        });
    }

    /// Breaks every connection; new ones pass.
    pub fn break_connections(&self) {
        self.change(|weather| weather.generation += 1);
    }

    /// Nothing passes in either direction, and nobody is told.
    pub fn black_hole(&self) {
        self.change(|weather| weather.silent = true);
    }

    /// Everything is so late, each way.
    pub fn delay(&self, by: Duration) {
        self.change(|weather| weather.late = by);
    }

    /// Each connection carries so much, each way.
    pub fn throttle(&self, bytes_per_second: u32) {
        self.change(|weather| weather.bytes_per_second = Some(bytes_per_second));
    }

    /// Messages are treated so from now on.
    pub fn mangle(&self, mangling: Mangling) {
        assert!(self.shared.speaks_amqp, "only a proxy before RabbitMQ knows messages");
        *self.shared.mangling.lock() = mangling;
    }

    /// All is well again.
    pub fn heal(&self) {
        *self.shared.mangling.lock() = Mangling::default();
        self.change(|weather| *weather = Weather { generation: weather.generation, ..Weather::default() });
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many messages were mangled so far.
    pub fn mangled(&self) -> &Mangled {
        &self.shared.mangled
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.shared.weather.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let refused = shared.weather.borrow().refused;
        if !refused {
            connections.spawn(carry(client, shared.clone()));
        }
    }
}

/// One connection, until either end closes it or the weather breaks it.
async fn carry(client: TcpStream, shared: Arc<Shared>) {
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let mut weather = shared.weather.subscribe();
    let generation = weather.borrow().generation;
    let carrying = async {
        let Ok(server) = TcpStream::connect(shared.upstream).await else { return };
        // A message that waits for a full packet would be late by what the proxy adds.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let session = shared.speaks_amqp.then(|| Arc::new(Mutex::new(Session::default())));
        // When one way ends, so does the other: what is carried here closes both ways together.
        tokio::select! {
            () = pump(from_client, to_server, shared.clone(), session.clone(), Way::Up) => {}
            () = pump(from_server, to_client, shared.clone(), session, Way::Down) => {}
        }
    };
    tokio::select! {
        () = carrying => {}
        _ = weather.wait_for(|weather| weather.generation != generation) => {}
    }
    shared.connections.fetch_sub(1, Ordering::Relaxed);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

async fn pump(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    shared: Arc<Shared>,
    session: Option<Arc<Mutex<Session>>>,
    way: Way,
) {
    // Bounded, so that a slow receiver slows the sender as without a proxy.
    let (sender, receiver) = mpsc::channel(64);
    let reading = read(from, sender, shared.clone(), session.clone(), way);
    let writing = write(to, receiver, shared, session, way);
    tokio::join!(reading, writing);
}

async fn read(
    mut from: OwnedReadHalf,
    sender: mpsc::Sender<(Instant, Unit)>,
    shared: Arc<Shared>,
    session: Option<Arc<Mutex<Session>>>,
    way: Way,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut frames = amqp::Frames::default();
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        let due = Instant::now() + shared.weather.borrow().late;
        let units = match &session {
            None => vec![Unit::raw(Bytes::copy_from_slice(&buffer[..length]))],
            Some(session) => {
                frames.push(&buffer[..length]);
                let mut session = session.lock();
                match way {
                    Way::Up => session.upward(&mut frames),
                    Way::Down => session.downward(&mut frames),
                }
            }
        };
        for unit in units {
            if sender.send((due, unit)).await.is_err() {
                return;
            }
        }
    }
}

/// What waits to be written: the earliest first, and of the same time the one that came first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: std::cmp::Reverse<Instant>,
    number: std::cmp::Reverse<u64>,
    unit: Unit,
}

async fn write(
    mut to: OwnedWriteHalf,
    mut receiver: mpsc::Receiver<(Instant, Unit)>,
    shared: Arc<Shared>,
    session: Option<Arc<Mutex<Session>>>,
    way: Way,
) {
    let mut weather = shared.weather.subscribe();
    let mut waiting = BinaryHeap::new();
    let mut number = 0;
    let mut open = true;
    while open || !waiting.is_empty() {
        let next = waiting.peek().map(|next: &Waiting| next.due.0);
        tokio::select! {
            biased;
            () = async { tokio::time::sleep_until(next.unwrap_or_else(Instant::now)).await }, if next.is_some() => {
                let Some(Waiting { unit, .. }) = waiting.pop() else { continue };
                let _ = weather.wait_for(|weather| !weather.silent).await;
                let bytes = match &session {
                    Some(session) if way == Way::Up => session.lock().leaving(unit),
                    _ => unit.bytes,
                };
                let limit = weather.borrow().bytes_per_second;
                if send(&mut to, &bytes, limit).await.is_err() {
                    return;
                }
            }
            received = receiver.recv(), if open => match received {
                None => open = false,
                Some((due, unit)) => {
                    for (due, unit) in treat(&shared, session.as_ref().filter(|_| way == Way::Up), due, unit) {
                        number += 1;
                        waiting.push(Waiting { due: std::cmp::Reverse(due), number: std::cmp::Reverse(number), unit });
                    }
                }
            },
        }
    }
}

async fn send(to: &mut OwnedWriteHalf, bytes: &[u8], limit: Option<u32>) -> std::io::Result<()> {
    let Some(limit) = limit else { return to.write_all(bytes).await };
    // In tenths of a second.
    for part in bytes.chunks((limit as usize / 10).max(1)) {
        to.write_all(part).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// When a unit leaves, and whether it does so twice.
fn treat(shared: &Shared, session: Option<&Arc<Mutex<Session>>>, due: Instant, unit: Unit) -> Vec<(Instant, Unit)> {
    let Some(session) = session else { return vec![(due, unit)] };
    let mut session = session.lock();
    let (mangling, mut random) = (*shared.mangling.lock(), shared.random.lock());
    if !unit.is_message() {
        // What opens, closes or configures a channel never passes a message of that channel.
        let due = session.not_before(&unit, due);
        return vec![(due, unit)];
    }
    let mut leaves = due;
    if random.chance(mangling.reorder) {
        leaves += Duration::from_millis(random.between(2, 30));
        shared.mangled.reordered.fetch_add(1, Ordering::Relaxed);
    }
    if random.chance(mangling.delay) {
        leaves += Duration::from_millis(random.between(50, 500));
        shared.mangled.delayed.fetch_add(1, Ordering::Relaxed);
    }
    let mut units = Vec::new();
    if random.chance(mangling.duplicate) {
        let later = leaves + Duration::from_millis(random.between(0, 200));
        session.hold(&unit, later);
        units.push((later, unit.again()));
        shared.mangled.duplicated.fetch_add(1, Ordering::Relaxed);
    }
    session.hold(&unit, leaves);
    units.push((leaves, unit));
    units
}
