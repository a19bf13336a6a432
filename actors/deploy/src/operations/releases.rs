//! Releases: list them, bring one back.

use callboard_messages::{
    Caller, DeploymentId, Page,
    deploy::{DeployError, DeploymentKind, DeploymentStatus, ListReleases, Release, Rollback},
};
use callboard_supervisors::{Handle, Outcome};

use super::Deploys;
use crate::store::{deployments::NewDeployment, releases};

impl Handle<ListReleases> for Deploys {
    async fn handle(&self, caller: &Caller, message: ListReleases) -> Outcome<ListReleases> {
        let Some(app) = self.app(caller, message.project_id).await? else {
            return Ok(Page { items: Vec::new(), next: None });
        };
        let ListReleases { limit, cursor, .. } = message;
        let rows = releases::page(&self.context.database, app.project_id, cursor, limit).await?;
        let current = app.serving.map(|serving| serving.release_id);
        let views = rows.into_iter().map(|row| row.view(current)).collect();
        Ok(Page::of(views, limit, |release: &Release| release.id.0))
    }
}

impl Handle<Rollback> for Deploys {
    async fn handle(&self, caller: &Caller, message: Rollback) -> Outcome<Rollback> {
        let database = &self.context.database;
        let app = self.deployed(caller, message.project_id).await?;
        let serving = app.serving.ok_or(DeployError::NoRelease)?;
        let release = match message.version {
            Some(version) => releases::by_version(database, app.project_id, version)
                .await?
                .ok_or_else(|| DeployError::NotFound(format!("release v{version}")))?,
            None => {
                let current = releases::get(database, serving.release_id).await?.ok_or(DeployError::NoRelease)?;
                releases::served_before(database, app.project_id, current.id).await?.ok_or_else(|| {
                    DeployError::Invalid(format!(
                        "no other release than v{} has served and is still kept; deploy the source to bring back",
                        current.version
                    ))
                })?
            }
        };
        let version = release.version;
        if release.id == serving.release_id {
            return Err(DeployError::Invalid(format!("v{version} serves already; restart it, or name another")).into());
        }
        if !release.kept {
            return Err(
                DeployError::Invalid(format!("the archive of v{version} is no longer kept; deploy it again")).into()
            );
        }
        let new = NewDeployment {
            id: DeploymentId::new(),
            project_id: app.project_id,
            organization_id: app.organization_id,
            kind: DeploymentKind::Rollback,
            status: DeploymentStatus::Rolling,
            source: None,
            release_id: Some(release.id),
            environment_version: Some(release.environment_version),
            commit: release.commit,
            allow_missing: false,
            rebuild: false,
            config: None,
            created_at: self.context.clock.now(),
        };
        let deployment = self.begin::<Rollback>(caller, new, &app.name).await?;
        self.context.wake(app.project_id);
        Ok(deployment)
    }
}
