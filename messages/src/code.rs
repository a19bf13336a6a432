//! The closed set of codes that every error maps to, and what a call can end in besides a reply.

use std::{borrow::Cow, fmt, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Every error of every domain is one of these; the gateway maps them to HTTP once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is malformed or breaks a rule (400).
    Invalid,
    /// No valid credentials (401).
    Unauthenticated,
    /// Valid credentials without the permission (403).
    Forbidden,
    /// Not there, or not the caller's to see (404).
    NotFound,
    /// In the way of what exists (409).
    Conflict,
    /// The resource has changed since the caller read it (412).
    PreconditionFailed,
    /// Larger than allowed (413).
    TooLarge,
    /// This caller asks too often (429).
    RateLimited,
    /// The domain's bulkhead is full (503 with `Retry-After`).
    Overloaded,
    /// The domain, or something it needs, does not work now (503).
    Unavailable,
    /// No answer within the deadline (504).
    Timeout,
    /// A fault of ours (500); the log has the cause.
    Internal,
}

impl Code {
    /// Every code there is.
    pub const ALL: [Self; 12] = [
        Self::Invalid,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::TooLarge,
        Self::RateLimited,
        Self::Overloaded,
        Self::Unavailable,
        Self::Timeout,
        Self::Internal,
    ];

    /// As written in problem details, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::PreconditionFailed => "precondition_failed",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The codes of the variants, and those of all of them, said once.
macro_rules! codes {
    ($($variants:pat => $code:ident),+ $(,)?) => {
        const CODES: &'static [$crate::Code] = &[$($crate::Code::$code),+];

        fn code(&self) -> $crate::Code {
            match self {
                $($variants => $crate::Code::$code),+
            }
        }
    };
}
pub(crate) use codes;

/// A refusal: one enum per domain. `Display` is what the client reads.
pub trait DomainError: std::error::Error + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The codes of all variants: what the API's description says of each operation that refuses with this.
    const CODES: &'static [Code];

    /// The code of this variant.
    fn code(&self) -> Code;

    /// When the caller may try again, for `RateLimited`, `Overloaded` and `Unavailable`.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// A refusal of some domain, for who asks without knowing which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{sentence}")]
pub struct Refused {
    code: Code,
    sentence: String,
    retry_after: Option<Duration>,
}

impl DomainError for Refused {
    const CODES: &'static [Code] = &Code::ALL;

    fn code(&self) -> Code {
        self.code
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// What the runtime, rather than the domain, answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The operation needs credentials and the caller has none.
    #[error("sign in, or send an API key, to do this")]
    Unauthenticated,
    /// The caller's scopes do not hold the permission.
    #[error("this needs the permission {0}")]
    Forbidden(Cow<'static, str>),
    /// The bulkhead is full; nothing was executed.
    #[error("too much work is waiting; try again shortly")]
    Overloaded {
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// As many of this caller's requests wait as may; nothing was executed.
    #[error("too many of your requests are waiting; try again shortly")]
    RateLimited {
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// The breaker is open or the domain is down; nothing was executed.
    #[error("this part of the platform is unavailable; try again shortly")]
    Unavailable {
        /// When it is likely to work again.
        retry_after: Duration,
    },
    /// The disk below the data has no room; nothing was written, and what is there can still be read.
    #[error("the disk is full, so nothing could be written; make room there, then try again")]
    DiskFull {
        /// When it is worth to try again.
        retry_after: Duration,
    },
    /// The store refused a value of the request, which the domain had let through; nothing was written.
    #[error("the request holds a value that can't be stored")]
    Invalid,
    /// The deadline passed before the work began; nothing was executed.
    #[error("the deadline passed before the work began")]
    Expired,
    /// The deadline passed while the work ran: it may or may not have happened.
    #[error("no answer within the deadline; the request may or may not have been carried out")]
    Timeout,
    /// Another node was asked, and its reply is lost: it may or may not have happened.
    #[error("the outcome is unknown: the request may or may not have been carried out; look before you repeat it")]
    Unknown,
    /// A fault of ours, for the log; the client reads a fixed sentence.
    #[error("{0}")]
    Internal(String),
}

impl Failure {
    /// The code of this failure.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Forbidden(_) => Code::Forbidden,
            Self::Overloaded { .. } => Code::Overloaded,
            Self::RateLimited { .. } => Code::RateLimited,
            Self::Unavailable { .. } | Self::DiskFull { .. } => Code::Unavailable,
            Self::Invalid => Code::Invalid,
            Self::Expired | Self::Timeout | Self::Unknown => Code::Timeout,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// Whether nothing can have happened, so that a retry is safe whatever the operation.
    #[must_use]
    pub const fn is_certain(&self) -> bool {
        !matches!(self, Self::Timeout | Self::Unknown | Self::Internal(_))
    }

    /// Whether something that many depend on is away or full for now: whoever finds that says it once for all of them.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::DiskFull { .. })
    }
}

/// What a call ends in when it does not end in a reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallError<E> {
    /// The domain's answer is no. The actor lives on.
    Refused(E),
    /// The runtime could not get an answer.
    Failed(Failure),
}

impl<E: DomainError> CallError<E> {
    /// The code of the refusal or failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(error) => error.code(),
            Self::Failed(failure) => failure.code(),
        }
    }

    /// The same, without the domain's own type.
    #[must_use]
    pub fn untyped(self) -> CallError<Refused> {
        match self {
            Self::Refused(error) => {
                let (code, retry_after) = (error.code(), error.retry_after());
                CallError::Refused(Refused { code, sentence: error.to_string(), retry_after })
            }
            Self::Failed(failure) => CallError::Failed(failure),
        }
    }

    /// The same of an operation that had written something before it failed: it does not say that nothing has happened.
    #[must_use]
    pub fn after_effect(self) -> Self {
        match self {
            Self::Failed(failure) if failure.is_certain() => Self::Failed(Failure::Unknown),
            other => other,
        }
    }

    /// When the caller may try again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(error) => error.retry_after(),
            Self::Failed(
                Failure::Overloaded { retry_after }
                | Failure::RateLimited { retry_after }
                | Failure::Unavailable { retry_after }
                | Failure::DiskFull { retry_after },
            ) => Some(*retry_after),
            Self::Failed(_) => None,
        }
    }

    /// The sentence the client reads. A fault of ours tells nothing but that it was ours.
    pub fn public_message(&self) -> Cow<'static, str> {
        match self {
            Self::Refused(error) => Cow::Owned(error.to_string()),
            Self::Failed(Failure::Internal(_)) => {
                Cow::Borrowed("something went wrong on our side; the request id leads to the cause in the log")
            }
            Self::Failed(failure) => Cow::Owned(failure.to_string()),
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl<E: std::error::Error> std::error::Error for CallError<E> {}

impl<E> From<Failure> for CallError<E> {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl<E: DomainError> From<E> for CallError<E> {
    fn from(refusal: E) -> Self {
        Self::Refused(refusal)
    }
}
