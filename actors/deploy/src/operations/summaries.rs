//! Apps at a glance, for whoever lists many.

use std::collections::HashMap;

use callboard_messages::{
    Caller, Page, ProjectId,
    deploy::{AppSummary, Deployment, ListApps},
};
use callboard_supervisors::{Handle, Outcome};

use super::Deploys;
use crate::store::{apps, deployments};

impl Handle<ListApps> for Deploys {
    async fn handle(&self, caller: &Caller, message: ListApps) -> Outcome<ListApps> {
        let (database, organization_id) = (&self.context.database, caller.tenant()?);
        let rows = match message.project_id {
            Some(project_id) => apps::owned(database, project_id, organization_id).await?.into_iter().collect(),
            None => apps::owned_page(database, organization_id, message.cursor, message.limit).await?,
        };
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Ok(Page { items: Vec::new(), next: None });
        };
        // Newest first: the last row has the lowest id.
        let range = last.project_id..=first.project_id;
        let newest = deployments::newest_of_each(database, organization_id, range).await?;
        let mut newest: HashMap<ProjectId, Deployment> =
            newest.into_iter().map(|row| (row.project_id, self.context.view(row))).collect();
        let summary = |app: apps::AppRow| AppSummary {
            project_id: app.project_id,
            url: self.context.settings.url(&app.name),
            formation: app.shown_formation(),
            environment_version: app.serving.map(|serving| serving.environment_version),
            last: newest.remove(&app.project_id),
        };
        let summaries = rows.into_iter().map(summary).collect();
        Ok(Page::of(summaries, message.limit, |app: &AppSummary| app.project_id.0))
    }
}
