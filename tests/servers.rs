//! The servers and the proxy of the harness do what the fault tests believe of them.

use std::{sync::atomic::Ordering, time::Duration};

use lapin::{
    BasicProperties,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};
use sqlx::{Connection, Executor, PgConnection, Row};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::harness::{
    proxy::{Mangling, Proxy},
    servers::{self, Postgres, RabbitMq, Redis},
};

const SOON: Duration = Duration::from_millis(400);

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

#[tokio::test]
async fn postgresql_keeps_what_was_committed_through_every_end() {
    let mut server = Postgres::start().await;
    connect(&server.url()).await.execute("CREATE TABLE kept (number BIGINT)").await.unwrap();
    for number in 0..3_i64 {
        let mut connection = connect(&server.url()).await;
        sqlx::query("INSERT INTO kept VALUES ($1)").bind(number).execute(&mut connection).await.unwrap();
        match number {
            0 => server.restart_immediately().await,
            1 => {
                server.kill();
                server.start_again().await;
            }
            _ => {
                server.stop().await;
                server.start_again().await;
            }
        }
        assert!(connection.ping().await.is_err(), "the old connection is gone");
    }
    let row = connect(&server.url()).await.fetch_one("SELECT count(*) FROM kept").await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 3);

    let mut connection = connect(&server.url()).await;
    server.pause();
    assert!(tokio::time::timeout(SOON, connection.ping()).await.is_err(), "it is silent");
    server.resume();
    connection.ping().await.unwrap();
}

#[tokio::test]
async fn redis_forgets_waits_and_comes_back() {
    let mut server = Redis::start().await;
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    assert_eq!(say(&mut stream, "SET name value").await, "+OK\r\n");
    server.flush().await;
    assert_eq!(say(&mut stream, "GET name").await, "$-1\r\n");
    let began = Instant::now();
    server.hold(SOON).await;
    assert_eq!(say(&mut stream, "SET name value").await, "+OK\r\n");
    assert!(began.elapsed() >= SOON, "it waited");
    server.pause();
    assert!(tokio::time::timeout(SOON, say(&mut stream, "GET name")).await.is_err(), "it is silent");
    server.resume();
    server.stop().await;
    server.start_again().await;
    server.kill();
    server.start_again().await;
    assert!(server.url().ends_with(&server.port().to_string()));
}

async fn say(stream: &mut TcpStream, command: &str) -> String {
    stream.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    let mut buffer = [0; 256];
    let length = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[tokio::test]
async fn a_proxy_cuts_swallows_delays_and_throttles() {
    let server = Redis::start().await;
    let proxy = Proxy::before(server.port()).await;
    let connect = async || TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
    let mut stream = connect().await;
    assert_eq!(say(&mut stream, "PING").await, "+PONG\r\n");
    assert_eq!(proxy.connections(), 1);

    proxy.black_hole();
    assert!(tokio::time::timeout(SOON, say(&mut stream, "PING")).await.is_err(), "nothing passes");
    proxy.heal();
    let mut late = [0; 7];
    stream.read_exact(&mut late).await.unwrap();
    assert_eq!(&late, b"+PONG\r\n", "what was swallowed was only late");

    proxy.delay(SOON);
    let began = Instant::now();
    assert_eq!(say(&mut stream, "PING").await, "+PONG\r\n");
    assert!(began.elapsed() >= SOON * 2, "late both ways");

    proxy.heal();
    proxy.throttle(1000);
    let began = Instant::now();
    assert_eq!(say(&mut stream, &format!("SET long {}", "x".repeat(500))).await, "+OK\r\n");
    assert!(began.elapsed() >= SOON, "500 bytes at 1000 a second");

    proxy.heal();
    proxy.break_connections();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0, "broken");
    assert_eq!(say(&mut connect().await, "PING").await, "+PONG\r\n");
    proxy.cut();
    assert_eq!(connect().await.read(&mut [0; 8]).await.unwrap_or(0), 0, "refused");
}

#[tokio::test]
async fn rabbitmq_comes_back_after_every_end() {
    let mut server = RabbitMq::start().await;
    assert!(server.queues().await.is_empty());
    server.close_connections().await;
    server.kill();
    assert!(!server.is_running());
    server.start_again().await;
    server.pause();
    server.resume();
    server.stop().await;
    server.start_again().await;
    assert!(server.ctl(&["status"]).await.contains("RabbitMQ"));
    assert!(server.url().contains(&server.port().to_string()));
}

#[tokio::test]
async fn a_proxy_repeats_and_reorders_messages_and_keeps_confirms_true() {
    const MESSAGES: u32 = 300;
    let broker = url::Url::parse(&servers::amqp_url()).unwrap();
    let proxy = Proxy::before_amqp(broker.port().unwrap_or(5672), 7).await;
    let mut through = broker.clone();
    through.set_port(Some(proxy.port)).unwrap();
    let connection =
        lapin::Connection::connect(through.as_str(), lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), exclusive, FieldTable::default()).await.unwrap();

    proxy.mangle(Mangling { duplicate: 0.3, delay: 0.05, reorder: 0.3 });
    let mut confirms = Vec::new();
    for number in 0..MESSAGES {
        // Some have two frames of body, and some have none.
        let body = match number % 50 {
            0 => Vec::new(),
            1 => [number.to_be_bytes().to_vec(), vec![0; 200_000]].concat(),
            _ => number.to_be_bytes().to_vec(),
        };
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let name = queue.name().clone();
        let published = channel.basic_publish("".into(), name, options, &body, BasicProperties::default()).await;
        confirms.push(published.unwrap());
    }
    for confirm in confirms {
        let confirmed = tokio::time::timeout(Duration::from_secs(20), confirm).await.expect("a confirm").unwrap();
        assert!(confirmed.is_ack() && confirmed.take_message().is_none(), "confirmed and routed");
    }
    proxy.heal();
    channel.close(200, "done".into()).await.unwrap();

    let channel = connection.create_channel().await.unwrap();
    let mut seen = Vec::new();
    let no_ack = BasicGetOptions { no_ack: true };
    while let Some(message) = channel.basic_get(queue.name().clone(), no_ack).await.unwrap() {
        seen.extend(message.data.first_chunk::<4>().map(|number| u32::from_be_bytes(*number)));
    }
    let mangled = proxy.mangled();
    let [duplicated, delayed, reordered] =
        [&mangled.duplicated, &mangled.delayed, &mangled.reordered].map(|count| count.load(Ordering::Relaxed));
    assert!(duplicated > 50 && delayed > 5 && reordered > 50, "{mangled:?}");
    assert!(!seen.is_sorted(), "reordered");
    assert!(seen.len() > MESSAGES as usize + 50, "repeated: {}", seen.len());
    seen.sort_unstable();
    seen.dedup();
    let expected: Vec<u32> = (0..MESSAGES).filter(|number| number % 50 != 0).collect();
    assert_eq!(seen, expected);
}
