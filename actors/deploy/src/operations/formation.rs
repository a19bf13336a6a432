//! How many instances are wanted: scale, stop, restart.

use callboard_messages::{
    CallError, Caller, DeploymentId, Failure,
    deploy::{DeployError, DeploymentKind, DeploymentStatus, Formation, Restart, Scale, Stop},
    project::{ListEnv, ProjectError},
};
use callboard_supervisors::{Handle, Outcome};

use super::{Deploys, no_project};
use crate::{
    apps::formation::DesiredFormation,
    store::{
        apps::{self, AppState},
        deployments::{self, NewDeployment},
        releases,
    },
};

const COUNT_MAXIMUM: u32 = 100;
/// How often a change is tried that meets another one.
const TRIES: usize = 8;

fn too_busy() -> Failure {
    Failure::Unavailable { retry_after: std::time::Duration::from_secs(1) }
}

impl Handle<Scale> for Deploys {
    async fn handle(&self, caller: &Caller, message: Scale) -> Outcome<Scale> {
        if message.processes.is_empty() {
            return Err(DeployError::Invalid("name at least one process type, such as web=2".to_owned()).into());
        }
        if let Some((process, _)) = message.processes.iter().find(|(_, count)| **count > COUNT_MAXIMUM) {
            let sentence = format!("{process} may have at most {COUNT_MAXIMUM} instances");
            return Err(DeployError::Invalid(sentence).into());
        }
        for _ in 0..TRIES {
            let app = self.deployed(caller, message.project_id).await?;
            let serving = app.serving.ok_or(DeployError::NoRelease)?;
            let release = releases::get(&self.context.database, serving.release_id).await?;
            let release = release.ok_or(DeployError::NoRelease)?;
            let mut formation = app.shown_formation();
            for (process, count) in &message.processes {
                if release.processes.contains_key(process) {
                    formation.processes.insert(process.clone(), *count);
                } else if *count > 0 || formation.missing.remove(process).is_none() {
                    return Err(DeployError::NoSuchProcess(process.clone()).into());
                }
            }
            let desired =
                DesiredFormation { counts: Some(formation.processes.clone()), missing: formation.missing.clone() };
            let now = self.context.clock.now();
            if apps::set_desired(&self.context.database, &app, Some(desired), AppState::Running, now).await? {
                self.context.wake(app.project_id);
                return Ok(formation);
            }
        }
        Err(too_busy().into())
    }
}

impl Handle<Stop> for Deploys {
    async fn handle(&self, caller: &Caller, message: Stop) -> Outcome<Stop> {
        for _ in 0..TRIES {
            let app = self.deployed(caller, message.project_id).await?;
            // A rollout under way would start what is to stop.
            if let Some((id, DeploymentStatus::Rolling)) =
                deployments::running(&self.context.database, app.project_id).await?
                && let Some(row) = deployments::get(&self.context.database, id).await?
            {
                self.cancel(&row).await?;
            }
            let now = self.context.clock.now();
            if apps::set_desired(&self.context.database, &app, None, AppState::Stopped, now).await? {
                self.context.wake(app.project_id);
                let DesiredFormation { counts, missing } = app.desired;
                let processes = counts.unwrap_or_default().into_keys().map(|process| (process, 0)).collect();
                return Ok(Formation { processes, missing });
            }
        }
        Err(too_busy().into())
    }
}

impl Handle<Restart> for Deploys {
    async fn handle(&self, caller: &Caller, message: Restart) -> Outcome<Restart> {
        let app = self.deployed(caller, message.project_id).await?;
        let serving = app.serving.ok_or(DeployError::NoRelease)?;
        let environment = ListEnv { project_id: app.project_id, version: None };
        let environment = match self.context.bus.ask(&caller.as_system(), environment).await {
            Ok(environment) => environment,
            Err(CallError::Refused(ProjectError::NotFound)) => return Err(no_project()),
            Err(CallError::Refused(refusal)) => return Err(DeployError::Invalid(refusal.to_string()).into()),
            Err(CallError::Failed(failure)) => return Err(failure.into()),
        };
        let commit =
            releases::get(&self.context.database, serving.release_id).await?.and_then(|release| release.commit);
        let new = NewDeployment {
            id: DeploymentId::new(),
            project_id: app.project_id,
            organization_id: app.organization_id,
            kind: DeploymentKind::Restart,
            status: DeploymentStatus::Rolling,
            source: None,
            release_id: Some(serving.release_id),
            environment_version: Some(environment.version),
            commit,
            allow_missing: false,
            rebuild: false,
            config: None,
            created_at: self.context.clock.now(),
        };
        let deployment = self.begin::<Restart>(caller, new, &app.name).await?;
        self.context.wake(app.project_id);
        Ok(deployment)
    }
}
