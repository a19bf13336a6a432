//! One worker thread's connections to instances, and to other nodes.
//!
//! They belong to the instance, not to its address: a new process at an old port never gets a connection to its
//! predecessor. The idle connections of a retired instance are closed at once, so that its graceful stop waits for none
//! of them.

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{self, IoSlice},
    pin::Pin,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use callboard_platform::routing::{Address, Endpoint, RoutingTable};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
};
use uuid::Uuid;

use super::{Settings, body::RequestBody};

/// A request that can't be sent twice only takes a connection used this recently: the instance may be closing an older
/// one just now. Servers keep them for 2 s and longer.
const FRESH: Duration = Duration::from_secs(1);
const SWEEP: Duration = Duration::from_secs(5);
/// Largest response head, in bytes; request heads are bounded by actix-http.
const MAX_HEAD: usize = 128 * 1024;

/// A connection to an instance, speaking HTTP/1.1.
pub(super) struct Connection {
    pub sender: SendRequest<RequestBody>,
    /// Whether anything was received since this was last cleared.
    pub received: Arc<AtomicBool>,
    pub endpoint: Arc<Endpoint>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

pub(super) struct Pool {
    idle: RefCell<HashMap<Uuid, Vec<Idle>>>,
    capacity: usize,
    idle_timeout: Duration,
    connect_timeout: Duration,
}

impl Pool {
    /// An empty pool, and the task that clears it for as long as it is in use.
    pub fn start(settings: &Settings, table: &RoutingTable) -> Rc<Self> {
        let pool = Rc::new(Self {
            idle: RefCell::default(),
            capacity: settings.idle_connections,
            idle_timeout: settings.idle_timeout,
            connect_timeout: settings.connect_timeout,
        });
        actix_rt::spawn(sweep(Rc::downgrade(&pool), table.changes()));
        pool
    }

    /// The connection used last, if it is still open.
    pub fn take(&self, endpoint: &Endpoint, replayable: bool) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let idle = idle.get_mut(&endpoint.instance_id())?;
        while idle.last().is_some_and(|idle| idle.connection.sender.is_closed()) {
            idle.pop();
        }
        let at = idle.iter().rposition(|idle| idle.connection.sender.is_ready())?;
        if !replayable && idle.get(at)?.since.elapsed() > FRESH {
            return None;
        }
        Some(idle.remove(at).connection)
    }

    /// Keeps a connection whose exchange is over.
    pub fn put(&self, connection: Connection) {
        if connection.endpoint.is_retired() || connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let idle = idle.entry(connection.endpoint.instance_id()).or_default();
        if idle.len() < self.capacity {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Opens a new one.
    pub async fn connect(&self, endpoint: &Arc<Endpoint>) -> io::Result<Connection> {
        let connecting = async {
            match endpoint.address() {
                Address::Instance(address) => TcpStream::connect(address).await,
                Address::Node(address) => TcpStream::connect(&**address).await,
            }
        };
        let stream = match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(stream) => stream?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        stream.set_nodelay(true)?;
        let received = Arc::new(AtomicBool::new(false));
        let io = TokioIo::new(Watched { stream, received: Arc::clone(&received) });
        let (sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEAD).handshake(io).await.map_err(io::Error::other)?;
        let lost = endpoint.lost();
        actix_rt::spawn(async move {
            tokio::select! {
                ended = connection.with_upgrades() => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to an instance ended");
                },
                // Requests on it fail.
                () = lost => tracing::debug!("a connection to a node that was declared gone is given up"),
            }
        });
        Ok(Connection { sender, received, endpoint: Arc::clone(endpoint) })
    }

    fn clear(&self) {
        let mut pool = self.idle.borrow_mut();
        pool.retain(|_, idle| {
            idle.retain(|idle| {
                !idle.connection.sender.is_closed()
                    && !idle.connection.endpoint.is_retired()
                    && idle.since.elapsed() < self.idle_timeout
            });
            !idle.is_empty()
        });
    }
}

async fn sweep(pool: Weak<Pool>, mut changes: watch::Receiver<u64>) {
    loop {
        // Either the table changed, or it is time to close connections that were idle for too long.
        if let Ok(Err(_)) = tokio::time::timeout(SWEEP, changes.changed()).await {
            return;
        }
        let Some(pool) = pool.upgrade() else { return };
        pool.clear();
    }
}

/// A stream that notes whether its peer has sent anything: a request may be retried only if not.
pub(super) struct Watched {
    pub stream: TcpStream,
    received: Arc<AtomicBool>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.received.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
