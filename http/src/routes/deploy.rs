//! `deploy`.

use callboard_messages::{
    Access, Operation,
    deploy::{
        CancelDeployment, ClearCache, CreateDeployment, GetBuildLog, GetDeployment, GetLogs, ListApps, ListDeployments,
        ListInstances, ListReleases, Redeploy, RegisterSource, Restart, Rollback, Scale, Stop,
    },
    project::GetProject,
};

use crate::{
    ask::ask,
    table::{Routes, endpoint},
    upload,
};

const UPLOAD: Access = RegisterSource::ACCESS;

pub(super) fn routes() -> Routes {
    Routes::new(super::API)
        .post(
            "/projects/{project_id}/sources",
            endpoint("deploy.upload_source", UPLOAD, upload::source)
                .asking::<GetProject>()
                .asking::<RegisterSource>()
                .creating()
                .documented(upload::docs),
        )
        .get("/apps", ask::<ListApps>().paged())
        .get("/projects/{project_id}/deployments", ask::<ListDeployments>().paged())
        .post(
            "/projects/{project_id}/deployments",
            ask::<CreateDeployment>().created(|deployment| format!("/api/v1/deployments/{}", deployment.id)),
        )
        .get("/deployments/{deployment_id}", ask::<GetDeployment>())
        .post("/deployments/{deployment_id}/cancel", ask::<CancelDeployment>())
        .post(
            "/deployments/{deployment_id}/redeploy",
            ask::<Redeploy>().created(|deployment| format!("/api/v1/deployments/{}", deployment.id)),
        )
        .get("/deployments/{deployment_id}/logs", ask::<GetBuildLog>())
        .get("/projects/{project_id}/logs", ask::<GetLogs>())
        .get("/projects/{project_id}/releases", ask::<ListReleases>().paged())
        .post(
            "/projects/{project_id}/rollback",
            ask::<Rollback>().created(|deployment| format!("/api/v1/deployments/{}", deployment.id)),
        )
        .post("/projects/{project_id}/scale", ask::<Scale>())
        .post(
            "/projects/{project_id}/restart",
            ask::<Restart>().created(|deployment| format!("/api/v1/deployments/{}", deployment.id)),
        )
        .post("/projects/{project_id}/stop", ask::<Stop>())
        .delete("/projects/{project_id}/build-cache", ask::<ClearCache>())
        .get("/projects/{project_id}/instances", ask::<ListInstances>())
}
