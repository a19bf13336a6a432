//! Rate limits across all nodes.
//!
//! The whole decision is one script on the server (`rates.lua`), by the **server's clock**: there is one of it, while
//! the clocks of the nodes differ, and a node whose clock is ahead would fill every bucket for the others.
//!
//! Every request is counted in this process as well. What exceeds the limit in this process alone is refused without
//! asking, which spares the server in a burst; and when the server is down, slow or was emptied, the count in the
//! process decides at once, from what it has seen, not from a full bucket.
//!
//! A busy caller would make its node ask the server as often. So tokens of a large bucket are taken in advance: one at
//! first, twice as many each time the last ones were used within [`STOCK_LASTS`], up to a sixteenth of the bucket.
//! Unused ones expire then; a caller who pauses has earned as many meanwhile.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use callboard_platform::limits::{Class, InProcess, Rate, RateLimitStore, RateLimits, Take, Verdict};
use callboard_supervisors::Clock;
use futures_util::FutureExt;
use parking_lot::Mutex;
use redis::Script;

use crate::{Cache, error::CacheError};

/// How long tokens that were taken in advance may be used.
pub(crate) const STOCK_LASTS: Duration = Duration::from_millis(500);

/// The part of a bucket that may be taken in advance.
const STOCK_PART: u32 = 16;

/// Rate limits in Redis, and in the process.
pub(crate) struct SharedRates(Arc<Inner>);

struct Inner {
    cache: Cache,
    clock: Clock,
    script: Script,
    limits: RateLimits,
    local: InProcess,
    stocks: Mutex<HashMap<(Class, u128), Stock>>,
}

/// Tokens taken in advance.
#[derive(Debug, Clone, Copy)]
struct Stock {
    places: u32,
    /// What the bucket had left then.
    remaining: u32,
    /// Number of tokens taken.
    taken: u32,
    until: Instant,
}

/// The answer of the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) places: u32,
    pub(crate) remaining: u32,
    pub(crate) wait: Duration,
}

pub(crate) fn script() -> Script {
    Script::new(include_str!("rates.lua"))
}

/// Takes `wanted` tokens by the script. `now` is for tests; otherwise the server's clock decides.
pub(crate) async fn ask(
    turn: crate::connection::Turn,
    script: &Script,
    key: String,
    rate: Rate,
    wanted: u32,
    now: Option<u64>,
) -> Result<Taken, CacheError> {
    let micros = rate.interval().as_secs_f64() * 1e6;
    let invocation = async |connection: &mut redis::aio::MultiplexedConnection| {
        let mut invocation = script.key(key);
        invocation.arg(micros.max(0.001)).arg(rate.burst.max(1)).arg(wanted.max(1)).arg(now.unwrap_or(0));
        invocation.invoke_async::<(u32, u32, u64)>(connection).await
    };
    let (places, remaining, wait) = turn.run(invocation).await?;
    Ok(Taken { places, remaining, wait: Duration::from_micros(wait) })
}

impl SharedRates {
    pub(crate) fn new(cache: Cache, limits: &RateLimits) -> Self {
        let (clock, local) = (cache.clock(), InProcess::new(limits));
        let (limits, script) = (limits.clone(), script());
        Self(Arc::new(Inner { cache, clock, script, limits, local, stocks: Mutex::default() }))
    }
}

impl RateLimitStore for SharedRates {
    fn take(&self, class: Class, subject: u128) -> Take {
        let inner = &self.0;
        let local = inner.local.decide(class, subject);
        if local.allowed.is_err() {
            inner.count(class, "local");
            return Take::Now(local);
        }
        let wanted = match inner.spend(class, subject) {
            Ok(verdict) => {
                inner.count(class, "stock");
                return Take::Now(verdict);
            }
            Err(wanted) => wanted,
        };
        let turn = match inner.cache.admit() {
            Ok(turn) => turn,
            Err(_) => {
                inner.count(class, "local");
                return Take::Now(local);
            }
        };
        let inner = Arc::clone(inner);
        Take::Later(
            async move {
                let key = inner.cache.key("rate", format_args!("{}:{subject:032x}", class.name()));
                match ask(turn, &inner.script, key, inner.limits.of(class), wanted, None).await {
                    Ok(taken) => {
                        inner.count(class, "redis");
                        inner.accept(class, subject, taken)
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a request was counted in this process only");
                        inner.count(class, "local");
                        local
                    }
                }
            }
            .boxed_local(),
        )
    }

    fn sweep(&self) {
        self.0.local.sweep();
        let now = self.0.clock.instant();
        let mut stocks = self.0.stocks.lock();
        stocks.retain(|_, stock| now < stock.until);
        stocks.shrink_to_fit();
    }
}

impl Inner {
    /// Uses a token of the stock; or returns how many to take.
    fn spend(&self, class: Class, subject: u128) -> Result<Verdict, u32> {
        let most = (self.limits.of(class).burst / STOCK_PART).max(1);
        if most == 1 {
            return Err(1);
        }
        let mut stocks = self.stocks.lock();
        let Some(stock) = stocks.get_mut(&(class, subject)) else { return Err(1) };
        if self.clock.instant() >= stock.until {
            stocks.remove(&(class, subject));
            return Err(1);
        }
        if stock.places == 0 {
            return Err(stock.taken.saturating_mul(2).min(most));
        }
        stock.places -= 1;
        Ok(Verdict { allowed: Ok(()), remaining: stock.remaining + stock.places })
    }

    /// Uses one token, and puts the rest into the stock.
    fn accept(&self, class: Class, subject: u128, taken: Taken) -> Verdict {
        let Some(places) = taken.places.checked_sub(1) else {
            return Verdict { allowed: Err(taken.wait), remaining: 0 };
        };
        let until = self.clock.instant() + STOCK_LASTS;
        let mut stocks = self.stocks.lock();
        let entry = stocks.entry((class, subject)).or_insert(Stock { places: 0, remaining: 0, taken: 0, until });
        // Several requests may have taken tokens at the same time.
        let places = if self.clock.instant() < entry.until { entry.places.saturating_add(places) } else { places };
        *entry = Stock { places, remaining: taken.remaining, taken: taken.places, until };
        Verdict { allowed: Ok(()), remaining: taken.remaining.saturating_add(places) }
    }

    fn count(&self, class: Class, by: &str) {
        if let Some(metrics) = &self.cache.metrics {
            metrics.limits.with_label_values(&[class.name(), by]).inc();
        }
    }
}
