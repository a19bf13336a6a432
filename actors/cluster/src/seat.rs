//! The seat: which of several processes with one node's id is the node.
//!
//! The id is kept in the data folder. When the folder is copied, two processes have one id; the first keeps it for as
//! long as it renews its row, also when it freezes for less than its lease. A process looks at the row before it does
//! anything in the node's name, and joins only over a row that it saw unchanged for the whole lease.

use std::time::{Duration, Instant};

use callboard_messages::NodeId;
use callboard_supervisors::db::{Databases, Error};
use uuid::Uuid;

use crate::{
    ClusterSettings, DOMAIN,
    rows::{self, NodeRow, Sign},
};

/// Interval of looking at the row.
const LOOK: Duration = Duration::from_millis(250);

/// The claim of a process to be its node.
#[derive(Debug, Clone, Copy)]
pub struct Seat {
    /// A random id of this process.
    pub process: Uuid,
    /// The last sign of life of the process that was the node before.
    pub(crate) last: Option<Sign>,
}

/// Why a process can't be its node.
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// Another live process is; the sentence says which.
    #[error("{0}")]
    Taken(String),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] Error),
}

impl Seat {
    /// A seat over no former process.
    #[must_use]
    pub fn new() -> Self {
        Self { process: Uuid::now_v7(), last: None }
    }

    /// Waits until it is certain that no other process is the node `id`. `earlier` is a process that is known to have
    /// ended.
    ///
    /// # Errors
    /// [`SeatError`].
    pub async fn take(
        databases: &Databases,
        id: NodeId,
        earlier: Option<Uuid>,
        settings: &ClusterSettings,
    ) -> Result<Self, SeatError> {
        let database = databases.open(DOMAIN).await?;
        let began = Instant::now();
        let mut first: Option<NodeRow> = None;
        loop {
            let row = rows::all(&database).await?.into_iter().find(|row| row.id() == id);
            let Some(row) = row.filter(|row| !row.is_gone()) else { return Ok(Self::new()) };
            let seat = Self { last: Some(row.sign()), ..Self::new() };
            if earlier.is_some() && row.process == earlier {
                return Ok(seat);
            }
            let seen = first.get_or_insert_with(|| row.clone());
            if seen.sign() != row.sign() {
                return Err(SeatError::Taken(taken(id, &row)));
            }
            if began.elapsed() >= settings.gone_after {
                return Ok(seat);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Default for Seat {
    fn default() -> Self {
        Self::new()
    }
}

/// The message to a process that must end for another.
pub(crate) fn taken(id: NodeId, by: &NodeRow) -> String {
    format!("the id {id} of this node is in use by another process, {}", by.described())
}

/// Descriptions of other live nodes, found by watching their rows for the time of a lease. Nodes that have left are
/// known at once.
///
/// # Errors
/// When the database fails.
pub async fn living(databases: &Databases, me: NodeId, settings: &ClusterSettings) -> Result<Vec<String>, Error> {
    let database = databases.open(DOMAIN).await?;
    let began = Instant::now();
    let others = async || -> Result<Vec<NodeRow>, Error> {
        let rows = rows::all(&database).await?;
        Ok(rows.into_iter().filter(|row| row.id() != me && !row.is_gone()).collect())
    };
    let first = others().await?;
    loop {
        let now = others().await?;
        let renewed = |row: &&NodeRow| first.iter().any(|seen| seen.id() == row.id() && seen.sign() != row.sign());
        let joined = |row: &&NodeRow| first.iter().all(|seen| seen.id() != row.id());
        let living: Vec<_> = now.iter().filter(|row| renewed(row) || joined(row)).map(NodeRow::described).collect();
        if !living.is_empty() || now.is_empty() || began.elapsed() >= settings.gone_after {
            return Ok(living);
        }
        tokio::time::sleep(LOOK).await;
    }
}
