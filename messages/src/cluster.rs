//! `cluster`: the nodes, how they are, the events that nobody could apply, and the sagas of all domains.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    Access, Cursor, DomainError, Limit, NodeId, Operation, Page, SagaStatus, SagaView, code::codes, shapes::DomainName,
};

/// What cluster refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClusterError {
    /// Not there, or gone.
    #[error("there is no such {0}")]
    NotFound(String),
    /// A field breaks its rule.
    #[error("{0}")]
    Invalid(String),
    /// The domain is not in the state that this would change.
    #[error("{0}")]
    NotNow(String),
    /// The subscriber failed again; the dead letter was kept.
    #[error("the event could not be applied, so the dead letter was kept: {0}")]
    ReplayFailed(String),
    /// Only a stuck saga can be retried.
    #[error("the saga is {}; only a stuck one can be retried", .0.as_str())]
    NotStuck(SagaStatus),
    /// A domain does not answer for its sagas, so that those of the others would not be all there are.
    #[error("{domain} does not answer for its sagas: {reason}")]
    SagasAway {
        /// Which.
        domain: String,
        /// What the call met.
        reason: String,
        /// When it is likely to answer.
        retry_after: Option<Duration>,
    },
}

impl DomainError for ClusterError {
    codes! {
        Self::NotFound(_) => NotFound,
        Self::Invalid(_) => Invalid,
        Self::NotNow(_) | Self::ReplayFailed(_) | Self::NotStuck(_) => Conflict,
        Self::SagasAway { .. } => Unavailable,
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::SagasAway { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Whether a node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It renews its row, and takes on work.
    Up,
    /// It finishes or hands over what it has, and takes on nothing new.
    Draining,
    /// It has stopped, or was declared gone by a node that saw no sign of it.
    Gone,
}

impl NodeState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Up, Self::Draining, Self::Gone];

    /// As stored, and as the label of a metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

impl TryFrom<String> for NodeState {
    type Error = String;

    /// As [`NodeState::as_str`] writes it.
    fn try_from(text: String) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("{text} is no state of a node"))
    }
}

/// One process of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[cfg_attr(feature = "sql", derive(sqlx::FromRow))]
pub struct Node {
    /// Stays with its data folder.
    pub id: NodeId,
    /// What people call it.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// Where other nodes reach its listener: `http://host:port`.
    #[schema(format = "uri", max_length = 2_048)]
    pub address: String,
    /// The domains it hosts.
    #[schema(value_type = Vec<DomainName>, max_items = 100)]
    #[cfg_attr(feature = "sql", sqlx(json))]
    pub domains: Vec<String>,
    /// Of its program.
    #[schema(max_length = 64)]
    pub version: String,
    /// Whether it takes part.
    #[cfg_attr(feature = "sql", sqlx(try_from = "String"))]
    pub state: NodeState,
    /// Grows each time the node joins.
    #[schema(minimum = 1)]
    pub incarnation: i64,
    /// UTC, by the node's own clock.
    pub joined_at: DateTime<Utc>,
}

/// Whether a domain may take traffic on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainHealth {
    /// The domain.
    #[schema(value_type = DomainName)]
    pub domain: String,
    /// Whether it may.
    pub ready: bool,
    /// If not, why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(max_length = 16_384)]
    pub reason: Option<String>,
}

/// How a node is, told by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeHealth {
    /// The node.
    pub id: NodeId,
    /// Each domain, also those that it reaches on other nodes.
    #[schema(max_items = 100)]
    pub domains: Vec<DomainHealth>,
    /// Its actor tree, as at `/api/v1/actors`.
    pub tree: Value,
    /// The disk below its data folder; older nodes do not tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disk: Option<DiskHealth>,
}

/// The disk that a node keeps its data on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskHealth {
    /// Whether it is full: the node takes no builds, and refuses what would write there.
    pub full: bool,
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A node, and how it says it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeReport {
    /// What the cluster knows of it.
    #[serde(flatten)]
    pub node: Node,
    /// What it says itself; absent when it is gone or does not answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub health: Option<NodeHealth>,
    /// Why it does not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(max_length = 16_384)]
    pub trouble: Option<String>,
}

/// The nodes: those that take part, and those that are gone and not yet forgotten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    /// The node that answers.
    pub answered_by: NodeId,
    /// By name.
    #[schema(max_items = 1_000)]
    pub nodes: Vec<NodeReport>,
}

/// Asks every node how it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GetCluster {}

impl Operation for GetCluster {
    const NAME: &'static str = "cluster.get";
    const ACCESS: Access = Access::Administrator;
    const IDEMPOTENT: bool = true;
    const TIMEOUT: Duration = Duration::from_secs(5);
    type Reply = ClusterView;
    type Error = ClusterError;
}

/// Asks a node how it is; any node passes the question on to it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GetNodeHealth {
    /// Which.
    pub node_id: NodeId,
}

impl Operation for GetNodeHealth {
    const NAME: &'static str = "cluster.get_node_health";
    const ACCESS: Access = Access::Administrator;
    const IDEMPOTENT: bool = true;
    const TIMEOUT: Duration = Duration::from_secs(3);
    type Reply = NodeHealth;
    type Error = ClusterError;
}

/// Gives a domain of a node that was given up after too many restarts another chance.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReviveDomain {
    /// On which node.
    pub node_id: NodeId,
    /// Which domain.
    #[schema(value_type = DomainName)]
    pub domain: String,
}

impl Operation for ReviveDomain {
    const NAME: &'static str = "cluster.revive_domain";
    const ACCESS: Access = Access::Administrator;
    const TIMEOUT: Duration = Duration::from_secs(5);
    type Reply = ();
    type Error = ClusterError;
}

/// How an operator holds a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerHold {
    /// Every call is refused.
    Open,
    /// Every call passes.
    Closed,
    /// The breaker judges by itself again.
    Released,
}

/// Holds the breakers of a domain on a node open or closed, or lets them judge again.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HoldBreaker {
    /// On which node.
    pub node_id: NodeId,
    /// Of which domain.
    #[schema(value_type = DomainName)]
    pub domain: String,
    /// How.
    pub hold: BreakerHold,
}

impl Operation for HoldBreaker {
    const NAME: &'static str = "cluster.hold_breaker";
    const ACCESS: Access = Access::Administrator;
    const IDEMPOTENT: bool = true;
    const TIMEOUT: Duration = Duration::from_secs(5);
    type Reply = ();
    type Error = ClusterError;
}

/// An event that a subscriber could not apply, however often it was delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[cfg_attr(feature = "sql", derive(sqlx::FromRow))]
pub struct DeadLetter {
    /// The dead letter's own id.
    pub id: Uuid,
    /// The domain that could not apply it.
    #[schema(max_length = 64)]
    pub domain: String,
    /// The event as it was delivered (CloudEvents 1.0), or the text of what was no event.
    #[cfg_attr(feature = "sql", sqlx(json))]
    pub event: Value,
    /// What the last attempt said.
    #[schema(max_length = 4_000)]
    pub error: String,
    /// How often it was delivered.
    #[cfg_attr(feature = "sql", sqlx(try_from = "i64"))]
    pub attempts: u32,
    /// UTC.
    pub died_at: DateTime<Utc>,
}

/// Keeps a dead letter. Told again with the same id it is the same letter; it is listed under an id of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bury {
    /// What to keep.
    pub letter: DeadLetter,
}

impl Operation for Bury {
    const NAME: &'static str = "cluster.bury";
    const ACCESS: Access = Access::Internal;
    const IDEMPOTENT: bool = true;
    type Reply = ();
    type Error = ClusterError;
}

/// Lists the dead letters, newest first. Of an event that is long only the id and the type are listed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListDeadLetters {
    /// Only those of this subscriber.
    #[serde(default)]
    #[schema(value_type = Option<DomainName>)]
    pub domain: Option<String>,
    /// How many rows, 1 to 100; default: 20.
    #[serde(default)]
    pub limit: Limit,
    /// The `next` of the page before.
    #[serde(default)]
    pub cursor: Option<Cursor>,
}

impl Operation for ListDeadLetters {
    const NAME: &'static str = "cluster.list_dead_letters";
    const ACCESS: Access = Access::Administrator;
    const IDEMPOTENT: bool = true;
    type Reply = Page<DeadLetter>;
    type Error = ClusterError;
}

/// Reads one dead letter.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GetDeadLetter {
    /// Which.
    pub dead_letter_id: Uuid,
}

impl Operation for GetDeadLetter {
    const NAME: &'static str = "cluster.get_dead_letter";
    const ACCESS: Access = Access::Administrator;
    const IDEMPOTENT: bool = true;
    type Reply = DeadLetter;
    type Error = ClusterError;
}

/// Delivers the event again, to the subscriber that could not apply it, and drops the dead letter. If the subscriber
/// fails again, it comes back as a new one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReplayDeadLetter {
    /// Which.
    pub dead_letter_id: Uuid,
}

impl Operation for ReplayDeadLetter {
    const NAME: &'static str = "cluster.replay_dead_letter";
    const ACCESS: Access = Access::Administrator;
    /// The subscriber tries a few times.
    const TIMEOUT: Duration = Duration::from_secs(60);
    type Reply = ();
    type Error = ClusterError;
}

/// Forgets a dead letter: its event will never be applied by that subscriber.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DropDeadLetter {
    /// Which.
    pub dead_letter_id: Uuid,
}

impl Operation for DropDeadLetter {
    const NAME: &'static str = "cluster.drop_dead_letter";
    const ACCESS: Access = Access::Administrator;
    const IDEMPOTENT: bool = true;
    type Reply = ();
    type Error = ClusterError;
}

/// Lists the sagas of every domain, newest first: what takes several steps, in several domains. When a domain does not
/// answer, the list is refused rather than told without it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct ListSagas {
    /// Only those of this domain.
    #[serde(default)]
    #[schema(value_type = Option<DomainName>)]
    pub domain: Option<String>,
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
    const NAME: &'static str = "cluster.list_sagas";
    const ACCESS: Access = Access::Administrator;
    const IDEMPOTENT: bool = true;
    type Reply = Page<SagaView>;
    type Error = ClusterError;
}

/// Lets a stuck saga go on from where it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RetrySaga {
    /// Which.
    pub saga_id: Uuid,
}

impl Operation for RetrySaga {
    const NAME: &'static str = "cluster.retry_saga";
    const ACCESS: Access = Access::Administrator;
    type Reply = SagaView;
    type Error = ClusterError;
}
