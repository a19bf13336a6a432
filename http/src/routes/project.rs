//! `project`.

use callboard_messages::project::{
    ChangeEnv, CreateProject, DeleteProject, GetBuildConfig, GetProject, ListEnv, ListProjects, SetBuildConfig, SetEnv,
    UnsetEnv, UpdateProject,
};

use crate::{ask::ask, table::Routes};

pub(super) fn routes() -> Routes {
    Routes::new(super::API)
        .get("/projects", ask::<ListProjects>().paged())
        .post("/projects", ask::<CreateProject>().created(|project| format!("/api/v1/projects/{}", project.id)))
        .get("/projects/{project_id}", ask::<GetProject>().versioned(|project| project.version))
        .patch("/projects/{project_id}", ask::<UpdateProject>().if_match().versioned(|project| project.version))
        .delete(
            "/projects/{project_id}",
            ask::<DeleteProject>().if_match().accepted(|project| format!("/api/v1/projects/{}", project.id)),
        )
        .get("/projects/{project_id}/env", ask::<ListEnv>().versioned(|environment| environment.version))
        .put("/projects/{project_id}/env", ask::<SetEnv>().versioned(|environment| environment.version))
        .patch("/projects/{project_id}/env", ask::<ChangeEnv>().if_match().versioned(|environment| environment.version))
        .delete("/projects/{project_id}/env/{name}", ask::<UnsetEnv>().versioned(|environment| environment.version))
        .get("/projects/{project_id}/build-config", ask::<GetBuildConfig>())
        .put("/projects/{project_id}/build-config", ask::<SetBuildConfig>())
}
