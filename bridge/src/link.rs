//! One connection to the broker. It is never repaired, but replaced by another.
//!
//! It is two AMQP connections, because a broker that runs out of memory stops reading from those that publish:
//! deliveries must still be acknowledged then.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_rs::{TokioRuntime, traits::Reactor};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Error, ErrorKind,
    options::{BasicPublishOptions, BasicQosOptions},
    protocol::{AMQPError, AMQPErrorKind, AMQPHardError},
    tcp::{AsyncTcpStream, OwnedTLSConfig},
    uri::{AMQPScheme, AMQPUri},
};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::settings::BridgeSettings;

/// Time limit of any answer of the broker.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Time limit of closing a connection.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);
/// The address of probes: no queue has this name.
const NO_QUEUE: &str = "callboard probe";
/// Interval of checking whether the broker blocks publishers, while it is asked something.
const LOOK: Duration = Duration::from_millis(50);

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// The broker refuses this node, so that retries are useless.
    #[error("the broker refused the connection: {0}")]
    Refused(String),
    /// The broker is absent for now.
    #[error("the broker can't be reached: {0}")]
    Away(String),
}

/// One life of the connection.
pub(crate) struct Link {
    /// Unique within the process.
    pub(crate) number: u64,
    outgoing: Half,
    incoming: Half,
}

struct Half {
    // Dropped first: closing an unresponsive connection would wait for ever.
    socket: Guard,
    connection: Connection,
    control: Channel,
}

/// A second handle on a connection's socket: lapin gives a silent connection up only when its socket is shut down.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<SocketState>>);

#[derive(Default)]
enum SocketState {
    #[default]
    Awaited,
    Open(TcpStream),
    Cut,
}

/// Shuts the socket down when it is dropped, also one that is still connecting.
struct Guard(Socket);

impl Link {
    /// Opens it. The socket is polled by this thread's runtime, which also handles deliveries, so that it is woken
    /// once.
    pub(crate) async fn open(settings: &BridgeSettings) -> Result<Self, LinkError> {
        let runtime = &TokioRuntime::tokio_current();
        let uri = settings.uri().map_err(LinkError::Refused)?;
        let both = futures_util::future::try_join(
            Half::open(uri.clone(), format!("{} (out)", settings.name), runtime),
            Half::open(uri, format!("{} (in)", settings.name), runtime),
        );
        let (outgoing, incoming) = timeout(settings.connect_within, both)
            .await
            .map_err(|_| LinkError::Away(format!("no answer within {:?}", settings.connect_within)))??;
        Ok(Self { number: NEXT.fetch_add(1, Ordering::Relaxed), outgoing, incoming })
    }

    /// A channel for sending.
    pub(crate) async fn outgoing(&self) -> Result<Channel, String> {
        self.outgoing.channel().await
    }

    /// A channel for receiving.
    pub(crate) async fn incoming(&self) -> Result<Channel, String> {
        self.incoming.channel().await
    }

    /// Whether neither connection is known to be broken.
    pub(crate) fn is_up(&self) -> bool {
        self.outgoing.is_up() && self.incoming.is_up()
    }

    /// Whether the broker blocks publishers.
    pub(crate) fn is_blocked(&self) -> bool {
        self.outgoing.connection.status().blocked()
    }

    /// Probes the broker.
    pub(crate) async fn probe(&self) -> Result<(), String> {
        self.incoming.probe().await?;
        // The broker reads nothing from a blocked connection, so it can't be probed: not even if it was blocked while
        // the probe was on its way.
        tokio::select! {
            biased;
            () = self.blocked() => Ok(()),
            answer = self.outgoing.probe_as_publisher() => answer,
        }
    }

    /// Waits until the broker blocks publishers.
    async fn blocked(&self) {
        while !self.is_blocked() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Closes it properly if the broker answers.
    pub(crate) async fn close(&self) {
        futures_util::future::join(self.outgoing.close(), self.incoming.close()).await;
    }

    /// Shuts it down at once: pending answers fail.
    pub(crate) fn cut(&self) {
        self.outgoing.cut();
        self.incoming.cut();
    }
}

impl Socket {
    /// Keeps a handle on the socket of a new connection.
    fn keep(&self, stream: TcpStream) -> io::Result<()> {
        let mut state = self.0.lock();
        if matches!(*state, SocketState::Cut) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        *state = SocketState::Open(stream);
        Ok(())
    }

    fn cut(&self) {
        if let SocketState::Open(stream) = std::mem::replace(&mut *self.0.lock(), SocketState::Cut) {
            // The other side may have closed it.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.cut();
    }
}

impl Half {
    async fn open(uri: AMQPUri, name: String, runtime: &TokioRuntime) -> Result<Self, LinkError> {
        let kept = Socket::default();
        let socket = Guard(kept.clone());
        let connect = async move |uri: AMQPUri, runtime: TokioRuntime| {
            let address = (uri.authority.host.clone(), uri.authority.port);
            let stream = runtime.tcp_connect(runtime.to_socket_addrs(address)).await?;
            kept.keep(stream.get_ref().as_fd().try_clone_to_owned()?.into())?;
            let stream = AsyncTcpStream::Plain(stream);
            match uri.scheme {
                AMQPScheme::AMQP => Ok(stream),
                AMQPScheme::AMQPS => {
                    Ok(stream.into_tls(&uri.authority.host, OwnedTLSConfig::default().as_ref()).await?)
                }
            }
        };
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connection =
            Connection::connector(uri, runtime.clone(), connect, properties).await.map_err(|error| why(&error))?;
        let control = connection.create_channel().await.map_err(|error| why(&error))?;
        Ok(Self { socket, connection, control })
    }

    async fn channel(&self) -> Result<Channel, String> {
        answered(self.connection.create_channel()).await
    }

    fn is_up(&self) -> bool {
        self.connection.status().connected() && self.control.status().connected()
    }

    async fn probe(&self) -> Result<(), String> {
        answered(self.control.basic_qos(1, BasicQosOptions::default())).await
    }

    /// The broker tells only publishers that it is short of resources: so a message is published that no queue takes.
    async fn probe_as_publisher(&self) -> Result<(), String> {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        answered(self.control.basic_publish("".into(), NO_QUEUE.into(), options, &[], properties)).await?;
        self.probe().await
    }

    async fn close(&self) {
        let _ = timeout(CLOSE_WITHIN, self.connection.close(200, "the node stops".into())).await;
        self.cut();
    }

    fn cut(&self) {
        self.socket.0.cut();
    }
}

/// Awaits an answer of the broker, within [`ANSWER_WITHIN`].
pub(crate) async fn answered<T>(asked: impl Future<Output = lapin::Result<T>>) -> Result<T, String> {
    match timeout(ANSWER_WITHIN, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the broker did not answer within {ANSWER_WITHIN:?}")),
    }
}

fn why(error: &Error) -> LinkError {
    match error.kind() {
        ErrorKind::ProtocolError(AMQPError { .. }) if is_refusal(error) => LinkError::Refused(error.to_string()),
        ErrorKind::InvalidProtocolVersion(_) | ErrorKind::AuthProviderError(_) => LinkError::Refused(error.to_string()),
        _ => LinkError::Away(error.to_string()),
    }
}

/// Whether the credentials are wrong, or the virtual host does not exist or is not this user's.
fn is_refusal(error: &Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    matches!(
        error.kind(),
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED | AMQPHardError::INVALIDPATH)
            | AMQPErrorKind::Soft(lapin::protocol::AMQPSoftError::ACCESSREFUSED)
    )
}
