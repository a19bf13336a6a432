//! Tests with real sockets on both sides: a server with the router in it, and instances and clients that speak raw TCP,
//! so that a test sees the bytes and not what a library makes of them.

mod bounds;
mod failures;
mod leaving;
mod messages;
mod nodes;
mod pipelining;
mod rollout;
mod streams;
mod websocket;

use std::{cell::RefCell, future::Future, net::SocketAddr, rc::Rc, time::Duration};

use actix_web::{App, HttpResponse, dev::ServerHandle, middleware::Compress, web};
use callboard_platform::routing::{Backend, Route, RouteState, RoutingTable};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use uuid::Uuid;

use super::{Router, Settings};
use crate::{Edge, listen};

/// Limit of all waits, which ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it should have happened by now")
}

/// A gateway: the router, and behind it an application that compresses.
struct Gateway {
    address: SocketAddr,
    table: RoutingTable,
    server: ServerHandle,
}

impl Gateway {
    fn start() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        Self::with_router(|table| Router::new(table, settings))
    }

    fn with_router(router: impl FnOnce(RoutingTable) -> Router) -> Self {
        Self::with_edge(Edge::default(), router)
    }

    fn with_edge(edge: Edge, router: impl FnOnce(RoutingTable) -> Router) -> Self {
        let table = RoutingTable::new();
        let router = router(table.clone());
        let application = || {
            App::new()
                .wrap(Compress::default())
                .default_service(web::to(|| async { HttpResponse::Ok().body("the control plane") }))
        };
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (server, address) = listen(listener, edge, move || router.in_front_of(application())).unwrap();
        let handle = server.handle();
        actix_rt::spawn(server);
        Self { address, table, server: handle }
    }

    fn route(&self, backends: &[Backend], state: RouteState) {
        self.table.set("hello", Route { backends: backends.to_vec(), state });
    }

    /// Routes the app `hello` to these instances.
    fn serve(&self, instances: &[&Instance]) {
        let backends: Vec<_> = instances.iter().map(|instance| instance.backend).collect();
        self.route(&backends, RouteState::Serving);
    }

    async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, unread: Vec::new() }
    }

    /// One request on a connection of its own.
    async fn ask(&self, request: &str) -> Answer {
        let mut client = self.client().await;
        client.send(request).await;
        client.answer().await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&get(path)).await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.server.stop(false));
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: hello.localhost\r\n\r\n")
}

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// An instance of an app: a listener and its handler of connections.
struct Instance {
    backend: Backend,
    connections: Rc<RefCell<Vec<JoinHandle<()>>>>,
    accepting: JoinHandle<()>,
}

impl Instance {
    async fn start<F>(talk: impl Fn(Client) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Rc::new(RefCell::new(Vec::new()));
        let accepting = actix_rt::spawn({
            let connections = Rc::clone(&connections);
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let talking = talk(Client { stream, unread: Vec::new() });
                    connections.borrow_mut().push(actix_rt::spawn(talking));
                }
            }
        });
        Self { backend: Backend { instance_id: Uuid::now_v7(), address }, connections, accepting }
    }

    /// Responds to every request by a function of its head and body; keeps connections.
    async fn answering(answer: impl Fn(Answer) -> String + Clone + 'static) -> Self {
        Self::start(move |mut connection| {
            let answer = answer.clone();
            async move {
                while let Some(request) = connection.try_message(false).await {
                    let answer = answer(request);
                    if connection.stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    async fn saying(text: &'static str) -> Self {
        Self::answering(move |_| ok(text)).await
    }

    /// An address on which nothing listens.
    async fn refusing() -> Self {
        let instance = Self::saying("").await;
        instance.stop().await;
        instance
    }

    async fn stop(&self) {
        self.accepting.abort();
        soon(async {
            while !self.accepting.is_finished() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        self.connections.borrow().iter().for_each(JoinHandle::abort);
    }

    fn accepted(&self) -> usize {
        self.connections.borrow().len()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.accepting.abort();
        self.connections.borrow().iter().for_each(JoinHandle::abort);
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// One end of a connection.
struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// A received message; a request when an instance reads it.
#[derive(Debug)]
struct Answer {
    head: String,
    body: Vec<u8>,
    /// Whether the body ended as its framing says.
    whole: bool,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let all = self.headers(name);
        assert!(all.len() < 2, "{name} twice in {}", self.head);
        all.first().copied()
    }

    fn headers(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    async fn send(&mut self, text: &str) {
        soon(self.stream.write_all(text.as_bytes())).await.unwrap();
    }

    /// The next response to anything but HEAD.
    async fn answer(&mut self) -> Answer {
        soon(self.try_message(false)).await.expect("an answer")
    }

    async fn answer_without_body(&mut self) -> Answer {
        soon(self.try_message(true)).await.expect("an answer")
    }

    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.unread).await, Ok(read) if read > 0)
    }

    /// Exactly this many bytes, or `None` if the connection ends first.
    async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.unread.drain(..count).collect())
    }

    /// A chunk of a chunked body; empty is the last.
    async fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|window| window == b"\r\n") {
                let size: Vec<u8> = self.unread.drain(..end + 2).collect();
                let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
                let mut chunk = self.bytes(size + 2).await?;
                chunk.truncate(size);
                return Some(chunk);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.unread)
    }

    async fn try_message(&mut self, without_body: bool) -> Option<Answer> {
        let head = self.head().await?;
        let mut message = Answer { head, body: Vec::new(), whole: true };
        let request = !message.head.starts_with("HTTP/");
        let bodiless = without_body || (!request && matches!(message.status(), 100..200 | 204 | 304));
        if bodiless {
            return Some(message);
        }
        if message.header("transfer-encoding") == Some("chunked") {
            loop {
                match self.chunk().await {
                    Some(chunk) if chunk.is_empty() => break,
                    Some(chunk) => message.body.extend(chunk),
                    None => {
                        message.whole = false;
                        break;
                    }
                }
            }
        } else if let Some(length) = message.header("content-length") {
            let length = length.parse().unwrap();
            match self.bytes(length).await {
                Some(body) => message.body = body,
                None => {
                    message.body = std::mem::take(&mut self.unread);
                    message.whole = false;
                }
            }
        } else if !request {
            message.body = self.rest().await;
        }
        Some(message)
    }
}
