//! Replacing instances without a gap, and bringing their number to what is wanted.
//!
//! A rollout starts new instances a few at a time, waits until they are healthy and takes an old one out for each; the
//! last old ones leave once the new release is recorded as what serves. When a new instance fails, the new ones leave
//! and the old ones that were taken out are started again first. So at no time fewer are healthy than before.

use std::{collections::BTreeMap, sync::Arc};

use callboard_messages::{
    Caller, DeploymentId, Failure,
    deploy::{DeploymentKind, DeploymentStatus},
};
use callboard_supervisors::SupervisorRef;

use super::{
    app::App,
    instance::{AppInstance, Settled},
    release_command::{self, Released},
    target::{Target, TargetError},
};
use crate::{
    apps::{
        formation::{DesiredFormation, Successor},
        retention,
    },
    context::Context,
    logs::log::Log,
    ownership::work::Work,
    store::{
        apps::{AppRow, Serving},
        deployments::{self, DeploymentRow},
        owners::Owner,
        steps::{self, Author},
    },
};

/// Carries a deployment that stands as rolling to its end, whatever that is.
pub(crate) async fn roll(
    context: &Context,
    app: &Arc<App>,
    supervisor: &SupervisorRef,
    (row, owner): (&AppRow, Owner),
    id: DeploymentId,
) -> Result<(), Failure> {
    // In this order: a cancel first changes the row, then looks for what is under way.
    let guard = context.begin(id, Work::Rollout);
    let outcome = match deployments::get(&context.database, id).await? {
        Some(deployment) if deployment.status == DeploymentStatus::Rolling => {
            tokio::select! {
                biased;
                () = guard.cancel.cancelled() => Ok(()),
                outcome = carry_out(context, app, supervisor, (row, owner), &deployment) => outcome,
            }
        }
        _ => Ok(()),
    };
    drop(guard);
    if context.lifecycle().closing.is_cancelled() {
        return outcome;
    }
    // Those that never became healthy leave at once; the others as soon as what serves now is back in full.
    let serves = app.serving_deployment();
    app.retire(context, |instance| {
        instance.target.serving.deployment_id == id && Some(id) != serves && !instance.is_healthy()
    });
    outcome
}

async fn carry_out(
    context: &Context,
    app: &Arc<App>,
    supervisor: &SupervisorRef,
    (row, owner): (&AppRow, Owner),
    deployment: &DeploymentRow,
) -> Result<(), Failure> {
    let id = deployment.id;
    let Some((release_id, environment_version)) = deployment.release_id.zip(deployment.environment_version) else {
        context.fail(id, Author::Owner(owner), "the deployment has no release").await?;
        return Ok(());
    };
    let serving = Serving { release_id, environment_version, deployment_id: id };
    let target = match Target::load(context, app.project_id, serving).await {
        Ok(target) => Arc::new(target),
        Err(TargetError::Later(failure)) => return Err(failure),
        Err(TargetError::Impossible(sentence)) => {
            context.fail(id, Author::Owner(owner), &sentence).await?;
            return Ok(());
        }
    };
    let log = context.deployment_log(id);
    log.follow_on().await;
    let version = target.release.version;
    log.heading(&match deployment.kind {
        DeploymentKind::Deploy => format!("Releasing v{version}"),
        DeploymentKind::Rollback => format!("Rolling back to v{version}"),
        DeploymentKind::Restart => format!("Restarting v{version}"),
    });
    if let Some(sentence) = deployment.refuse(&row.desired, &target.release.processes) {
        context.fail(id, Author::Owner(owner), &sentence).await?;
        return Ok(());
    }
    let of = (id, deployment.kind);
    match release_command::run(context, app, owner, of, &target, &log).await? {
        Released::Yes => {}
        Released::Lost => return Ok(()),
        Released::No(sentence) => {
            context.fail(id, Author::Owner(owner), &sentence).await?;
            return Ok(());
        }
    }
    let successor = Successor {
        processes: &target.release.processes,
        formation: target.release.formation.as_ref(),
        kind: deployment.kind,
    };
    let DesiredFormation { counts, missing } = successor.desired(&row.desired, &row.desired);
    let formation = counts.unwrap_or_default();
    if let Err(sentence) = fill(context, app, supervisor, &target, &formation, &log).await? {
        context.fail(id, Author::Owner(owner), &sentence).await?;
        return Ok(());
    }
    // From here on visitors see the new release only.
    app.retire(context, |instance| instance.target.serving.deployment_id != id);
    let (caller, now) = (Caller::system(), context.clock.now());
    let owned = (app.project_id, owner);
    let desired = |now: &DesiredFormation| successor.desired(&row.desired, now);
    if !steps::complete(&context.database, &caller, owned, serving, desired, now).await? {
        return Ok(());
    }
    app.now_serves(&target);
    log.heading(&match deployment.kind {
        DeploymentKind::Deploy => format!("Released v{version}"),
        DeploymentKind::Rollback => format!("Rolled back to v{version}"),
        DeploymentKind::Restart => format!("Restarted v{version}"),
    });
    for (process, count) in &missing {
        log.detail(&format!("{process}={count} stays wanted: the next release with a {process} process runs it"));
    }
    if formation.values().all(|count| *count == 0) {
        log.detail("no instance is wanted; scale the app to start it");
    } else if formation.get(crate::WEB).is_none_or(|count| *count == 0) {
        log.detail("no web process is wanted, so nothing answers at its address");
    }
    log.detail(&context.settings.url(&app.name));
    context.announce(id).await?;
    retention::after_deployment(context, app.project_id).await;
    Ok(())
}

/// `web` first: it is what visitors wait for.
fn in_order(formation: &BTreeMap<String, u32>) -> Vec<(&String, u32)> {
    let mut processes: Vec<_> = formation.iter().map(|(process, count)| (process, *count)).collect();
    processes.sort_by_key(|(process, _)| *process != crate::WEB);
    processes
}

/// Starts the new instances and takes old ones out for them, all but the last; a sentence when a new one fails.
async fn fill(
    context: &Context,
    app: &Arc<App>,
    supervisor: &SupervisorRef,
    target: &Arc<Target>,
    formation: &BTreeMap<String, u32>,
    log: &Log,
) -> Result<Result<(), String>, Failure> {
    let id = target.serving.deployment_id;
    for (process, wanted) in in_order(formation) {
        let wanted = wanted as usize;
        loop {
            let (ours, _) = app.split(process, id);
            let missing = wanted.saturating_sub(ours.len());
            let mut new: Vec<Arc<AppInstance>> = ours.into_iter().filter(|instance| !instance.is_healthy()).collect();
            for _ in new.len()..missing.min(context.settings.instances.surge) {
                new.push(app.start(context, supervisor, target, process).await?);
            }
            if new.is_empty() {
                break;
            }
            for instance in &new {
                if let Settled::Failed { sentence, last_words } = instance.settled().await {
                    // Those who read the log of a deployment may not all read the variables.
                    let mask = &target.mask;
                    if !last_words.is_empty() {
                        log.heading(&format!("The last words of {}:", instance.title()));
                        last_words.iter().for_each(|line| log.detail(&mask.cover(line)));
                    }
                    return Ok(Err(mask.cover(&sentence).into_owned()));
                }
                log.detail(&format!("{} is healthy", instance.title()));
            }
            let (ours, others) = app.split(process, id);
            let surplus = (ours.len() + others.len()).saturating_sub(wanted);
            let replaced: Vec<_> = others.into_iter().take(if ours.len() < wanted { surplus } else { 0 }).collect();
            app.retire(context, |instance| replaced.iter().any(|replaced| replaced.id == instance.id));
            for instance in &replaced {
                instance.gone().await;
            }
        }
    }
    Ok(Ok(()))
}

/// Starts what is missing of `target`, without waiting for it.
pub(crate) async fn start_missing(
    context: &Context,
    app: &Arc<App>,
    supervisor: &SupervisorRef,
    target: &Arc<Target>,
    formation: &BTreeMap<String, u32>,
) -> Result<(), Failure> {
    for (process, wanted) in in_order(formation) {
        if !target.release.processes.contains_key(process) {
            continue;
        }
        let (ours, _) = app.split(process, target.serving.deployment_id);
        for _ in ours.len()..wanted as usize {
            app.start(context, supervisor, target, process).await?;
        }
    }
    Ok(())
}

/// Makes what runs be what is wanted: starts what is missing, ends what is too much, and ends what another deployment
/// has started once there is nothing more to wait for.
pub(crate) async fn converge(
    context: &Context,
    app: &Arc<App>,
    supervisor: &SupervisorRef,
    target: &Arc<Target>,
    formation: &BTreeMap<String, u32>,
) -> Result<(), Failure> {
    let id = target.serving.deployment_id;
    start_missing(context, app, supervisor, target, formation).await?;
    let instances = app.instances();
    if instances.iter().any(|instance| instance.target.serving.deployment_id != id && instance.is_healthy()) {
        for instance in instances.iter().filter(|instance| instance.target.serving.deployment_id == id) {
            instance.settled().await;
        }
    }
    app.retire(context, |instance| {
        let wanted = formation.get(&instance.process).copied().unwrap_or(0);
        instance.target.serving.deployment_id != id || instance.index > wanted
    });
    Ok(())
}
