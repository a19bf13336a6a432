//! Deployments: create, read, cancel.

use callboard_messages::{
    CallError, Caller, DeploymentId, Page,
    deploy::{
        CancelDeployment, CreateDeployment, DeployError, Deployment, DeploymentKind, DeploymentSource,
        DeploymentStatus, GetDeployment, ListDeployments,
    },
};
use callboard_supervisors::{Handle, Outcome, warn_unless_outage};
use url::Url;

use super::{Deploys, Refusable, no_project};
use crate::store::{
    apps,
    deployments::{self, DeploymentRow, NewDeployment},
    sources,
    steps::{self, Author},
};

const URL_MAXIMUM: usize = 2_048;
const REFERENCE_MAXIMUM: usize = 255;

impl Handle<CreateDeployment> for Deploys {
    async fn handle(&self, caller: &Caller, message: CreateDeployment) -> Outcome<CreateDeployment> {
        let project = self.open_project(caller, message.project_id).await?;
        match &message.source {
            DeploymentSource::Archive { source_id } => {
                if !sources::exists(&self.context.database, project.id, *source_id).await? {
                    return Err(DeployError::NotFound("uploaded source".to_owned()).into());
                }
            }
            DeploymentSource::Git { url, reference } => check_git(url, reference.as_deref())?,
        }
        if let Some(config) = &message.config {
            config.check().map_err(DeployError::Invalid)?;
        }
        let before = apps::get(&self.context.database, project.id).await?;
        if before.as_ref().is_some_and(apps::AppRow::is_removed) {
            return Err(no_project());
        }
        let new = NewDeployment {
            id: DeploymentId::new(),
            project_id: project.id,
            organization_id: project.organization_id,
            kind: DeploymentKind::Deploy,
            status: DeploymentStatus::Queued,
            source: Some(message.source),
            release_id: None,
            environment_version: None,
            commit: None,
            allow_missing: message.allow_missing,
            rebuild: message.rebuild,
            config: message.config,
            created_at: self.context.clock.now(),
        };
        let deployment = self.begin::<CreateDeployment>(caller, new, &project.name).await?;
        self.refresh_route(project.id).await;
        self.tell_if_it_waits(deployment.id, project.organization_id).await;
        self.context.wake_builders();
        Ok(deployment)
    }
}

/// What can be said of a git address without looking anything up; the fetch says the rest.
fn check_git(url: &str, reference: Option<&str>) -> Result<(), DeployError> {
    let refuse = |reason: &str| Err(DeployError::Invalid(format!("the git address {reason}")));
    if url.len() > URL_MAXIMUM {
        return refuse("is too long");
    }
    let Ok(parsed) = Url::parse(url) else {
        return refuse("is no URL; give one that begins with https://");
    };
    if !matches!(parsed.scheme(), "https" | "http") {
        return refuse("must begin with https://");
    }
    // It would be stored, and shown to everyone who may read the deployment.
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return refuse("must not hold a user name or password");
    }
    if reference.is_some_and(|reference| reference.is_empty() || reference.len() > REFERENCE_MAXIMUM) {
        return Err(DeployError::Invalid("the reference is the name of a branch or tag, or a commit".to_owned()));
    }
    Ok(())
}

impl Deploys {
    pub(super) async fn deployment(&self, caller: &Caller, id: DeploymentId) -> Refusable<DeploymentRow> {
        let found = deployments::owned(&self.context.database, id, caller.tenant()?).await?;
        found.ok_or_else(|| DeployError::NotFound("deployment".to_owned()).into())
    }
}

impl Handle<GetDeployment> for Deploys {
    async fn handle(&self, caller: &Caller, message: GetDeployment) -> Outcome<GetDeployment> {
        let row = self.deployment(caller, message.deployment_id).await?;
        let url = self.context.settings.url(&row.name);
        Ok(row.view(url))
    }
}

impl Handle<ListDeployments> for Deploys {
    async fn handle(&self, caller: &Caller, message: ListDeployments) -> Outcome<ListDeployments> {
        let Some(app) = self.app(caller, message.project_id).await? else {
            return Ok(Page { items: Vec::new(), next: None });
        };
        let ListDeployments { limit, cursor, .. } = message;
        let rows = deployments::page(&self.context.database, app.project_id, cursor, limit).await?;
        let url = self.context.settings.url(&app.name);
        let views = rows.into_iter().map(|row| row.view(url.clone())).collect();
        Ok(Page::of(views, limit, |deployment: &Deployment| deployment.id.0))
    }
}

impl Handle<CancelDeployment> for Deploys {
    async fn handle(&self, caller: &Caller, message: CancelDeployment) -> Outcome<CancelDeployment> {
        let id = message.deployment_id;
        let row = self.deployment(caller, id).await?;
        self.cancel(&row).await?;
        let row = self.deployment(caller, id).await.map_err(CallError::after_effect)?;
        if row.status != DeploymentStatus::Cancelled {
            return Err(DeployError::AlreadyEnded.into());
        }
        let url = self.context.settings.url(&row.name);
        Ok(row.view(url))
    }
}

impl Deploys {
    /// Ends a deployment that has not ended. The row decides; its builder or owner, here or on another node, is woken
    /// and undoes it.
    pub(super) async fn cancel(&self, row: &DeploymentRow) -> Result<(), CallError<DeployError>> {
        let context = &self.context;
        let now = context.clock.now();
        let (author, status) = (Author::Anyone, DeploymentStatus::Cancelled);
        if steps::end(&context.database, &Caller::system(), author, row.id, status, None, now).await? {
            context.work.cancel(row.id);
            if let Err(failure) = context.announce(row.id).await {
                warn_unless_outage!(failure.is_outage(), deployment_id = %row.id, %failure, "announcing a cancelled deployment failed");
            }
            self.refresh_route(row.project_id).await;
            context.wake(row.project_id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::check_git;

    #[test]
    fn only_plain_web_addresses_are_taken() {
        assert!(check_git("https://example.org/a/b.git", Some("main")).is_ok());
        for url in [
            "",
            "a/b",
            "file:///etc",
            "ssh://git@example.org/a",
            "ext::sh -c id",
            "git@example.org:a/b",
            "https://user:secret@example.org/a",
            "--upload-pack=id",
        ] {
            assert!(check_git(url, None).is_err(), "{url}");
        }
        assert!(check_git("https://example.org/a", Some("")).is_err());
    }
}
