//! A faulty network: a proxy before the broker that can cut, swallow or delay.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::uri::AMQPUri;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};

#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    refuse: AtomicBool,
    swallow: AtomicBool,
    delay: AtomicU64,
    connections: AtomicUsize,
    accepted: AtomicUsize,
    /// Connections with a lower number are cut.
    cut: watch::Sender<u64>,
    accept: std::sync::Mutex<Option<AbortHandle>>,
}

impl Proxy {
    pub async fn to(url: &str) -> Self {
        let uri: AMQPUri = url.parse().unwrap();
        let broker = (uri.authority.host, uri.authority.port);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            refuse: AtomicBool::new(false),
            swallow: AtomicBool::new(false),
            delay: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            cut: watch::Sender::new(0),
            accept: std::sync::Mutex::new(None),
        });
        let proxy = Self { address, state: state.clone() };
        let accept = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                state.accepted.fetch_add(1, Ordering::SeqCst);
                if state.refuse.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect((broker.0.as_str(), broker.1)).await else { continue };
                tokio::spawn(connection(state.clone(), client, server));
            }
        });
        *proxy.state.accept.lock().unwrap() = Some(accept.abort_handle());
        proxy
    }

    /// The broker's URL through this proxy.
    pub fn url(&self, url: &str) -> String {
        let uri: AMQPUri = url.parse().unwrap();
        let AMQPUri { authority, vhost, .. } = uri;
        let vhost = vhost.replace('/', "%2f");
        let (user, password) = (authority.userinfo.username, authority.userinfo.password);
        format!("amqp://{user}:{password}@{}/{vhost}", self.address)
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.state.cut.send_modify(|cut| *cut += 1);
    }

    /// Refuses connections, or accepts them again.
    pub fn refuse(&self, refuse: bool) {
        self.state.refuse.store(refuse, Ordering::SeqCst);
    }

    /// Swallows all traffic, without closing.
    pub fn swallow(&self, swallow: bool) {
        self.state.swallow.store(swallow, Ordering::SeqCst);
    }

    /// Delays all traffic.
    pub fn delay(&self, delay: Duration) {
        self.state.delay.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Number of connections so far.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(accept) = self.accept.lock().unwrap().take() {
            accept.abort();
        }
    }
}

async fn connection(state: Arc<State>, client: TcpStream, server: TcpStream) {
    state.connections.fetch_add(1, Ordering::SeqCst);
    let mut cut = state.cut.subscribe();
    let before = *cut.borrow_and_update();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::select! {
        () = pump(&state, client_read, server_write) => {}
        () = pump(&state, server_read, client_write) => {}
        _ = cut.wait_for(|cut| *cut > before) => {}
    }
    state.connections.fetch_sub(1, Ordering::SeqCst);
}

async fn pump(state: &State, mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count) = from.read(&mut buffer).await else { return };
        if count == 0 {
            return;
        }
        while state.swallow.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let delay = state.delay.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
