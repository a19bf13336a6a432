//! The dashboard, one line for each page and each form.

use crate::{
    pages::{account, administrators_page, apps, cluster, components, keys, nodes, organization, page, palette},
    table::Routes,
};

pub(super) fn routes() -> Routes {
    Routes::new("")
        .get("/", page("pages.apps", apps::list::list))
        .get("/palette", page("pages.palette", palette::palette))
        .get("/apps/new", page("pages.new_app", apps::new::form))
        .post("/apps/new", page("pages.create_app", apps::new::create))
        .post("/apps/new/upload", page("pages.create_app_from_upload", apps::new::create_from_upload))
        .get("/apps/{name}", page("pages.app", apps::overview::overview))
        .get("/apps/{name}/deploy", page("pages.deploy_form", apps::new::deploy_form))
        .post("/apps/{name}/deploy", page("pages.deploy", apps::new::deploy))
        .post("/apps/{name}/deploy/upload", page("pages.deploy_upload", apps::new::deploy_upload))
        .post("/apps/{name}/restart", page("pages.restart_app", apps::lifecycle::restart))
        .get("/apps/{name}/stop", page("pages.confirm_stop", apps::lifecycle::confirm_stop))
        .post("/apps/{name}/stop", page("pages.stop_app", apps::lifecycle::stop))
        .post("/apps/{name}/scale", page("pages.scale_app", apps::lifecycle::scale))
        .get("/apps/{name}/delete", page("pages.confirm_delete_app", apps::lifecycle::confirm_delete))
        .post("/apps/{name}/delete", page("pages.delete_app", apps::lifecycle::delete))
        .get("/apps/{name}/deployments", page("pages.deployments", apps::deployments::list))
        .get("/apps/{name}/deployments/{deployment_id}", page("pages.deployment", apps::deployments::show))
        .get("/apps/{name}/deployments/{deployment_id}/log.txt", page("pages.build_log", apps::deployments::download))
        .post("/apps/{name}/deployments/{deployment_id}/cancel", page("pages.cancel", apps::deployments::cancel))
        .post("/apps/{name}/deployments/{deployment_id}/redeploy", page("pages.redeploy", apps::lifecycle::redeploy))
        .get("/apps/{name}/releases", page("pages.releases", apps::releases::list))
        .get(
            "/apps/{name}/releases/{version}/rollback",
            page("pages.confirm_rollback", apps::releases::confirm_rollback),
        )
        .post("/apps/{name}/releases/{version}/rollback", page("pages.rollback", apps::releases::rollback))
        .get("/apps/{name}/variables", page("pages.variables", apps::variables::form))
        .post("/apps/{name}/variables", page("pages.save_variables", apps::variables::save))
        .get("/apps/{name}/logs", page("pages.logs", apps::logs::logs))
        .get("/apps/{name}/logs.txt", page("pages.log_text", apps::logs::download))
        .get("/apps/{name}/settings", page("pages.settings", apps::settings::form))
        .post("/apps/{name}/settings/description", page("pages.describe_app", apps::settings::describe))
        .post("/apps/{name}/settings/build", page("pages.configure_app", apps::settings::configure))
        .post("/apps/{name}/settings/clear-cache", page("pages.clear_cache", apps::settings::clear_cache))
        .get("/nodes", administrators_page("pages.nodes", nodes::nodes))
        .get("/cluster", administrators_page("pages.actors", cluster::actors))
        .post("/cluster/nodes/{node_id}/domains/{domain}/revive", administrators_page("pages.revive", cluster::revive))
        .get(
            "/cluster/nodes/{node_id}/domains/{domain}/breaker",
            administrators_page("pages.confirm_hold", cluster::confirm_hold),
        )
        .post("/cluster/nodes/{node_id}/domains/{domain}/breaker", administrators_page("pages.hold", cluster::hold))
        .get("/cluster/dead-letters", administrators_page("pages.dead_letters", cluster::dead_letters))
        .get("/cluster/dead-letters/{dead_letter_id}", administrators_page("pages.dead_letter", cluster::dead_letter))
        .post("/cluster/dead-letters/{dead_letter_id}/replay", administrators_page("pages.replay", cluster::replay))
        .get(
            "/cluster/dead-letters/{dead_letter_id}/drop",
            administrators_page("pages.confirm_drop", cluster::confirm_drop),
        )
        .post("/cluster/dead-letters/{dead_letter_id}/drop", administrators_page("pages.drop", cluster::drop_letter))
        .get("/cluster/sagas", administrators_page("pages.sagas", cluster::sagas))
        .post("/cluster/sagas/{saga_id}/retry", administrators_page("pages.retry_saga", cluster::retry))
        .get("/organization", page("pages.organization", organization::organization))
        .post("/organization", page("pages.create_organization", organization::create))
        .post("/organization/switch", page("pages.switch_organization", organization::switch))
        .post("/organization/invite", administrators_page("pages.invite", organization::invite))
        .get(
            "/organization/{organization_id}/delete",
            page("pages.confirm_delete_organization", organization::confirm_delete),
        )
        .post("/organization/{organization_id}/delete", page("pages.delete_organization", organization::delete))
        .get("/account", page("pages.account", account::account))
        .post("/account/sessions/{session_id}/end", page("pages.end_session", account::end_session))
        .get("/account/sign-out-everywhere", page("pages.confirm_sign_out_everywhere", account::confirm_end_all))
        .post("/account/sign-out-everywhere", page("pages.sign_out_everywhere", account::end_all))
        .get("/account/keys", page("pages.keys", keys::keys))
        .post("/account/keys", page("pages.create_key", keys::create))
        .get("/account/keys/{api_key_id}/revoke", page("pages.confirm_revoke_key", keys::confirm_revoke))
        .post("/account/keys/{api_key_id}/revoke", page("pages.revoke_key", keys::revoke))
        .get("/dashboard/components", page("pages.components", components::components))
}
