//! A proxy before the server that can go silent.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use url::Url;

/// What the proxy does with traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Way {
    Open,
    /// Swallows everything in both directions, without closing.
    Silent,
    /// Passes requests and swallows answers.
    NoAnswers,
    /// Closes new connections at once.
    Refused,
}

/// Between a client and a server. A connection on which something was swallowed stays silent.
pub(super) struct Proxy {
    pub(super) url: String,
    way: Arc<AtomicU8>,
    accepted: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn to(url: &str) -> Self {
        let options: PgConnectOptions = url.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = format!("{}:{}", options.get_host(), options.get_port());
        let (way, accepted) = (Arc::new(AtomicU8::new(Way::Open as u8)), Arc::<AtomicUsize>::default());
        let (of_new, counted) = (way.clone(), accepted.clone());
        let listening = tokio::spawn(async move {
            // Aborted with the proxy: only then does the server see the end of silent connections.
            let mut passing = JoinSet::new();
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                if of_new.load(Ordering::SeqCst) == Way::Refused as u8 {
                    continue;
                }
                counted.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                passing.spawn(pass(from_client, to_server, of_new.clone(), &[Way::Silent]));
                passing.spawn(pass(from_server, to_client, of_new.clone(), &[Way::Silent, Way::NoAnswers]));
            }
        });
        Self { url: through(url, address), way, accepted, listening }
    }

    pub(super) fn set(&self, way: Way) {
        self.way.store(way as u8, Ordering::SeqCst);
    }

    /// Connections so far.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Arc<AtomicU8>,
    swallowed_by: &'static [Way],
) {
    let (mut buffer, mut is_lost) = (vec![0; 16 * 1024], false);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        is_lost |= swallowed_by.iter().any(|swallowing| way.load(Ordering::SeqCst) == *swallowing as u8);
        if !is_lost && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    if is_lost {
        // The end is swallowed too.
        std::future::pending::<()>().await;
    }
}

fn through(url: &str, address: SocketAddr) -> String {
    let mut url = Url::parse(url).unwrap();
    url.set_host(Some(&address.ip().to_string())).unwrap();
    url.set_port(Some(address.port())).unwrap();
    url.into()
}
