//! Sagas as an operator sees them, whichever domain they belong to.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

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
