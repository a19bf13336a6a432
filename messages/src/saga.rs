//! Sagas as an operator sees them, whichever domain they belong to.
//!
//! A domain with sagas says so by `sagas!` here and by one line of its contract; the runtime answers these operations for it,
//! and the domain `cluster` asks those of every domain.

use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Access, Cursor, DomainError, Limit, Operation, Page, code::codes};

/// How far a saga has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SagaStatus {
    /// It goes forward.
    Running,
    /// A step was refused, and what was done is being taken back.
    Undoing,
    /// Every step was carried out.
    Done,
    /// Nothing is left of it.
    Undone,
    /// It goes neither forward nor back: somebody has to look, and then retry it.
    Stuck,
}

impl SagaStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Running, Self::Undoing, Self::Done, Self::Undone, Self::Stuck];

    /// As stored, and as the label of a metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Undoing => "undoing",
            Self::Done => "done",
            Self::Undone => "undone",
            Self::Stuck => "stuck",
        }
    }

    /// Whether nothing more happens by itself or by a retry.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Undone)
    }
}

/// A saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SagaView {
    /// The saga.
    pub id: Uuid,
    /// What it does, such as `project.create`.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// How far it has come.
    pub status: SagaStatus,
    /// The step it is at; absent once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 100)]
    pub step: Option<String>,
    /// Whether it is being taken back, or was.
    pub undoing: bool,
    /// What went wrong last, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 16_384)]
    pub trouble: Option<String>,
    /// The request that began it.
    pub correlation_id: Uuid,
    /// UTC.
    pub created_at: DateTime<Utc>,
    /// UTC; of its last step.
    pub updated_at: DateTime<Utc>,
}

/// A domain with sagas: what its operations about them are called.
pub trait SagaDomain: 'static {
    /// Of [`ListSagasOf`] this domain.
    const LIST: &'static str;
    /// Of [`RetrySagaOf`] this domain.
    const RETRY: &'static str;
}

/// The type that stands for the sagas of a domain.
macro_rules! sagas {
    ($(#[$doc:meta])* $sagas:ident, of $domain:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $sagas {}

        impl $crate::saga::SagaDomain for $sagas {
            const LIST: &'static str = concat!($domain, ".list_sagas");
            const RETRY: &'static str = concat!($domain, ".retry_saga");
        }
    };
}
pub(crate) use sagas;

/// What is refused of sagas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SagaError {
    /// No such saga of this domain.
    #[error("there is no such saga")]
    NoSuchSaga,
    /// Only a stuck saga can be retried.
    #[error("the saga is {}; only a stuck one can be retried", .0.as_str())]
    NotStuck(SagaStatus),
}

impl DomainError for SagaError {
    codes! {
        Self::NoSuchSaga => NotFound,
        Self::NotStuck(_) => Conflict,
    }
}

/// Lists the sagas of one domain, newest first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct ListSagasOf<D> {
    /// Only those with this status; default: those that have not ended.
    #[serde(default)]
    pub status: Option<SagaStatus>,
    /// How many rows.
    #[serde(default)]
    pub limit: Limit,
    /// The `next` of the page before.
    #[serde(default)]
    pub cursor: Option<Cursor>,
    /// Which domain.
    #[serde(skip)]
    pub of: PhantomData<fn() -> D>,
}

impl<D: SagaDomain> Operation for ListSagasOf<D> {
    const NAME: &'static str = D::LIST;
    const ACCESS: Access = Access::Administrator;
    const IDEMPOTENT: bool = true;
    type Reply = Page<SagaView>;
    type Error = SagaError;
}

/// Lets a stuck saga of one domain go on from where it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct RetrySagaOf<D> {
    /// Which.
    pub saga_id: Uuid,
    /// Of which domain.
    #[serde(skip)]
    pub of: PhantomData<fn() -> D>,
}

impl<D: SagaDomain> Operation for RetrySagaOf<D> {
    const NAME: &'static str = D::RETRY;
    const ACCESS: Access = Access::Administrator;
    type Reply = SagaView;
    type Error = SagaError;
}
