//! The rows of nodes.

use callboard_messages::{NodeId, cluster::NodeState};
use callboard_platform::cluster::Member;
use callboard_supervisors::db::{Database, Error};
use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use crate::seat::Seat;

/// Rows read at once: far above what a cluster has.
const LIMIT: i64 = 1_000;

/// A node's row.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct NodeRow {
    #[sqlx(flatten)]
    pub(crate) member: Member,
    pub(crate) beat: i64,
    /// `None` for a node of an earlier version.
    pub(crate) process: Option<Uuid>,
}

impl NodeRow {
    pub(crate) const fn id(&self) -> NodeId {
        self.member.id
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.member.state == NodeState::Gone
    }

    /// Its sign of life.
    pub(crate) const fn sign(&self) -> Sign {
        Sign { incarnation: self.member.incarnation, beat: self.beat }
    }

    /// A description by which people find it.
    pub(crate) fn described(&self) -> String {
        format!("node {} at {}", self.member.name, self.member.address)
    }
}

/// A sign of life: each renewal of a node has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sign {
    incarnation: i64,
    beat: i64,
}

/// All rows; gone nodes come last.
pub(crate) async fn all(database: &Database) -> Result<Vec<NodeRow>, Error> {
    database
        .query(
            "SELECT id, name, address, domains, version, state, beat, incarnation, process, joined_at
             FROM nodes ORDER BY CASE state WHEN 'gone' THEN 1 ELSE 0 END, name, id LIMIT $1",
        )
        .bind(LIMIT)
        .fetch_all()
        .await
}

/// Joins under an incarnation above every earlier one, which is returned. `None` when another process has the id: its
/// row is neither gone, nor of this process, nor unchanged since `last`.
pub(crate) async fn join(
    database: &Database,
    me: &Member,
    Seat { process, last }: Seat,
    state: NodeState,
    now: DateTime<Utc>,
) -> Result<Option<i64>, Error> {
    let last = last.unwrap_or(Sign { incarnation: -1, beat: -1 });
    let joined: Option<(i64,)> = database
        .query(
            "INSERT INTO nodes (id, name, address, domains, version, state, beat, incarnation, process, joined_at, changed_at)
             VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $9, $8, $8)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, address = excluded.address,
                domains = excluded.domains, version = excluded.version, state = excluded.state,
                beat = nodes.beat + 1,
                incarnation = CASE WHEN nodes.incarnation >= excluded.incarnation
                                   THEN nodes.incarnation + 1 ELSE excluded.incarnation END,
                process = excluded.process, joined_at = excluded.joined_at, changed_at = excluded.changed_at
             WHERE nodes.state = 'gone' OR nodes.process = excluded.process
                OR (nodes.incarnation = $10 AND nodes.beat = $11)
             RETURNING incarnation",
        )
        .bind(me.id)
        .bind(me.name.clone())
        .bind(me.address.clone())
        .bind(Json(me.domains.clone()))
        .bind(me.version.clone())
        .bind(state.as_str())
        .bind(me.incarnation + 1)
        .bind(now)
        .bind(process)
        .bind(last.incarnation)
        .bind(last.beat)
        .fetch_optional()
        .await?;
    Ok(joined.map(|(incarnation,)| incarnation))
}

/// Renews a node's row; false when it was fenced.
pub(crate) async fn renew(
    database: &Database,
    id: NodeId,
    incarnation: i64,
    state: NodeState,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let renewed = database
        .query(
            "UPDATE nodes SET beat = beat + 1, state = $3,
                changed_at = CASE WHEN state = $3 THEN changed_at ELSE $4 END
             WHERE id = $1 AND incarnation = $2 AND state <> 'gone'",
        )
        .bind(id)
        .bind(incarnation)
        .bind(state.as_str())
        .bind(now)
        .execute()
        .await?;
    Ok(renewed > 0)
}

/// Marks a node as left.
pub(crate) async fn leave(database: &Database, id: NodeId, incarnation: i64, now: DateTime<Utc>) -> Result<(), Error> {
    database
        .query("UPDATE nodes SET state = 'gone', changed_at = $3 WHERE id = $1 AND incarnation = $2")
        .bind(id)
        .bind(incarnation)
        .bind(now)
        .execute()
        .await
        .map(drop)
}

/// Declares a node gone that has not renewed since it was `seen`; false when it has, or another was faster.
pub(crate) async fn declare_gone(database: &Database, seen: &NodeRow, now: DateTime<Utc>) -> Result<bool, Error> {
    let changed = database
        .query(
            "UPDATE nodes SET state = 'gone', incarnation = incarnation + 1, changed_at = $4
             WHERE id = $1 AND incarnation = $2 AND beat = $3 AND state <> 'gone'",
        )
        .bind(seen.id())
        .bind(seen.member.incarnation)
        .bind(seen.beat)
        .bind(now)
        .execute()
        .await?;
    Ok(changed > 0)
}

/// Deletes the rows of nodes that have been gone since before `then`.
pub(crate) async fn forget(database: &Database, then: DateTime<Utc>) -> Result<u64, Error> {
    database.query("DELETE FROM nodes WHERE state = 'gone' AND changed_at < $1").bind(then).execute().await
}
