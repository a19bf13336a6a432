//! Identifiers: UUIDv7, one type per noun, so that one can't stand in for another.
//!
//! Here are those that several domains know. A domain's own are made by `id!` beside its operations.

/// An identifier of its own type.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
            utoipa::ToSchema,
        )]
        #[serde(transparent)]
        #[cfg_attr(feature = "sql", derive(sqlx::Type), sqlx(transparent))]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// A new, time-ordered identifier.
            #[expect(clippy::new_without_default, reason = "every call gives another value")]
            #[must_use]
            pub fn new() -> Self {
                Self(uuid::Uuid::now_v7())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$name> for uuid::Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}
pub(crate) use id;

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
    /// One process of the cluster, by its data folder.
    NodeId
);
