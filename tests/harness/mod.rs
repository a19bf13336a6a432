//! What the tests are written with.

mod api;
mod apps;
pub mod cli;
pub mod collector;
pub mod ground;
pub mod member;
mod node;
pub mod processes;
pub mod proxy;
pub mod random;
pub mod servers;
mod visitors;

use std::{future::Future, time::Duration};

use tokio::time::Instant;

pub use api::Api;
pub use apps::{App, visit};
pub use cli::Ran;
pub use collector::Collector;
pub use node::Node;
pub use visitors::Visitors;

/// The password of every account.
pub const PASSWORD: &str = "sandbank over 7 quiet lanterns";

/// An HTTP client that follows no redirects and waits for nothing for ever.
pub fn http() -> reqwest::ClientBuilder {
    // The process needs one provider of cryptography, though nothing here is encrypted.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(Duration::from_secs(30))
}

/// Asks until there is an answer, for as long as a healthy machine could need.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    within(Duration::from_secs(60), what, ask).await
}

/// Asks until there is an answer or the time is over.
pub async fn within<T, F: Future<Output = Option<T>>>(limit: Duration, what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}
