//! Creations and deletions under way, for operators.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::ProjectError;
use crate::{Access, Cursor, Limit, Operation, Page, SagaStatus, SagaView};

/// Lists the sagas of this domain, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListSagas {
    /// Only those with this status; default: those that have not ended.
    #[serde(default)]
    pub status: Option<SagaStatus>,
    /// How many rows, 1 to 100; default: 20.
    #[serde(default)]
    pub limit: Limit,
    /// The `next` of the page before.
    #[serde(default)]
    pub cursor: Option<Cursor>,
}

impl Operation for ListSagas {
    const NAME: &'static str = "project.list_sagas";
    const ACCESS: Access = Access::Administrator;
    const IDEMPOTENT: bool = true;
    type Reply = Page<SagaView>;
    type Error = ProjectError;
}

/// Lets a stuck saga go on from where it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RetrySaga {
    /// Which.
    pub saga_id: Uuid,
}

impl Operation for RetrySaga {
    const NAME: &'static str = "project.retry_saga";
    const ACCESS: Access = Access::Administrator;
    type Reply = SagaView;
    type Error = ProjectError;
}
