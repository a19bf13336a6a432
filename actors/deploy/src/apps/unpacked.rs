//! A release unpacked for one process, and what that process is started with.

use std::{collections::BTreeMap, path::PathBuf};

use callboard_messages::{Failure, InstanceId};
use callboard_supervisors::fs;

use super::target::Target;
use crate::{
    build::{
        detect::Command,
        package::{self, ContentId},
    },
    context::Context,
    objects::Objects,
    runtime::{InstanceLimits, InstanceSpec},
};

/// Unpacks a release into `folder`, unless it is there already. What its process writes there is its own.
///
/// # Errors
/// A sentence.
pub(super) async fn unpack(context: &Context, target: &Target, folder: PathBuf) -> Result<PathBuf, String> {
    if tokio::fs::try_exists(&folder).await.unwrap_or(false) {
        return Ok(folder);
    }
    let digest: ContentId = target.release.digest.parse()?;
    let failed = |failure: Failure| format!("the release could not be unpacked: {failure}");
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let archive = context.work_folder().join(format!("{name}.tar.gz"));
    let objects = &context.objects;
    let generation = target.release.generation;
    let mut found = objects.download(&Objects::release(digest.as_str(), generation), &archive).await.map_err(failed)?;
    if !found && generation > 0 {
        // A node of an earlier version has stored it, which knows no other name.
        found = objects.download(&Objects::release(digest.as_str(), 0), &archive).await.map_err(failed)?;
    }
    if !found {
        return Err("the release's archive is not in the object store".to_owned());
    }
    let into = folder.clone();
    let unpacked = context.pools.archives.run(None, move || {
        let unpacked = package::unpack(&archive, &into, &digest);
        let _ = fs::remove_file(&archive);
        unpacked
    });
    match unpacked.await {
        Ok(Ok(_)) => Ok(folder),
        Ok(Err(error)) => Err(error.to_string()),
        Err(failure) => Err(failed(failure)),
    }
}

/// What a process of the release is started with, in the folder in which it is unpacked.
pub(super) fn spec(
    context: &Context,
    target: &Target,
    (id, process): (InstanceId, &str),
    command: Command,
    folder: PathBuf,
) -> InstanceSpec {
    let settings = &context.settings.instances;
    let memory = target.release.build.memory_mib.unwrap_or(settings.memory_mib);
    let environment: BTreeMap<String, String> =
        target.environment.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    InstanceSpec {
        id,
        process: process.to_owned(),
        release: folder,
        command,
        run_environment: target.release.environment.clone(),
        environment,
        listens: process == crate::WEB,
        limits: InstanceLimits {
            memory: u64::from(memory) * 1024 * 1024,
            disk: settings.disk_bytes,
            ..InstanceLimits::default()
        },
        grace: settings.stop_grace,
    }
}
