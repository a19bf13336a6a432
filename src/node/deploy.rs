//! `deploy` as a node hosts it: apps are child processes of the node, below its data folder.

use std::sync::Arc;

use callboard_deploy::{
    folder::trash::Trash,
    process::Launcher,
    runtime::process::{ProcessRuntime, ProcessSettings},
};
use callboard_supervisors::Domain;

use super::{Parts, hidden};
use crate::{
    LAUNCH, PACK, STATIC_SERVER,
    error::{Context, Error, Result},
};

/// The binary as a child finds it: this one, also after a newer one was put in its place.
const OURSELVES: &str = "/proc/self/exe";

/// Builds the domain.
pub fn deploy(parts: &Parts<'_>) -> Result<Domain> {
    let (settings, data) = (parts.settings, parts.data);
    let launcher = Launcher::new(vec![OURSELVES.to_owned(), LAUNCH.to_owned()], parts.id.to_string())
        .with_cgroups()
        .hiding(hidden::paths(settings, data))
        .searching_as(settings.deploy.run_as);
    if !callboard_deploy::process::trampoline::can_hide() {
        tracing::warn!(
            "builds and apps can read what the user they run as can read, the node's keys included unless that is \
             another user: this kernel, or the container's seccomp profile, has no Landlock (Linux 5.19 or newer)"
        );
    }
    let folder = data.join("deploy");
    let (template, limit) = (&parts.addresses.app_template, settings.gateway.upload_limit);
    let packer = vec![OURSELVES.to_owned(), PACK.to_owned()];
    let deploy = settings.deploy.settings(&folder, template, limit, &launcher, packer);
    let trash = Trash::new(deploy.trash_folder(), launcher.pools.clone());
    let processes = ProcessRuntime::new(ProcessSettings {
        launcher,
        state: folder.join("processes"),
        trash,
        static_server: vec![OURSELVES.to_owned(), STATIC_SERVER.to_owned()],
        output: deploy.build.limits.output.clone(),
        run_as: settings.deploy.run_as,
    })
    .context(|| format!("write in {}", folder.display()))?;
    callboard_deploy::domain(
        deploy,
        parts.databases.clone(),
        parts.objects.clone(),
        parts.routes.clone(),
        Arc::new(processes),
        parts.members.clone(),
    )
    .map_err(|wrong| Error::usage(wrong.join("; ")))
}
