//! `organization`: tenants, their members, and what those may do.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Access, Cursor, DomainError, Limit, Operation, OrganizationId, Page, Scopes, UserId, code::codes, event::event,
};

/// What organization refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OrganizationError {
    /// Not there, or the caller is no member.
    #[error("there is no such organization")]
    NotFound,
    /// The slug is in use.
    #[error("the name {0} is taken; choose another")]
    NameTaken(String),
    /// A field breaks its rule.
    #[error("{0}")]
    Invalid(String),
    /// Only for owners.
    #[error("only an owner can delete the organization")]
    NotOwner,
    /// Somebody would be left without one.
    #[error(
        "this organization came with an account, or is the one that a member acts for unless told otherwise; it goes with \
         the account and can't be deleted by itself"
    )]
    Needed,
}

impl DomainError for OrganizationError {
    codes! {
        Self::NotFound => NotFound,
        Self::NameTaken(_) | Self::Needed => Conflict,
        Self::NotOwner => Forbidden,
        Self::Invalid(_) => Invalid,
    }
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Owner,
    /// Everything but giving the organization away or deleting it.
    Admin,
    /// Reads and changes everything but the organization itself and what concerns money.
    Developer,
    /// Reads.
    Viewer,
    /// Reads, and what concerns money.
    Billing,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Owner, Self::Admin, Self::Developer, Self::Viewer, Self::Billing];

    /// The permissions of the role, by verb: those of a new domain are among them. A verb other than `read` and `write`
    /// is for owners and admins unless it stands here. `docs/permissions.md` shows what comes of it.
    #[must_use]
    pub fn scopes(self) -> Scopes {
        match self {
            Self::Owner => Scopes::new(["*"]),
            Self::Admin => Scopes::new(["*", "-organization:delete", "-organization:transfer"]),
            Self::Developer => Scopes::new(["*:read", "*:write", "deploy:*", "-organization:write", "-billing:write"]),
            Self::Viewer => Scopes::new(["*:read"]),
            Self::Billing => Scopes::new(["*:read", "billing:*"]),
        }
    }

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Developer => "developer",
            Self::Viewer => "viewer",
            Self::Billing => "billing",
        }
    }
}

impl TryFrom<String> for Role {
    type Error = String;

    /// As [`Role::as_str`] writes it.
    fn try_from(text: String) -> Result<Self, String> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| format!("{text} is no role"))
    }
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[cfg_attr(feature = "sql", derive(sqlx::FromRow))]
pub struct Organization {
    /// The tenant.
    pub id: OrganizationId,
    /// A lower-case word for URLs, unique on the platform.
    #[schema(min_length = 2, max_length = 40, pattern = "^[a-z][a-z0-9-]*[a-z0-9]$")]
    pub name: String,
    /// As shown.
    #[schema(min_length = 1, max_length = 100)]
    pub display_name: String,
    /// The one that came with its owner's account.
    pub personal: bool,
    /// The caller's role in it.
    #[cfg_attr(feature = "sql", sqlx(try_from = "String"))]
    pub role: Role,
    /// UTC.
    pub created_at: DateTime<Utc>,
    /// Since when it is being deleted: nobody acts for it any more, and it is gone as soon as its projects are. UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleting_at: Option<DateTime<Utc>>,
}

/// Creates an organization that the caller owns.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateOrganization {
    /// 2 to 40 of `a-z`, `0-9` and `-`, beginning with a letter, not ending with `-`, and no reserved word.
    #[schema(min_length = 2, max_length = 40, pattern = "^[a-z][a-z0-9-]*[a-z0-9]$")]
    pub name: String,
    /// As shown, 1 to 100 characters; default: the name.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 100)]
    pub display_name: Option<String>,
}

impl Operation for CreateOrganization {
    const NAME: &'static str = "organization.create";
    const ACCESS: Access = Access::Personal("organization:write");
    const IDEMPOTENT: bool = true;
    type Reply = Organization;
    type Error = OrganizationError;
}

/// One organization of the caller's.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GetOrganization {
    /// Which.
    pub organization_id: OrganizationId,
}

impl Operation for GetOrganization {
    const NAME: &'static str = "organization.get";
    const ACCESS: Access = Access::Personal("organization:read");
    const IDEMPOTENT: bool = true;
    type Reply = Organization;
    type Error = OrganizationError;
}

/// The organizations the caller is a member of, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListOrganizations {
    /// How many rows, 1 to 100; default: 20.
    #[serde(default)]
    pub limit: Limit,
    /// The `next` of the page before.
    #[serde(default)]
    pub cursor: Option<Cursor>,
}

impl Operation for ListOrganizations {
    const NAME: &'static str = "organization.list";
    const ACCESS: Access = Access::Personal("organization:read");
    const IDEMPOTENT: bool = true;
    type Reply = Page<Organization>;
    type Error = OrganizationError;
}

/// Deletes an organization with its projects and API keys. From now on nobody acts for it. What takes longer than a caller
/// waits is accepted, can't be taken back and goes on: until it ends the organization can be read, with the time at which its
/// deletion began, and then it is not found any more. Refused for one that came with an account.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeleteOrganization {
    /// Which.
    pub organization_id: OrganizationId,
}

impl Operation for DeleteOrganization {
    const NAME: &'static str = "organization.delete";
    const ACCESS: Access = Access::Personal("organization:delete");
    const IDEMPOTENT: bool = true;
    const TIMEOUT: Duration = Duration::from_secs(30);
    /// Nothing when it is gone; the organization when that is under way.
    type Reply = Option<Organization>;
    type Error = OrganizationError;
}

/// The personal organization of an account, made when there is none yet. Asked by auth at registration and sign-in, so
/// that a crash between the two leaves nobody without one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnsurePersonal {
    /// Whose.
    pub user_id: UserId,
    /// What its name derives from.
    pub account_name: String,
    /// Instead of getting an organization of its own, the person joins this one as an owner and acts for it by
    /// default: so the platform's first administrator shares what the local operator deployed, and the other way
    /// round. Without effect once the person has a default organization.
    #[serde(default)]
    pub organization_id: Option<OrganizationId>,
}

impl Operation for EnsurePersonal {
    const NAME: &'static str = "organization.ensure_personal";
    const ACCESS: Access = Access::Internal;
    const IDEMPOTENT: bool = true;
    type Reply = Organization;
    type Error = OrganizationError;
}

/// What a person may do in an organization: the permission check behind every operation. A person who is no member
/// gets `NotFound`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetPermissions {
    /// Who.
    pub user_id: UserId,
    /// Where; default: the person's default organization.
    pub organization_id: Option<OrganizationId>,
}

impl Operation for GetPermissions {
    const NAME: &'static str = "organization.get_permissions";
    const ACCESS: Access = Access::Internal;
    const IDEMPOTENT: bool = true;
    type Reply = Permissions;
    type Error = OrganizationError;
}

/// A membership and what it allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// Where.
    pub organization_id: OrganizationId,
    /// As what.
    pub role: Role,
    /// The role's permissions.
    pub scopes: Scopes,
}

/// There is a new tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationCreated {
    /// Which.
    pub organization_id: OrganizationId,
    /// Its name in URLs.
    pub name: String,
    /// As shown.
    pub display_name: String,
    /// Whether it came with its owner's account.
    pub personal: bool,
    /// Who owns it.
    pub owner: UserId,
}

event!(OrganizationCreated = "organization.created", about organization_id, of organization_id);

/// Nobody acts for it any more; it is gone when its projects are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationClosed {
    /// Which.
    pub organization_id: OrganizationId,
    /// Who could act for it.
    pub members: Vec<UserId>,
}

event!(OrganizationClosed = "organization.closed", about organization_id, of organization_id);

/// It is gone; what belonged to it elsewhere has to go as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationDeleted {
    /// Which.
    pub organization_id: OrganizationId,
    /// Its name in URLs, which is free again.
    pub name: String,
    /// Who could act for it.
    pub members: Vec<UserId>,
}

event!(OrganizationDeleted = "organization.deleted", about organization_id, of organization_id);
