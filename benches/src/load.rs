//! An open loop: requests leave by the clock, whether or not earlier ones were answered, and the time of each counts
//! from when it should have left, so that a slow server can't hide its queue.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::Instant,
};

use crate::Outcome;

/// One answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// The HTTP status; 0 when the connection broke.
    pub status: u16,
    /// From when it should have left.
    pub took: Duration,
}

/// A connection that lay idle for longer may have been closed by the server as this end writes to it.
const IDLE_AT_MOST: Duration = Duration::from_secs(2);

/// Sends `request` (a whole HTTP/1.1 request that keeps the connection) `rate` times a second for `duration`, over as
/// many keep-alive connections as are busy at once, at most `connections`.
///
/// # Errors
/// When a task of the load fails.
pub async fn open_loop(
    address: SocketAddr,
    request: Vec<u8>,
    rate: f64,
    duration: Duration,
    connections: usize,
) -> Outcome<Vec<Answer>> {
    let request: Rc<[u8]> = request.into();
    let idle = Rc::new(RefCell::new(Vec::<(TcpStream, Instant)>::new()));
    let permits = Rc::new(Semaphore::new(connections));
    let total = (rate * duration.as_secs_f64()) as usize;
    let start = Instant::now();
    let mut tasks = Vec::with_capacity(total);
    for number in 0..total {
        let due = start + Duration::from_secs_f64(number as f64 / rate);
        tokio::time::sleep_until(due).await;
        let (request, idle, permits) = (Rc::clone(&request), Rc::clone(&idle), Rc::clone(&permits));
        tasks.push(tokio::task::spawn_local(async move {
            let _permit = permits.acquire().await;
            let kept = idle.borrow_mut().pop().filter(|(_, since)| since.elapsed() < IDLE_AT_MOST);
            let outcome = async {
                let mut stream = match kept {
                    Some((stream, _)) => stream,
                    None => TcpStream::connect(address).await?,
                };
                let status = exchange(&mut stream, &request).await?;
                Outcome::Ok((stream, status))
            };
            let outcome = outcome.await;
            let took = due.elapsed();
            let status = outcome.map_or(0, |(stream, status)| {
                idle.borrow_mut().push((stream, Instant::now()));
                status
            });
            Answer { status, took }
        }));
    }
    let mut answers = Vec::with_capacity(total);
    for task in tasks {
        answers.push(task.await?);
    }
    Ok(answers)
}

/// Writes the request and reads one answer with a `Content-Length`.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> Outcome<u16> {
    stream.write_all(request).await?;
    let mut received = Vec::with_capacity(2048);
    let head = loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err("the connection ended".into());
        }
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(received.get(..head).unwrap_or_default()).to_ascii_lowercase();
    let status = text.split_whitespace().nth(1).ok_or("no status")?.parse()?;
    let length: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(Ok(0), |length| length.trim().parse())?;
    while received.len() < head + length {
        if stream.read_buf(&mut received).await? == 0 {
            return Err("the connection ended within an answer".into());
        }
    }
    Ok(status)
}

/// The time within which the share `quantile` of the answers came.
#[must_use]
pub fn quantile(answers: &[Answer], quantile: f64) -> Duration {
    let mut times: Vec<Duration> = answers.iter().map(|answer| answer.took).collect();
    times.sort_unstable();
    let at = (times.len().saturating_sub(1)) as f64 * quantile;
    times.get(at as usize).copied().unwrap_or_default()
}
