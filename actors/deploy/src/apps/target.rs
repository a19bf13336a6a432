//! The target of instances: a release with an opened environment.

use std::time::Duration;

use callboard_messages::{CallError, Caller, Failure, ProjectId, Secret, project::GetConfig};

use crate::{
    context::Context,
    logs::mask::Mask,
    store::{
        apps::Serving,
        releases::{self, ReleaseRow},
    },
};

/// A release with an opened environment. It stays in memory while instances run, which need it when they start again.
pub(crate) struct Target {
    pub(crate) serving: Serving,
    pub(crate) release: ReleaseRow,
    pub(crate) environment: Vec<(String, Secret)>,
    /// Covers the values of secret variables in the log of a deployment.
    pub(crate) mask: Mask,
}

/// Why there is no target.
pub(crate) enum TargetError {
    /// There can't be one, for this reason.
    Impossible(String),
    /// Not now.
    Later(Failure),
}

impl From<callboard_supervisors::db::Error> for TargetError {
    fn from(error: callboard_supervisors::db::Error) -> Self {
        Self::Later(error.into())
    }
}

impl Target {
    pub(crate) async fn load(context: &Context, project_id: ProjectId, serving: Serving) -> Result<Self, TargetError> {
        let release = releases::get(&context.database, serving.release_id).await?;
        let release = release.ok_or_else(|| TargetError::Impossible("the release is gone".to_owned()))?;
        if !release.kept {
            let version = release.version;
            return Err(TargetError::Impossible(format!("the archive of v{version} is no longer kept; deploy again")));
        }
        let config = GetConfig { project_id, environment_version: Some(serving.environment_version) };
        match context.bus.ask(&Caller::system(), config).await {
            Ok(config) => {
                let mask = Mask::of(&config);
                Ok(Self { serving, release, environment: config.environment, mask })
            }
            Err(CallError::Refused(refusal)) => Err(TargetError::Impossible(refusal.to_string())),
            Err(CallError::Failed(failure)) => Err(TargetError::Later(failure)),
        }
    }

    /// How long a new instance may take until it is healthy.
    pub(crate) fn grace(&self, context: &Context) -> Duration {
        let seconds = self.release.build.health_check_grace_seconds;
        seconds.map_or(context.settings.instances.grace, |seconds| Duration::from_secs(seconds.into()))
    }
}
