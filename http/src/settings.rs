//! Settings of the gateway, with their defaults.

use std::{net::SocketAddr, time::Duration};

use callboard_messages::Secret;
use callboard_platform::limits::RateLimits;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::pace::Pace;

/// The gateway's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// The address to listen on; port 0 takes a free one. Default: `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Worker threads; 0 is one for each core. Default: 0.
    pub workers: usize,
    /// The platform's URL for browsers and programs, where that is not the address of the node: discovery names it,
    /// never the `Host` header. With `https`, cookies are `Secure` and `Strict-Transport-Security` is sent. Default:
    /// none.
    pub public_url: Option<Url>,
    /// Peers whose `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Request-Id` are trusted. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose scripts may use the API (CORS), such as `https://console.example.com`. They authenticate with a
    /// token: cookies are never allowed across origins. Default: none.
    pub cors_origins: Vec<String>,
    /// The largest JSON body, in bytes. Default: 1 MiB.
    pub json_limit: usize,
    /// The largest uploaded source, in bytes. Default: 512 MiB.
    pub upload_limit: u64,
    /// Time limit of a JSON body, and how long an upload may be awaited in all, in seconds. Default: 30.
    pub body_timeout_seconds: u64,
    /// For this many bytes of an upload a second is added to its time. Default: 1 KiB.
    pub body_rate: u64,
    /// Time limit of a request's head, in seconds. Default: 5.
    pub head_timeout_seconds: u64,
    /// How long a connection is kept without a request, in seconds. Default: 75.
    pub keep_alive_seconds: u64,
    /// How long a response, a stream or a WebSocket may be idle, in seconds. Default: 300.
    pub stream_idle_seconds: u64,
    /// Time for open requests when the node stops, in seconds. Default: 25.
    pub shutdown_seconds: u64,
    /// The rate limits.
    pub rate_limits: RateLimits,
    /// The bearer token for `/metrics` from other machines. Default: none.
    #[serde(skip_serializing)]
    pub metrics_token: Option<Secret>,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            workers: 0,
            public_url: None,
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            json_limit: 1024 * 1024,
            upload_limit: 512 * 1024 * 1024,
            body_timeout_seconds: 30,
            body_rate: 1024,
            head_timeout_seconds: 5,
            keep_alive_seconds: 75,
            stream_idle_seconds: 300,
            shutdown_seconds: 25,
            rate_limits: RateLimits::default(),
            metrics_token: None,
        }
    }
}

impl GatewaySettings {
    /// Checks all of it.
    ///
    /// # Errors
    /// A sentence for each invalid setting.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut mistakes = Vec::new();
        let mut check = |holds: bool, sentence: &str| {
            if !holds {
                mistakes.push(sentence.to_owned());
            }
        };
        check(self.json_limit >= 1024, "the JSON limit must be at least 1,024 bytes");
        check(self.upload_limit > 0, "the upload limit must be above zero");
        check(self.body_timeout_seconds > 0, "the body timeout must be above zero");
        check(self.body_rate > 0, "the body rate must be above zero");
        check(self.head_timeout_seconds > 0, "the head timeout must be above zero");
        check(self.stream_idle_seconds > 0, "the time that a stream may stand still must be above zero");
        let short = self.metrics_token.as_ref().is_some_and(|token| token.expose().len() < 16);
        check(!short, "the metrics token must have at least 16 characters");
        check(self.workers <= 1024, "there can be at most 1,024 workers");
        let rates = [self.rate_limits.principal, self.rate_limits.address, self.rate_limits.sign_in];
        check(rates.iter().all(|rate| rate.per_minute > 0 && rate.burst > 0), "a rate limit must be above zero");
        if let Some(url) = &self.public_url {
            check(
                matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.path() == "/",
                "the public URL must be http(s)://<host>, without a path",
            );
        }
        for origin in &self.cors_origins {
            let exact = Url::parse(origin).is_ok_and(|url| {
                matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == *origin
            });
            if !exact {
                mistakes.push(format!("the CORS origin {origin:?} must be exactly <scheme>://<host>[:<port>]"));
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// Whether the platform's URL is `https`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.public_url.as_ref().is_some_and(|url| url.scheme() == "https")
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.body_timeout_seconds)
    }

    /// The pace of one upload.
    pub(crate) fn pace(&self) -> Pace {
        Pace::new(self.body_timeout(), self.body_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(GatewaySettings::default().validate(), Ok(()));
    }

    #[test]
    fn an_origin_that_would_let_anyone_in_is_refused() {
        for origin in ["*", "null", "https://*.example.com/", "https://example.com/", "example.com", "file://x"] {
            let settings = GatewaySettings { cors_origins: vec![origin.to_owned()], ..Default::default() };
            assert_eq!(settings.validate().unwrap_err().len(), 1, "{origin}");
        }
        let settings =
            GatewaySettings { cors_origins: vec!["https://example.com:8443".to_owned()], ..Default::default() };
        assert_eq!(settings.validate(), Ok(()));
    }
}
