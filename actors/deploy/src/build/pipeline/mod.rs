//! From a source to a release: fetch, detect, build, pack, store.

mod reuse;

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use callboard_messages::{
    CallError, Caller, DeploymentId, Failure, ReleaseId,
    deploy::DeploymentSource,
    project::{Config, GetConfig},
};
use callboard_supervisors::{Backoff, disk::Disk, fs, retry};
use tokio_util::sync::CancellationToken;

use self::reuse::Kept;
use crate::{
    apps::retention,
    build::{
        archive,
        detect::{self, Cache, Plan},
        executor::{self, BuildError},
        fetch::{self, FetchError, GitSource},
        lfs,
        package::{self, PackageError, Packed, Packing},
        publish,
    },
    context::Context,
    folder::{self, Dir},
    logs::{
        excerpt::{SENTENCE, excerpt},
        last_words::said,
        log::Log,
    },
    objects::Objects,
    store::{
        apps, archives,
        deployments::{self, DeploymentRow},
        releases::ReleaseRow,
        steps::{self, BuildOutcome, Builder},
    },
};

/// Attempts to read the project's configuration.
const CONFIG_TRIES: u32 = 30;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why there is no release.
pub(crate) enum PipelineError {
    /// The source or its build is at fault.
    Failed {
        sentence: String,
        /// Lines that the log does not show yet.
        output: Vec<String>,
    },
    /// It was cancelled by its owner, or by the node's stop.
    Cancelled,
    /// The platform failed.
    Fault(Failure),
}

impl PipelineError {
    /// Reports a failure on a full disk as caused by it.
    fn unless_full(self, disk: &Disk) -> Self {
        let full = |said: &str| failed(format!("the disk of this node is full; deploy again when there is room{said}"));
        match self {
            Self::Cancelled => Self::Cancelled,
            Self::Fault(Failure::DiskFull { .. }) => full(""),
            other if !disk.has_no_room() => other,
            Self::Fault(_) => full(""),
            Self::Failed { sentence, output } => match full(&format!(" ({sentence})")) {
                Self::Failed { sentence, .. } => Self::Failed { sentence, output },
                other => other,
            },
        }
    }
}

impl From<Failure> for PipelineError {
    fn from(failure: Failure) -> Self {
        Self::Fault(failure)
    }
}

impl From<callboard_supervisors::db::Error> for PipelineError {
    fn from(error: callboard_supervisors::db::Error) -> Self {
        Self::Fault(error.into())
    }
}

fn failed(sentence: impl std::fmt::Display) -> PipelineError {
    let sentence = excerpt(&sentence.to_string(), SENTENCE).into_owned();
    PipelineError::Failed { sentence, output: Vec::new() }
}

/// Makes a release of a deployment's source. Afterwards the deployment is rolling, or was cancelled meanwhile.
pub(crate) async fn run(
    context: &Context,
    id: DeploymentId,
    builder: Builder,
    cancel: &CancellationToken,
) -> Result<(), PipelineError> {
    let Some(deployment) = deployments::get(&context.database, id).await? else { return Err(PipelineError::Cancelled) };
    context.announce(id).await?;
    let folder = context.work_folder().join(id.to_string());
    let made =
        Pipeline { context, deployment, builder, cancel, log: context.deployment_log(id), folder: folder.clone() };
    let outcome = tokio::select! {
        biased;
        outcome = made.run() => outcome,
        () = gone(cancel) => Err(PipelineError::Cancelled),
    };
    // Before the folder is removed, and with it what has filled the disk.
    let outcome = outcome.map_err(|error| error.unless_full(&context.disk));
    if let Err(error) = context.trash.discard(folder).await {
        tracing::warn!(%id, %error, "removing the folder of a build failed");
    }
    outcome
}

/// Completes after the cancel, for steps that can't be cancelled: a build ends its processes itself.
async fn gone(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(Duration::from_secs(6)).await;
}

struct Pipeline<'a> {
    context: &'a Context,
    deployment: DeploymentRow,
    builder: Builder,
    cancel: &'a CancellationToken,
    log: Log,
    folder: PathBuf,
}

impl Pipeline<'_> {
    async fn run(&self) -> Result<(), PipelineError> {
        let mut config = self.config().await?;
        if let Some(own) = &self.deployment.config {
            config.build = own.or(&config.build);
        }
        let folder = self.folder.clone();
        let made = self.context.pools.prompt.run(None, move || {
            folder::make_passable(&folder)?;
            // What is in it is the build's own business, and bundlers list the folders above the app.
            fs::set_permissions(&folder, Permissions::from_mode(0o755))
        });
        let made = made.await?;
        made.map_err(|error| Failure::Internal(format!("the folder of a build: {error}")))?;
        let source = self.folder.join("source");
        let commit = self.fetch(&source).await?;
        self.look_for_pointers(&source).await?;
        self.check_cancel()?;
        // Before anything else can write there.
        let path = source.clone();
        let open = move || Ok::<_, std::io::Error>((Dir::open(&path)?, Dir::open(&path)?));
        let (opened, kept_from) = self.context.pools.archives.run(None, open).await?.map_err(failed)?;
        let mut plan = self.detect(&source, &config).await?;
        self.check_processes(&plan).await?;
        let (opened, build_key) = self.name(opened, &plan, &config).await?;
        if self.reuse(build_key.as_deref(), config.environment_version).await? {
            return Ok(());
        }
        self.check_cancel()?;
        // Nothing is downloaded where nothing runs.
        let cache = if plan.steps.is_empty() { None } else { self.take_cache().await? };
        if let Err(error) = self.build(&plan, &source, &config, cache.as_ref()).await {
            // What was downloaded is as good as ever; the folders of the app may be why it failed.
            if matches!(error, PipelineError::Failed { .. }) {
                self.collect(kept_from, &Plan { cache: Cache::default(), ..plan }, cache.as_ref()).await?;
                self.keep(cache).await;
            }
            return Err(error);
        }
        self.check_cancel()?;
        let opened = self.publish(opened, &mut plan).await?;
        // What is kept is not released; where a site is released alone, it may be the site itself.
        let (before, after) = if plan.publish.is_none() { (Some(kept_from), None) } else { (None, Some(kept_from)) };
        if let Some(kept_from) = before {
            self.collect(kept_from, &plan, cache.as_ref()).await?;
        }
        let archive = self.folder.join("release.tar.gz");
        let packed = self.pack(&source, opened, &plan, archive.clone()).await?;
        if let Some(kept_from) = after {
            self.collect(kept_from, &plan, cache.as_ref()).await?;
        }
        self.check_cancel()?;
        self.store(&archive, packed, plan, config, (commit, build_key)).await?;
        // The rollout begins while the cache is measured.
        self.context.wake(self.deployment.project_id);
        self.keep(cache).await;
        Ok(())
    }

    fn check_cancel(&self) -> Result<(), PipelineError> {
        if self.cancel.is_cancelled() { Err(PipelineError::Cancelled) } else { Ok(()) }
    }

    /// Just after the start of a node the project domain may not answer yet, so this is retried for a while.
    async fn config(&self) -> Result<Config, PipelineError> {
        let (caller, project_id) = (Caller::system(), self.deployment.project_id);
        let ask = async || self.context.bus.ask(&caller, GetConfig { project_id, environment_version: None }).await;
        let mut failures = 0;
        retry(&self.context.clock, Backoff::constant(RETRY_AFTER), ask, |error, _| match error {
            CallError::Refused(refusal) => Err(failed(refusal)),
            CallError::Failed(failure @ Failure::Internal(_)) => Err(failure.into()),
            CallError::Failed(failure) if failures == CONFIG_TRIES => Err(failure.into()),
            CallError::Failed(_) => {
                failures += 1;
                self.check_cancel()
            }
        })
        .await
    }

    /// Puts the source into `target`. Returns its commit.
    async fn fetch(&self, target: &Path) -> Result<Option<String>, PipelineError> {
        match &self.deployment.source {
            Some(DeploymentSource::Archive { source_id }) => {
                self.log.heading("Unpacking the source");
                let archive = self.folder.join("upload");
                if !self.context.objects.download(&Objects::source(*source_id), &archive).await? {
                    return Err(failed("the uploaded source is no longer there; upload it again"));
                }
                let (target, limits) = (target.to_owned(), self.context.settings.archive.clone());
                let unpacked =
                    self.context.pools.archives.run(None, move || archive::unpack(&archive, &target, &limits));
                match unpacked.await? {
                    Ok(summary) => self.log.detail(&format!("{} files and folders", summary.entries)),
                    Err(error) if error.is_refusal() => return Err(failed(error)),
                    Err(error) => return Err(Failure::Internal(error.to_string()).into()),
                }
                Ok(None)
            }
            Some(DeploymentSource::Git { url, reference }) => {
                self.log.heading("Fetching the source");
                let source = GitSource { url: url.clone(), reference: reference.clone() };
                let (settings, sink) = (&self.context.settings.fetch, self.log.build_sink());
                match fetch::clone(&source, target, settings, &sink, self.cancel).await {
                    Ok(commit) => {
                        self.log.detail(&format!("{} {}", commit.id.get(..10).unwrap_or(&commit.id), commit.subject));
                        let database = &self.context.database;
                        steps::set_commit(database, self.deployment.id, self.builder, &commit.id).await?;
                        Ok(Some(commit.id))
                    }
                    Err(FetchError::Cancelled) => Err(PipelineError::Cancelled),
                    Err(error) => Err(failed(error)),
                }
            }
            None => Err(failed("the deployment has no source")),
        }
    }

    async fn look_for_pointers(&self, source: &Path) -> Result<(), PipelineError> {
        let source = source.to_owned();
        if let Some(sentence) = self.context.pools.archives.run(None, move || lfs::look_for(&source)).await? {
            self.log.trouble(&sentence);
        }
        Ok(())
    }

    async fn detect(&self, source: &Path, config: &Config) -> Result<Plan, PipelineError> {
        let (source, own, tools) = (source.to_owned(), config.build.clone(), self.context.tools.clone());
        let detect = move || detect::detect(&source, &own, &tools);
        let mut plan = self.context.pools.plans.run(None, detect).await?.map_err(failed)?;
        publish::imply(&mut plan);
        self.log.heading(&plan.heading());
        Ok(plan)
    }

    /// Refuses a release that lacks a process type before it is built. The rollout checks again: the desired formation may
    /// change until then.
    async fn check_processes(&self, plan: &Plan) -> Result<(), PipelineError> {
        let app = apps::get(&self.context.database, self.deployment.project_id).await?;
        let refusal = app.and_then(|app| self.deployment.refuse(&app.desired, &plan.processes));
        refusal.map_or(Ok(()), |sentence| Err(failed(sentence)))
    }

    /// Finds the folder that a site's build has made.
    async fn publish(&self, source: Dir, plan: &mut Plan) -> Result<Dir, PipelineError> {
        let mut settled = plan.clone();
        let settle = move || {
            let note = publish::settle(&source, &mut settled);
            (source, settled, note)
        };
        let (source, settled, note) = self.context.pools.archives.run(None, settle).await?;
        if let Some(note) = note.map_err(failed)? {
            self.log.detail(&note);
        }
        *plan = settled;
        Ok(source)
    }

    async fn build(
        &self,
        plan: &Plan,
        source: &Path,
        config: &Config,
        cache: Option<&Kept>,
    ) -> Result<(), PipelineError> {
        let environment = executor::Variables::of(config);
        let (settings, sink) = (&self.context.settings.build, self.log.build_sink());
        let cache = cache.map(|kept| &kept.taken);
        match executor::run_plan(plan, source, &environment, cache, settings, &sink, self.cancel).await {
            Ok(_) => Ok(()),
            Err(BuildError::Cancelled) => Err(PipelineError::Cancelled),
            Err(BuildError::Failed { step, reason, output }) => {
                Err(failed(format!("`{step}` failed: {reason}{}", said(&output))))
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn pack(&self, path: &Path, source: Dir, plan: &Plan, target: PathBuf) -> Result<Packed, PipelineError> {
        self.log.heading("Packing the release");
        let only = plan.publish.as_deref().filter(|folder| !folder.as_os_str().is_empty());
        let packing = Packing { source, path, root: &plan.root, only, target };
        let (settings, pool) = (&self.context.settings.build, &self.context.pools.archives);
        let packed =
            package::pack_by_child(packing, settings, pool, self.cancel).await.map_err(|error| match error {
                PackageError::Cancelled => PipelineError::Cancelled,
                PackageError::Fault(failure) => failure.into(),
                error => failed(error),
            })?;
        let size = packed.packed_bytes as f64 / 1_048_576.0;
        self.log.detail(&format!("{} files and folders, {size:.1} MiB packed", packed.entries));
        Ok(packed)
    }

    async fn store(
        &self,
        archive: &Path,
        packed: Packed,
        plan: Plan,
        config: Config,
        (commit, build_key): (Option<String>, Option<String>),
    ) -> Result<(), PipelineError> {
        let mut release = ReleaseRow {
            id: ReleaseId::new(),
            project_id: self.deployment.project_id,
            version: 0,
            digest: packed.id.to_string(),
            generation: 0,
            language: language(&plan),
            processes: plan.processes,
            environment: plan.environment,
            build: plan.config,
            environment_version: config.environment_version,
            deployment_id: self.deployment.id,
            commit,
            release_command: plan.release,
            build_key,
            formation: None,
            kept: true,
            created_at: self.context.clock.now(),
        };
        let (context, caller) = (self.context, Caller::system());
        // The rollout continues this log, maybe on another node.
        self.log.store().await;
        loop {
            release.generation = archives::generation(&context.database, &release.digest).await?;
            let path = Objects::release(&release.digest, release.generation);
            if !context.objects.has(&path).await? {
                context.objects.upload(archive, &path).await?;
            }
            match steps::built(&context.database, &caller, self.builder, &release).await? {
                BuildOutcome::Rolls(_) => break,
                // Retention removed the last release of the same content meanwhile: this one is stored again under the next
                // generation, and the object of the former is an orphan.
                BuildOutcome::ArchiveGone => context.objects.remove(&path).await?,
                BuildOutcome::Lost => {
                    retention::unneeded(context, &release.digest).await?;
                    return Err(PipelineError::Cancelled);
                }
            }
        }
        self.context.announce(self.deployment.id).await?;
        Ok(())
    }
}

/// The language for clients: `node`, `python`, `static`, `other`.
fn language(plan: &Plan) -> String {
    serde_json::to_value(plan.language).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
}
