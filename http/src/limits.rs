//! The gateway's rate limits and their headers: `RateLimit`, `RateLimit-Policy` and, with a refusal, `Retry-After`.

use std::{sync::Arc, time::Duration};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
pub use callboard_platform::limits::{Class, InProcess, Rate, RateLimitStore, RateLimits, Take, Verdict};

/// The rate limits, with their headers.
pub(crate) struct Limits {
    store: Option<Arc<dyn RateLimitStore>>,
    principal: Policy,
    address: Policy,
    sign_in: Policy,
}

struct Policy {
    header: HeaderValue,
    per_minute: u32,
}

impl Policy {
    fn new(class: Class, rate: Rate) -> Self {
        let text = format!("\"{}\";q={};w=60", class.name(), rate.per_minute);
        let header = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("\"?\""));
        Self { header, per_minute: rate.per_minute }
    }
}

/// What is left of a limit, for the headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    class: Class,
    remaining: u32,
}

impl Limits {
    pub(crate) fn new(limits: &RateLimits, store: Option<Arc<dyn RateLimitStore>>) -> Self {
        Self {
            store: limits.enabled.then(|| store.unwrap_or_else(|| Arc::new(InProcess::new(limits)))),
            principal: Policy::new(Class::Principal, limits.principal),
            address: Policy::new(Class::Address, limits.address),
            sign_in: Policy::new(Class::SignIn, limits.sign_in),
        }
    }

    /// Counts a request. `Err` is the time until one is allowed again; `None` that there are no limits.
    pub(crate) async fn take(&self, class: Class, subject: u128) -> Result<Option<Left>, Duration> {
        let Some(store) = &self.store else { return Ok(None) };
        let verdict = match store.take(class, subject) {
            Take::Now(verdict) => verdict,
            Take::Later(verdict) => verdict.await,
        };
        verdict.allowed.map(|()| Some(Left { class, remaining: verdict.remaining }))
    }

    pub(crate) fn sweep(&self) {
        if let Some(store) = &self.store {
            store.sweep();
        }
    }

    /// Sets the headers: `r` more of `"class"` are allowed at once; `t` is the time until one more is.
    pub(crate) fn tell(&self, left: Left, headers: &mut HeaderMap) {
        let policy = match left.class {
            Class::Principal => &self.principal,
            Class::Address => &self.address,
            Class::SignIn => &self.sign_in,
        };
        let next = 60_u32.div_ceil(policy.per_minute.max(1));
        let text = format!("\"{}\";r={};t={next}", left.class.name(), left.remaining);
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
            headers.insert(HeaderName::from_static("ratelimit"), value);
            headers.insert(HeaderName::from_static("ratelimit-policy"), policy.header.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn each_subject_has_its_own_burst_and_is_told_when_to_come_again() {
        let rates = RateLimits { sign_in: Rate { per_minute: 6, burst: 3 }, ..Default::default() };
        let limits = Limits::new(&rates, None);
        for remaining in [2, 1, 0] {
            assert_eq!(limits.take(Class::SignIn, 1).await.unwrap().unwrap().remaining, remaining);
        }
        let wait = limits.take(Class::SignIn, 1).await.unwrap_err();
        assert!(wait > Duration::from_secs(5) && wait <= Duration::from_secs(10), "{wait:?}");
        assert!(limits.take(Class::SignIn, 2).await.is_ok());
        assert!(limits.take(Class::Address, 1).await.is_ok());
    }

    #[actix_rt::test]
    async fn limits_can_be_off() {
        let rates = RateLimits { enabled: false, sign_in: Rate { per_minute: 1, burst: 1 }, ..Default::default() };
        let limits = Limits::new(&rates, None);
        for _ in 0..10 {
            assert!(limits.take(Class::SignIn, 1).await.unwrap().is_none());
        }
    }
}
