//! What the benchmarks share: children that end with the benchmark, wrk, and medians.
//!
//! Every benchmark prints a ratio of two programs that are measured in turns in one run on one machine, because
//! figures of different runs or machines can't be compared. Load goes to loopback only, bounded in count and time.

pub mod bare;
pub mod broker;
pub mod children;
pub mod cluster;
pub mod load;
pub mod node;
pub mod wrk;

/// A benchmark ends with the sentence that says what stood in its way.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The middle value.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A free port of the loopback address; free a moment ago, that is.
///
/// # Errors
/// When no port can be had.
pub fn free_port() -> Outcome<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
