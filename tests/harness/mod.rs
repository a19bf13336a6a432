//! What the tests are written with.

mod api;
mod apps;
pub mod cli;
pub mod collector;
pub mod domains;
pub mod ground;
pub mod member;
pub mod mounts;
mod node;
pub mod processes;
pub mod proxy;
pub mod random;
pub mod servers;
mod visitors;
pub mod volume;

use std::{future::Future, time::Duration};

use tokio::time::Instant;

pub use api::{Answer, Api};
pub use apps::{App, PROCFILE, SILENT, visit};
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

/// Gets what anybody may.
pub async fn get(url: String) -> reqwest::Result<reqwest::Response> {
    http().build()?.get(url).send().await
}

/// Asks until there is an answer, for as long as a healthy machine could need.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    within(Duration::from_secs(60), what, ask).await
}

/// Asks until there is an answer or the time is over.
pub async fn within<T, F: Future<Output = Option<T>>>(limit: Duration, what: &str, mut ask: impl FnMut() -> F) -> T {
    answered_within(limit, what, || {
        let asked = ask();
        async { Ok(asked.await) }
    })
    .await
}

/// The same where asking itself may fail: then there is no answer yet, and the last failure is told if none comes.
pub async fn answered<T, F: Future<Output = Asked<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    answered_within(Duration::from_secs(60), what, ask).await
}

/// An answer, none yet, or why it could not be asked.
pub type Asked<T> = Result<Option<T>, String>;

/// Asks until there is an answer or the time is over.
pub async fn answered_within<T, F>(limit: Duration, what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Asked<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let trouble = match ask().await {
            Ok(Some(answer)) => return answer,
            Ok(None) => String::new(),
            Err(error) => format!("; {error}"),
        };
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}{trouble}");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}
