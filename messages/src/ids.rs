//! Identifiers: UUIDv7, one type per noun, so that one can't stand in for another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new, time-ordered identifier.
            #[expect(clippy::new_without_default, reason = "every call gives another value")]
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id!(
    /// A person.
    UserId
);
id!(
    /// A tenant.
    OrganizationId
);
id!(
    /// A sign-in of a person on a device.
    SessionId
);
id!(
    /// A program's key.
    ApiKeyId
);
id!(
    /// An app and its configuration.
    ProjectId
);
id!(
    /// One attempt to bring a source into service.
    DeploymentId
);
id!(
    /// An immutable build of a project with its configuration.
    ReleaseId
);
id!(
    /// One running copy of a process type.
    InstanceId
);
id!(
    /// One process of the cluster, by its data folder.
    NodeId
);
