//! The release command: runs before the rollout of a new release and decides whether there is one.
//!
//! It runs as an instance does, in a copy of the release of its own, with the release's variables and limits, but without a
//! port. Each run is counted in the store before it begins, and its success is recorded under the owner's fencing token:
//! a deployment whose command has succeeded never runs it again, whoever carries the rollout on. When the node goes down
//! during a run, the owner after the takeover runs the command again, because its outcome is unknown.

use std::path::PathBuf;

use callboard_messages::{DeploymentId, Failure, InstanceId, deploy::DeploymentKind};

use super::{app::App, target::Target, unpacked};
use crate::{
    build::detect::Command,
    context::Context,
    folder::trash::Trash,
    logs::log::Log,
    runtime::Ended,
    store::{
        owners::Owner,
        release_runs::{self, ReleaseRun},
    },
};

/// The name of its process type: a `Procfile` keeps it for the command.
const RELEASE: &str = "release";
/// How often it is begun for one deployment. When it never comes to an end, it may be why its nodes go down.
const RUNS_MAXIMUM: i64 = 5;

/// The outcome of the release command.
pub(super) enum Released {
    /// It has succeeded, or there is none: the rollout goes on.
    Yes,
    /// It failed, for this reason.
    No(String),
    /// The deployment was ended meanwhile, or the app is another node's.
    Lost,
}

/// Runs the release command of a deployment that brings a new release, unless it has succeeded before.
pub(super) async fn run(
    context: &Context,
    app: &App,
    owner: Owner,
    (id, kind): (DeploymentId, DeploymentKind),
    target: &Target,
    log: &Log,
) -> Result<Released, Failure> {
    let Some(command) = target.release.release_command.as_ref().filter(|_| kind == DeploymentKind::Deploy) else {
        return Ok(Released::Yes);
    };
    let owned = (app.project_id, owner);
    let runs = match release_runs::begin(&context.database, owned, id).await? {
        ReleaseRun::Done => return Ok(Released::Yes),
        ReleaseRun::Lost => return Ok(Released::Lost),
        ReleaseRun::Begun(runs) => runs,
    };
    if runs > RUNS_MAXIMUM {
        return Ok(Released::No(format!(
            "the release command was begun {RUNS_MAXIMUM} times and its node went down each time, so it is not tried again; \
             look at what `{}` needs, and deploy again",
            command.shown()
        )));
    }
    log.heading("Running the release command");
    if runs > 1 {
        log.detail("the node that ran it stopped or went down before its end: it runs again");
    }
    log.detail(&format!("$ {}", command.shown()));
    if let Err(sentence) = run_once(context, target, command, log).await {
        return Ok(Released::No(sentence));
    }
    match release_runs::succeeded(&context.database, owned, id).await? {
        true => Ok(Released::Yes),
        false => Ok(Released::Lost),
    }
}

/// The folder of a run; it goes when the run ends or is given up.
struct Folder {
    path: PathBuf,
    trash: Trash,
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.trash.discard_soon(self.path.clone());
    }
}

async fn run_once(context: &Context, target: &Target, command: &Command, log: &Log) -> Result<(), String> {
    let run = InstanceId::new();
    let folder = Folder { path: context.instance_folder().join(run.to_string()), trash: context.trash.clone() };
    let unpacked = unpacked::unpack(context, target, folder.path.clone()).await?;
    let spec = unpacked::spec(context, target, (run, RELEASE), command.clone(), unpacked);
    let grace = spec.grace;
    let running =
        context.runtime.spawn(spec, target.mask.before(&log.build_sink())).await.map_err(|error| error.to_string())?;
    let within = context.settings.instances.release_time;
    let exited = running.exited();
    let exit = tokio::select! {
        exit = exited => exit,
        () = context.clock.sleep(within) => {
            running.stop(grace).await;
            return Err(format!(
                "the release command `{}` did not end within {} seconds and was stopped; make it faster, or ask the \
                 node's operator for a longer CALLBOARD_RELEASE_TIME",
                command.shown(),
                within.as_secs()
            ));
        }
    };
    match exit.ended {
        Ended::Status(0) => Ok(()),
        _ => {
            let sentence = format!("the release command `{}` {exit}", command.shown());
            Err(target.mask.cover(&sentence).into_owned())
        }
    }
}
