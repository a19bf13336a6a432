//! The table `apps`: what a project runs, and its desired state.

use callboard_messages::{Cursor, DeploymentId, Limit, OrganizationId, ProjectId, ReleaseId, deploy::Formation};
use callboard_supervisors::db::{Database, Error, Transaction};
use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use crate::apps::formation::{Counts, DesiredFormation};

/// The desired state of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppState {
    Running,
    /// No instances; the formation is kept for the next start.
    Stopped,
    /// On its way out: everything ends, nothing begins.
    Removed,
}

impl AppState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Removed => "removed",
        }
    }

    fn of(text: &str) -> Self {
        match text {
            "running" => Self::Running,
            "stopped" => Self::Stopped,
            _ => Self::Removed,
        }
    }
}

/// A row of `apps`.
#[derive(Debug, Clone)]
pub(crate) struct AppRow {
    pub(crate) project_id: ProjectId,
    pub(crate) organization_id: OrganizationId,
    pub(crate) name: String,
    /// The release in service.
    pub(crate) serving: Option<Serving>,
    pub(crate) desired: DesiredFormation,
    pub(crate) state: AppState,
    /// Grows with every change of the desired state and of the release in service.
    pub(crate) revision: i64,
    pub(crate) owner_node: Option<Uuid>,
    /// The fencing token: grows with every change of owner.
    pub(crate) owner_token: i64,
    /// The owner drains; the standby may take over.
    pub(crate) offered: bool,
    /// The column `heir_node`: the node that prepares to take over.
    pub(crate) standby_node: Option<Uuid>,
}

/// A release in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Serving {
    pub(crate) release_id: ReleaseId,
    pub(crate) environment_version: i64,
    /// The deployment that brought it into service: instances of another one are outdated.
    pub(crate) deployment_id: DeploymentId,
}

impl AppRow {
    /// Whether it is on its way out.
    pub(crate) fn is_removed(&self) -> bool {
        self.state == AppState::Removed
    }

    /// Whether a node has something to do for it besides a deployment that rolls.
    pub(crate) fn is_wanted(&self) -> bool {
        let runs = |counts: &Counts| counts.values().any(|count| *count > 0);
        match self.state {
            AppState::Removed => true,
            AppState::Stopped => false,
            AppState::Running => self.serving.is_some() && self.desired.counts.as_ref().is_some_and(runs),
        }
    }

    /// The desired formation as clients see it: all zero while the app is stopped.
    pub(crate) fn shown_formation(&self) -> Formation {
        let DesiredFormation { counts, missing } = self.desired.clone();
        let mut processes = counts.unwrap_or_default();
        if self.state != AppState::Running {
            processes.values_mut().for_each(|count| *count = 0);
        }
        Formation { processes, missing }
    }
}

type StoredCounts = Option<Json<Counts>>;

/// As the columns `formation` and `missing` have them.
fn desired(formation: StoredCounts, missing: StoredCounts) -> DesiredFormation {
    DesiredFormation {
        counts: formation.map(|Json(counts)| counts),
        missing: missing.map(|Json(counts)| counts).unwrap_or_default(),
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    project_id: ProjectId,
    organization_id: OrganizationId,
    name: String,
    release_id: Option<ReleaseId>,
    environment_version: i64,
    deployment_id: Option<DeploymentId>,
    formation: StoredCounts,
    missing: StoredCounts,
    state: String,
    revision: i64,
    owner_node: Option<Uuid>,
    owner_token: i64,
    offered: bool,
    heir_node: Option<Uuid>,
}

impl From<Row> for AppRow {
    fn from(row: Row) -> Self {
        Self {
            project_id: row.project_id,
            organization_id: row.organization_id,
            name: row.name,
            serving: row.release_id.zip(row.deployment_id).map(|(release_id, deployment_id)| Serving {
                release_id,
                environment_version: row.environment_version,
                deployment_id,
            }),
            desired: desired(row.formation, row.missing),
            state: AppState::of(&row.state),
            revision: row.revision,
            owner_node: row.owner_node,
            owner_token: row.owner_token,
            offered: row.offered,
            standby_node: row.heir_node,
        }
    }
}

/// Every reader's columns.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT project_id, organization_id, name, release_id, environment_version, deployment_id, formation, ",
            "missing, state, revision, owner_node, owner_token, offered, heir_node FROM apps ",
            $rest
        )
    };
}

/// The app of a project of any tenant.
pub(crate) async fn get(database: &Database, project_id: ProjectId) -> Result<Option<AppRow>, Error> {
    let row: Option<Row> = database.query(select!("WHERE project_id = $1")).bind(project_id).fetch_optional().await?;
    Ok(row.map(AppRow::from))
}

/// The app of a tenant's project.
pub(crate) async fn owned(
    database: &Database,
    project_id: ProjectId,
    organization_id: OrganizationId,
) -> Result<Option<AppRow>, Error> {
    let row: Option<Row> = database
        .query(select!("WHERE project_id = $1 AND organization_id = $2 AND state <> 'removed'"))
        .bind(project_id)
        .bind(organization_id)
        .fetch_optional()
        .await?;
    Ok(row.map(AppRow::from))
}

/// A page of a tenant's apps, the newest project first.
pub(crate) async fn owned_page(
    database: &Database,
    organization_id: OrganizationId,
    cursor: Option<Cursor>,
    limit: Limit,
) -> Result<Vec<AppRow>, Error> {
    let rows: Vec<Row> = database
        .query(select!(
            "WHERE organization_id = $1 AND project_id < $2 AND state <> 'removed' ORDER BY project_id DESC LIMIT $3"
        ))
        .bind(organization_id)
        .bind(Cursor::below(cursor))
        .bind(limit.rows())
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(AppRow::from).collect())
}

/// All apps that are not on their way out, by name, with whether a deployment of theirs runs.
pub(crate) async fn all(database: &Database) -> Result<Vec<(AppRow, bool)>, Error> {
    let rows: Vec<Row> = database.query(select!("WHERE state <> 'removed' ORDER BY name")).fetch_all().await?;
    let deploying: Vec<(ProjectId,)> = database
        .query("SELECT project_id FROM deployments WHERE status IN ('queued', 'building', 'rolling')")
        .fetch_all()
        .await?;
    let deploying: std::collections::HashSet<ProjectId> = deploying.into_iter().map(|(id,)| id).collect();
    Ok(rows
        .into_iter()
        .map(|row| (deploying.contains(&row.project_id), row))
        .map(|(is, row)| (row.into(), is))
        .collect())
}

/// A page of all apps, by project.
pub(crate) async fn page(database: &Database, after: ProjectId, limit: u32) -> Result<Vec<AppRow>, Error> {
    let rows: Vec<Row> = database
        .query(select!("WHERE project_id > $1 ORDER BY project_id LIMIT $2"))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(AppRow::from).collect())
}

/// What became of the row of an app that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ensured {
    /// It was made.
    Made,
    /// It was there.
    There,
    /// The app is gone for good, and stays so.
    Gone,
}

/// Makes the row of a project's app, unless there is one or was one.
pub(crate) async fn ensure(
    transaction: &mut Transaction,
    project_id: ProjectId,
    organization_id: OrganizationId,
    name: &str,
    now: DateTime<Utc>,
) -> Result<Ensured, Error> {
    let made = transaction
        .query(
            "INSERT INTO apps (project_id, organization_id, name, environment_version, state, revision, created_at,
                               updated_at)
             SELECT $1, $2, $3, 0, 'running', 1, $4, $4
             WHERE NOT EXISTS (SELECT 1 FROM removed_apps WHERE project_id = $1)
             ON CONFLICT (project_id) DO NOTHING",
        )
        .bind(project_id)
        .bind(organization_id)
        .bind(name.to_owned())
        .bind(now)
        .execute()
        .await?;
    if made > 0 {
        return Ok(Ensured::Made);
    }
    let removed: Option<(ProjectId,)> = transaction
        .query("SELECT project_id FROM removed_apps WHERE project_id = $1")
        .bind(project_id)
        .fetch_optional()
        .await?;
    Ok(if removed.is_some() { Ensured::Gone } else { Ensured::There })
}

/// Holds the app's row for the rest of the transaction; answers the release that serves.
pub(crate) async fn hold(transaction: &mut Transaction, project_id: ProjectId) -> Result<Option<ReleaseId>, Error> {
    let row: Option<(Option<ReleaseId>,)> = transaction
        .query("UPDATE apps SET revision = revision WHERE project_id = $1 RETURNING release_id")
        .bind(project_id)
        .fetch_optional()
        .await?;
    Ok(row.and_then(|(release_id,)| release_id))
}

/// Sets the desired state, if the row is still as the caller read it.
pub(crate) async fn set_desired(
    database: &Database,
    read: &AppRow,
    desired: Option<DesiredFormation>,
    state: AppState,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let (counts, missing) = desired.map(|desired| (desired.counts, desired.missing)).unzip();
    let changed = database
        .query(
            "UPDATE apps SET formation = COALESCE($3, formation), missing = COALESCE($6, missing), state = $4,
                             revision = revision + 1, updated_at = $5
             WHERE project_id = $1 AND revision = $2",
        )
        .bind(read.project_id)
        .bind(read.revision)
        .bind(counts.flatten().map(Json))
        .bind(state.as_str())
        .bind(now)
        .bind(missing.map(Json))
        .execute()
        .await?;
    Ok(changed > 0)
}

/// Marks the app as on its way out, for good; one that is not there can't come any more.
pub(crate) async fn condemn(
    transaction: &mut Transaction,
    project_id: ProjectId,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    transaction
        .query("INSERT INTO removed_apps (project_id, removed_at) VALUES ($1, $2) ON CONFLICT (project_id) DO NOTHING")
        .bind(project_id)
        .bind(now)
        .execute()
        .await?;
    transaction
        .query(
            "UPDATE apps SET state = 'removed', revision = revision + 1, updated_at = $2
             WHERE project_id = $1 AND state <> 'removed'",
        )
        .bind(project_id)
        .bind(now)
        .execute()
        .await?;
    Ok(())
}

/// Brings a release into service. `desired_of` makes the new desired formation of the current one, which is kept
/// with the former release. False when the app is on its way out.
pub(crate) async fn serve(
    transaction: &mut Transaction,
    project_id: ProjectId,
    serving: Serving,
    desired_of: impl FnOnce(&DesiredFormation) -> DesiredFormation,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    // The row stays locked from here on, so no scale is lost.
    let before: Option<(Option<ReleaseId>, StoredCounts, StoredCounts)> = transaction
        .query(
            "UPDATE apps SET state = 'running', revision = revision + 1, updated_at = $2
             WHERE project_id = $1 AND state <> 'removed' RETURNING release_id, formation, missing",
        )
        .bind(project_id)
        .bind(now)
        .fetch_optional()
        .await?;
    let Some((served, formation, missing)) = before else { return Ok(false) };
    let before = desired(formation, missing);
    if let Some(release_id) = served.filter(|served| *served != serving.release_id) {
        transaction
            .query("UPDATE releases SET formation = $2 WHERE id = $1")
            .bind(release_id)
            .bind(before.counts.clone().map(Json))
            .execute()
            .await?;
    }
    let DesiredFormation { counts, missing } = desired_of(&before);
    transaction
        .query(
            "UPDATE apps SET release_id = $2, environment_version = $3, deployment_id = $4, formation = $5, missing = $6
             WHERE project_id = $1",
        )
        .bind(project_id)
        .bind(serving.release_id)
        .bind(serving.environment_version)
        .bind(serving.deployment_id)
        .bind(counts.map(Json))
        .bind(Json(missing))
        .execute()
        .await?;
    Ok(true)
}

/// Removes every row of a project.
pub(crate) async fn erase(transaction: &mut Transaction, project_id: ProjectId) -> Result<(), Error> {
    for statement in [
        "DELETE FROM deployments WHERE project_id = $1",
        "DELETE FROM releases WHERE project_id = $1",
        "DELETE FROM sources WHERE project_id = $1",
        "DELETE FROM apps WHERE project_id = $1",
    ] {
        transaction.query(statement).bind(project_id).execute().await?;
    }
    Ok(())
}
