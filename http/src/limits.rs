//! How often one may ask: GCRA per principal and per address.
//!
//! The store is a trait, because several gateways must count together; this one counts in the process. A limit answers
//! with `RateLimit`, `RateLimit-Policy` and, when it refuses, `Retry-After`.

use std::{num::NonZeroU32, time::Duration};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, MonotonicClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

use crate::settings::{Rate, RateLimits};

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A user or an API key.
    Principal,
    /// An address without credentials, or with a token that is not known yet.
    Address,
    /// An address that sends passwords or refresh tokens.
    SignIn,
}

impl Class {
    const fn name(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Address => "address",
            Self::SignIn => "sign-in",
        }
    }
}

/// One request's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// `Err` says when to come again.
    pub allowed: Result<(), Duration>,
    /// How many more may come at once.
    pub remaining: u32,
}

/// A verdict that is there, or will be.
pub enum Take {
    /// Decided in the process.
    Now(Verdict),
    /// Asked of somebody else.
    Later(LocalBoxFuture<'static, Verdict>),
}

/// Counts requests. `subject` is a user, a key or an address, as 128 bits.
pub trait RateLimitStore: Send + Sync + 'static {
    /// Takes a place for one request.
    fn take(&self, class: Class, subject: u128) -> Take;

    /// Forgets subjects that have all their places again.
    fn sweep(&self) {}
}

type Limiter = RateLimiter<u128, DashMapStateStore<u128>, MonotonicClock, StateInformationMiddleware>;

/// Counts in this process.
pub struct InProcess {
    principal: Limiter,
    address: Limiter,
    sign_in: Limiter,
    clock: MonotonicClock,
}

impl InProcess {
    /// With these limits.
    #[must_use]
    pub fn new(limits: &RateLimits) -> Self {
        let limiter = |rate| {
            RateLimiter::dashmap_with_clock(quota(rate), MonotonicClock).with_middleware::<StateInformationMiddleware>()
        };
        Self {
            principal: limiter(limits.principal),
            address: limiter(limits.address),
            sign_in: limiter(limits.sign_in),
            clock: MonotonicClock,
        }
    }

    const fn limiter(&self, class: Class) -> &Limiter {
        match class {
            Class::Principal => &self.principal,
            Class::Address => &self.address,
            Class::SignIn => &self.sign_in,
        }
    }
}

fn quota(rate: Rate) -> Quota {
    let per_minute = NonZeroU32::new(rate.per_minute).unwrap_or(NonZeroU32::MIN);
    let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
    Quota::per_minute(per_minute).allow_burst(burst)
}

impl RateLimitStore for InProcess {
    fn take(&self, class: Class, subject: u128) -> Take {
        Take::Now(match self.limiter(class).check_key(&subject) {
            Ok(state) => Verdict { allowed: Ok(()), remaining: state.remaining_burst_capacity() },
            Err(refused) => Verdict { allowed: Err(refused.wait_time_from(self.clock.now())), remaining: 0 },
        })
    }

    fn sweep(&self) {
        for limiter in [&self.principal, &self.address, &self.sign_in] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// The limits of the gateway, with the headers that tell them.
pub(crate) struct Limits {
    store: Option<Box<dyn RateLimitStore>>,
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

/// What the limit left, for the answer's headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    class: Class,
    remaining: u32,
}

impl Limits {
    pub(crate) fn new(limits: &RateLimits, store: Option<Box<dyn RateLimitStore>>) -> Self {
        Self {
            store: limits.enabled.then(|| store.unwrap_or_else(|| Box::new(InProcess::new(limits)))),
            principal: Policy::new(Class::Principal, limits.principal),
            address: Policy::new(Class::Address, limits.address),
            sign_in: Policy::new(Class::SignIn, limits.sign_in),
        }
    }

    /// `Err` says when to come again; `None` that nothing is limited.
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

    /// `r` of `"class"` may come at once; `t` is when one more may.
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
