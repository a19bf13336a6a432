//! The server: actix-http on guarded connections.

use std::{
    fmt,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_http::{HttpService, Protocol, Request, Response, body::MessageBody, error::DispatchError};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::{
    Error,
    dev::{AppConfig, Server},
};
use prometheus::IntCounter;
use tokio::net::TcpStream;

use super::stream::Connection;

/// Time limit of closing a connection.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Settings of all connections.
#[derive(Debug, Clone)]
pub struct Edge {
    /// Worker threads.
    pub workers: usize,
    /// Time limit of a request's head. Default: 5 s.
    pub head_timeout: Duration,
    /// How long a connection is kept without a request. Default: 75 s.
    pub keep_alive: Duration,
    /// How long a response, a stream or a WebSocket may be idle before its connection is closed. Default: 5 min.
    pub stream_idle: Duration,
    /// Time for open requests when the server stops. Default: 25 s.
    pub shutdown: Duration,
    /// Counts malformed requests.
    pub refused: Option<IntCounter>,
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            workers: 1,
            head_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            stream_idle: Duration::from_secs(300),
            shutdown: Duration::from_secs(25),
            refused: None,
        }
    }
}

/// Serves an application on a socket: it answers while the server is awaited. Signals are the caller's to handle.
///
/// # Errors
/// When the socket can't be listened on.
pub fn listen<F, I, S, B>(listener: TcpListener, edge: Edge, factory: F) -> std::io::Result<(Server, SocketAddr)>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let address = listener.local_addr()?;
    let edge = Arc::new(edge);
    let builder = Server::build().workers(edge.workers).disable_signals().shutdown_timeout(edge.shutdown.as_secs());
    let stopping = builder.graceful_shutdown_signal();
    let builder = builder.listen("gateway", listener, move || {
        let (stopping, data_of, edge) = (stopping.clone(), Connection::turns, Arc::clone(&edge));
        let http = HttpService::build()
            // As actix-web's own server does: idle connections end, and responses say that theirs does.
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(edge.keep_alive)
            // The guarded connection limits the time of every head itself.
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(CLOSE_WITHIN)
            .local_addr(address)
            .on_connect_ext(move |connection: &Connection, data| {
                data.insert(data_of(connection));
            });
        let application = factory().into_factory().map_err(|error| error.into().error_response());
        fn_service(move |stream: TcpStream| {
            // The next piece of a streamed response must not wait for the acknowledgement of the last.
            let nodelay = stream.set_nodelay(true);
            let (peer, connection) = (stream.peer_addr().ok(), Connection::new(stream, Arc::clone(&edge)));
            async move {
                nodelay?;
                Ok::<_, DispatchError>((connection, Protocol::Http1, peer))
            }
        })
        .and_then(http.finish(map_config(application, |()| AppConfig::default())))
    })?;
    Ok((builder.run(), address))
}
