//! What a build takes from those before it: their release, when nothing has changed, or their cache.

use callboard_messages::{Caller, Failure, project::Config};

use super::{Pipeline, PipelineError};
use crate::{
    build::{
        cache::{CacheName, Taken},
        detect::Plan,
        identity,
    },
    folder::Dir,
    objects::Objects,
    store::{
        caches, releases,
        steps::{self, BuildOutcome},
    },
};

/// The folder of the cache, beside the source.
const CACHE: &str = "cache";

/// A cache in the hands of a build, with its name.
#[derive(Clone)]
pub(super) struct Kept {
    name: CacheName,
    pub(super) taken: Taken,
}

impl Pipeline<'_> {
    /// The name of everything that the build depends on.
    pub(super) async fn name(
        &self,
        source: Dir,
        plan: &Plan,
        config: &Config,
    ) -> Result<(Dir, Option<String>), PipelineError> {
        let (plan, build, version) = (plan.clone(), config.build.clone(), config.environment_version);
        let passed_through = self.context.settings.build.pass_through.clone();
        let name = move || {
            let key = identity::build_key(&source, &plan, &build, version, &passed_through);
            (source, key)
        };
        Ok(self.context.pools.archives.run(None, name).await?)
    }

    /// Brings the release into service that was built from the same in the same way, if there is one. False when the source
    /// has to be built.
    pub(super) async fn reuse(&self, build_key: Option<&str>, environment_version: i64) -> Result<bool, PipelineError> {
        let Some(build_key) = build_key.filter(|_| !self.deployment.rebuild) else { return Ok(false) };
        let (context, project_id) = (self.context, self.deployment.project_id);
        let Some(former) = releases::by_build_key(&context.database, project_id, build_key).await? else {
            return Ok(false);
        };
        if !context.objects.has(&Objects::release(&former.digest, former.generation)).await? {
            return Ok(false);
        }
        self.log.heading(&format!("Not built: v{} was built from the same source", former.version));
        self.log.detail(
            "source, configuration, variables and tools are the same; `callboard deploy --rebuild` builds it anew",
        );
        // The rollout continues this log, maybe on another node.
        self.log.store().await;
        let release = (former.id, environment_version);
        let of = (project_id, self.deployment.id);
        match steps::reused(&context.database, &Caller::system(), self.builder, of, release).await? {
            BuildOutcome::Rolls(_) => {}
            BuildOutcome::ArchiveGone => return Ok(false),
            BuildOutcome::Lost => return Err(PipelineError::Cancelled),
        }
        context.announce(self.deployment.id).await?;
        Ok(true)
    }

    /// The cache of the builds of this source. Without one the build only takes longer.
    pub(super) async fn take_cache(&self) -> Result<Option<Kept>, PipelineError> {
        let (context, deployment) = (self.context, &self.deployment);
        let generation = caches::generation(&context.database, deployment.project_id).await?;
        let name = CacheName::of(deployment.project_id, generation, deployment.source.as_ref());
        let folder = self.folder.join(CACHE);
        match context.caches.take(&name, folder, context.settings.build.run_as).await {
            Ok(taken) => Ok(taken.map(|taken| Kept { name, taken })),
            Err(error) => {
                tracing::warn!(id = %deployment.id, %error, "taking the build cache failed; building without it");
                Ok(None)
            }
        }
    }

    /// Moves what the plan keeps out of the app, which is reached from the source as it was opened before the build.
    pub(super) async fn collect(&self, source: Dir, plan: &Plan, cache: Option<&Kept>) -> Result<(), PipelineError> {
        let Some(Kept { taken, .. }) = cache.cloned() else { return Ok(()) };
        let (root, cache) = (plan.root.clone(), plan.cache.clone());
        let collect = move || taken.collect(&source, &root, &cache);
        let collected = self.context.pools.archives.run(None, collect).await?;
        let notes = collected.map_err(|error| Failure::Internal(format!("keeping folders of a build: {error}")))?;
        notes.iter().for_each(|note| self.log.trouble(note));
        Ok(())
    }

    /// Gives the cache back for the next build, unless it was cleared meanwhile. The release is stored: nothing fails by it.
    pub(super) async fn keep(&self, cache: Option<Kept>) -> Result<(), PipelineError> {
        let Some(Kept { name, taken }) = cache else { return Ok(()) };
        let (context, project_id) = (self.context, self.deployment.project_id);
        let generation = caches::generation(&context.database, project_id).await.unwrap_or(i64::MIN);
        if CacheName::of(project_id, generation, self.deployment.source.as_ref()) != name {
            return Ok(());
        }
        match context.caches.give_back(&name, taken).await {
            Ok(Some(note)) => self.log.detail(&note),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(id = %self.deployment.id, %error, "keeping the build cache failed; the next build starts without it");
            }
        }
        Ok(())
    }
}
