//! What a deployment is made from.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::DeployError;
use crate::{Access, Operation, ProjectId};

/// An uploaded archive that deployments can be made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Source {
    /// The upload.
    pub id: Uuid,
    /// Bytes.
    #[schema(minimum = 1)]
    pub size: u64,
    /// Of the archive, in hex.
    #[schema(min_length = 64, max_length = 64, pattern = "^[0-9a-f]+$")]
    pub sha256: String,
}

/// Where the source of a deployment is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentSource {
    /// An uploaded archive, tar.gz or zip.
    Archive {
        /// The id of the [`Source`].
        source_id: Uuid,
    },
    /// A git repository.
    Git {
        /// `https://…`.
        #[schema(format = "uri", min_length = 1, max_length = 2_048)]
        url: String,
        /// A branch or tag; default: the default branch.
        #[serde(default)]
        #[schema(min_length = 1, max_length = 255)]
        reference: Option<String>,
    },
}

/// Records an archive that the gateway has streamed into the object store; asked by the gateway after the upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisterSource {
    /// Whose.
    pub project_id: ProjectId,
    /// With the id under which it is stored: `sources/<id>`.
    pub source: Source,
}

impl Operation for RegisterSource {
    const NAME: &'static str = "deploy.register_source";
    const ACCESS: Access = Access::Permission("deploy:create");
    const IDEMPOTENT: bool = true;
    type Reply = Source;
    type Error = DeployError;
}
