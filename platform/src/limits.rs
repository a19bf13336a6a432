//! Rate limits: GCRA per user or key and per address.
//!
//! The store is a trait, because several gateways must count together; [`InProcess`] counts in the process, and is the
//! fallback of a store that counts elsewhere.

use std::{num::NonZeroU32, time::Duration};

use futures_util::future::LocalBoxFuture;
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, MonotonicClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};
use serde::{Deserialize, Serialize};

/// Rates of principals and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    /// Off for benchmarks only. Default: on.
    pub enabled: bool,
    /// Each user or API key. Default: 6,000 a minute, 1,000 at once.
    pub principal: Rate,
    /// Each address (IPv6: each /64) without credentials, and each token seen for the first time. Default: 600 a
    /// minute, 300 at once.
    pub address: Rate,
    /// Each address, for operations that take passwords and refresh tokens. Default: 60 a minute, 30 at once.
    pub sign_in: Rate,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            enabled: true,
            principal: Rate { per_minute: 6000, burst: 1000 },
            address: Rate { per_minute: 600, burst: 300 },
            sign_in: Rate { per_minute: 60, burst: 30 },
        }
    }
}

impl RateLimits {
    /// The rate of one class.
    #[must_use]
    pub const fn of(&self, class: Class) -> Rate {
        match class {
            Class::Principal => self.principal,
            Class::Address => self.address,
            Class::SignIn => self.sign_in,
        }
    }
}

/// A steady rate, and a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests a minute, in the long run.
    pub per_minute: u32,
    /// Requests at once, after a pause.
    pub burst: u32,
}

impl Rate {
    /// Time between two requests at the steady rate.
    #[must_use]
    pub fn interval(self) -> Duration {
        Duration::from_secs(60) / self.per_minute.max(1)
    }
}

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
    /// All classes.
    pub const ALL: [Self; 3] = [Self::Principal, Self::Address, Self::SignIn];

    /// Its name in headers, metrics and keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Address => "address",
            Self::SignIn => "sign-in",
        }
    }
}

/// The decision on one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// `Err` is the time until a request is allowed again.
    pub allowed: Result<(), Duration>,
    /// How many more are allowed at once.
    pub remaining: u32,
}

/// A verdict now or later.
pub enum Take {
    /// Decided in the process.
    Now(Verdict),
    /// Decided elsewhere.
    Later(LocalBoxFuture<'static, Verdict>),
}

/// Counts requests by subject: a user, a key or an address, as 128 bits.
pub trait RateLimitStore: Send + Sync + 'static {
    /// Counts one request.
    fn take(&self, class: Class, subject: u128) -> Take;

    /// Forgets subjects with a full bucket.
    fn sweep(&self) {}
}

type Limiter = RateLimiter<u128, DashMapStateStore<u128>, MonotonicClock, StateInformationMiddleware>;

/// Counts requests in this process.
pub struct InProcess {
    principal: Limiter,
    address: Limiter,
    sign_in: Limiter,
    clock: MonotonicClock,
}

impl InProcess {
    /// A store with these limits.
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

    /// Decides on one request, without waiting.
    pub fn decide(&self, class: Class, subject: u128) -> Verdict {
        match self.limiter(class).check_key(&subject) {
            Ok(state) => Verdict { allowed: Ok(()), remaining: state.remaining_burst_capacity() },
            Err(refused) => Verdict { allowed: Err(refused.wait_time_from(self.clock.now())), remaining: 0 },
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
        Take::Now(self.decide(class, subject))
    }

    fn sweep(&self) {
        for limiter in [&self.principal, &self.address, &self.sign_in] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}
