//! Builds an app by its plan, with a live log and within limits.
//!
//! Each step is a child with an environment that holds nothing of the node's: a build runs the app's own code and that
//! of everything it depends on.

mod log_limit;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use callboard_messages::project::{Config, is_platform_variable};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::log_limit::bounded;
use crate::{
    build::{
        cache::Taken,
        detect::{Plan, Step},
    },
    folder,
    logs::{
        last_words::LastLines,
        mask::Mask,
        output::{LineSink, OutputLimits, Stream},
    },
    pools,
    process::{
        CgroupLimits, Check, End, Ended, How, Job, Launcher, Program, Share, Streams, run,
        trampoline::{Launch, NOT_FOUND, RunAs},
    },
};

/// Limits of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildLimits {
    /// For all steps together. Default: 15 minutes.
    pub time: Duration,
    /// Size of the source, the home and temporary files, during the build and after it, in bytes. Default: 2 GiB.
    pub size: u64,
    /// Files, folders and links in those. Default: 200,000.
    pub entries: u64,
    /// Memory of all of its processes together where the kernel counts, of each of them elsewhere, in bytes. Default: 4 GiB.
    pub memory: u64,
    /// Processes at a time. Default: 1,024.
    pub processes: u64,
    /// Lines in the log; further ones are left out. Default: 20,000.
    pub log_lines: u64,
    /// Time between SIGTERM and SIGKILL of a step. Default: 5 seconds.
    pub grace: Duration,
    /// Limits of its output.
    pub output: OutputLimits,
}

impl Default for BuildLimits {
    fn default() -> Self {
        const GIB: u64 = 1024 * 1024 * 1024;
        Self {
            time: Duration::from_secs(900),
            size: 2 * GIB,
            entries: 200_000,
            memory: 4 * GIB,
            processes: 1_024,
            log_lines: 20_000,
            grace: Duration::from_secs(5),
            output: OutputLimits::default(),
        }
    }
}

/// The folder beside the source that is a build's `HOME` and `TMPDIR`.
const HOME: &str = "home";
/// The one that is its `/tmp`, where the kernel can give it one of its own.
const TEMPORARY: &str = "tmp";

/// How builds run; one per node.
#[derive(Debug, Clone)]
pub struct BuildSettings {
    /// How steps are started.
    pub launcher: Launcher,
    /// The command that packs a release, such as `["/proc/self/exe", "pack"]`; see [`crate::build::package::pack()`].
    pub packer: Vec<String>,
    /// The limits of every build.
    pub limits: BuildLimits,
    /// Variables of the node that builds see, by name; default: those of trusted certificates. A proxy or a package
    /// index with a password in its address is a secret; name it only when builds may see it.
    pub pass_through: Vec<String>,
    /// The user builds run as.
    pub run_as: Option<RunAs>,
}

impl BuildSettings {
    /// The defaults.
    #[must_use]
    pub fn new(launcher: Launcher, packer: Vec<String>) -> Self {
        let trust = ["SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT"];
        let pass_through = trust.map(str::to_owned).to_vec();
        Self { launcher, packer, limits: BuildLimits::default(), pass_through, run_as: None }
    }
}

/// A build that succeeded. Its result is the plan's root inside the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildReport {
    /// The size of its result.
    pub size: folder::Size,
    /// How long it took.
    pub took: Duration,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A step ended with an error.
    #[error("`{step}` failed: {reason}")]
    Failed {
        /// The command.
        step: String,
        /// How it ended.
        reason: String,
        /// The last lines of its own output.
        output: Vec<String>,
    },
    /// A program is not installed on this node.
    #[error(
        "`{program}` is not installed on this node, and this app needs it to build; ask its operator to install it"
    )]
    NotInstalled {
        /// Its name.
        program: String,
    },
    /// It took too long.
    #[error("the build did not end within {} seconds and was stopped; make it faster, or build before you deploy", .0.as_secs())]
    TimedOut(Duration),
    /// It used more than this memory, in bytes.
    #[error(
        "the build used more than its {} MiB of memory and was stopped; make it use less, or build before you deploy",
        .0 / 1_048_576
    )]
    OutOfMemory(u64),
    /// Its folders are too large, or it started too many processes.
    #[error("the build was stopped: {0}")]
    OverLimit(String),
    /// It was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
    /// The node's disk or processes failed.
    #[error("the build could not be run: {0}")]
    Io(#[from] io::Error),
}

/// The owner's variables, as a build has them.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    /// Value by name.
    pub(crate) values: BTreeMap<String, String>,
    /// Covers those that are secrets in the log.
    pub(crate) mask: Mask,
}

impl Variables {
    /// Those of a project.
    pub(crate) fn of(config: &Config) -> Self {
        let values = config.environment.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
        Self { values: values.collect(), mask: Mask::of(config) }
    }
}

/// Runs the steps of `plan` in `source`, the unpacked source.
///
/// `environment` has the owner's variables for builds, whose values the log does not show. Tools find in `cache` what a former
/// build has left, and leave there what the next one may use. Dropping the future ends the build.
///
/// The build's home and temporary files are in [`HOME`] beside the source. The caller removes both: there may be a
/// great many files in them.
///
/// # Errors
/// See [`BuildError`]. The folders are left as they are then.
pub(crate) async fn run_plan(
    plan: &Plan,
    source: &Path,
    environment: &Variables,
    cache: Option<&Taken>,
    settings: &BuildSettings,
    sink: &LineSink,
    cancel: &CancellationToken,
) -> Result<BuildReport, BuildError> {
    let started = Instant::now();
    let app = source.join(&plan.root);
    let Variables { values: environment, mask } = environment;
    let (sink, _left_out) = bounded(&mask.before(sink), settings.limits.log_lines);
    for reason in &plan.reasons {
        sink.say(reason.clone());
    }
    // Beside the source, so that it is on the same disk and not in the release.
    let home = source.parent().unwrap_or(source).join(HOME);
    let temporary = source.parent().unwrap_or(source).join(TEMPORARY);
    let (own, user) = (vec![source.to_owned(), home.clone(), temporary.clone()], settings.run_as);
    let (made, given) = ([home.clone(), temporary.clone()], source.to_owned());
    pools::io(&settings.launcher.pools.archives, move || {
        made.iter().try_for_each(|made| folder::make_private(made, &[], user))?;
        user.map_or(Ok(()), |user| folder::give(&given, user))
    })
    .await?;
    if let Some(taken) = cache.cloned() {
        let (app, kept) = (app.clone(), plan.cache.clone());
        let restore = move || taken.restore(&app, &kept, user);
        let restored = pools::io(&settings.launcher.pools.archives, restore).await?;
        if restored > 0 {
            sink.say(format!("{restored} folders are as the last build has left them"));
        }
    }
    if !plan.steps.is_empty() {
        let limits = &settings.limits;
        sink.say(format!(
            "the build may take {} minutes, {} MiB of memory and {} MiB of disk",
            limits.time.as_secs().div_ceil(60),
            limits.memory / 1_048_576,
            limits.size / 1_048_576
        ));
    }
    let build = Execution {
        settings,
        environment: variables(plan, &app, environment, cache, settings, &home),
        app: &app,
        own,
        temporary,
        cache: cache.map(|taken| taken.folder.clone()),
        mask: mask.clone(),
        sink,
        cancel,
        deadline: started + settings.limits.time,
    };
    for step in &plan.steps {
        build.step(step).await?;
    }
    let size = build.size().await?;
    Ok(BuildReport { size, took: started.elapsed() })
}

struct Execution<'a> {
    settings: &'a BuildSettings,
    environment: Vec<(OsString, OsString)>,
    app: &'a Path,
    own: Vec<PathBuf>,
    /// Its `/tmp`, where the kernel can.
    temporary: PathBuf,
    /// The folder of the cache, which counts for itself.
    cache: Option<PathBuf>,
    mask: Mask,
    sink: LineSink,
    cancel: &'a CancellationToken,
    deadline: Instant,
}

impl Execution<'_> {
    async fn step(&self, step: &Step) -> Result<(), BuildError> {
        let limits = &self.settings.limits;
        self.sink.say(step.title.clone());
        let shown = step.command.shown();
        self.sink.say(format!("$ {shown}"));
        let argv: Vec<OsString> = step.command.argv(&[]).into_iter().map(OsString::from).collect();
        let tail = Arc::new(Mutex::new(LastLines::default()));
        let sink = self.mask.before(&LineSink::new({
            let (tail, sink) = (tail.clone(), self.sink.clone());
            move |line| {
                if line.stream != Stream::System {
                    tail.lock().push(&line.text);
                }
                sink.pass(line);
            }
        }));
        let launcher = &self.settings.launcher;
        // Where the kernel does not count memory, this limits how far one process can grow between two measurements.
        let data = (!launcher.cgroups.limits_memory()).then(|| limits.memory.saturating_add(limits.memory / 4));
        let program = Program {
            id: Uuid::now_v7(),
            launch: Launch {
                open_files: 16_384,
                file_size: limits.size,
                data,
                run_as: self.settings.run_as,
                folder: self.app.to_owned(),
                own: self.own.iter().chain(&self.cache).cloned().collect(),
                temporary: Some(self.temporary.clone()),
                within: self.temporary.parent().map(Path::to_owned),
                nice: Share::Builds.nice(),
                ..Launch::default()
            },
            limits: CgroupLimits {
                processes: limits.processes,
                memory: limits.memory,
                cpus: None,
                share: Share::Builds,
            },
            argv: argv.clone(),
            environment: self.environment.clone(),
            streams: Streams::default(),
        };
        let job =
            Job { launcher, program, deadline: self.deadline, output: limits.output.clone(), grace: limits.grace };
        let check = (Duration::from_secs(2), self.size_check());
        let failed = |reason: String| BuildError::Failed { step: shown.clone(), reason, output: tail.lock().lines() };
        match run(job, &sink, self.cancel, Some(check)).await? {
            End::Exited(Ended { how: How::Status(0), .. }) => Ok(()),
            End::Exited(Ended { how: How::Status(status), .. })
                if status == i32::from(NOT_FOUND) && is_missing(&argv, &tail.lock()) =>
            {
                let program = argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                Err(BuildError::NotInstalled { program })
            }
            End::Exited(ended) => Err(failed(match ended.how {
                // SIGXFSZ, and its exit status in a shell.
                How::Status(153) | How::Signal(25) => {
                    format!("it wrote a file larger than {} MiB", limits.size / 1_048_576)
                }
                How::Status(status) => format!("it ended with status {status}"),
                How::Signal(signal) => format!("it was killed by signal {signal}"),
                How::Lost => "the process that supervises it was killed".to_owned(),
            })),
            End::OutOfMemory => Err(BuildError::OutOfMemory(limits.memory)),
            End::TooManyProcesses => {
                Err(BuildError::OverLimit(format!("it started more than {} processes at a time", limits.processes)))
            }
            End::TimedOut => Err(BuildError::TimedOut(limits.time)),
            End::Cancelled => Err(BuildError::Cancelled),
            End::Refused(sentence) => Err(BuildError::OverLimit(sentence)),
        }
    }

    fn size_check(&self) -> Check {
        let (own, cache, limits) = (self.own.clone(), self.cache.clone(), self.settings.limits.clone());
        Arc::new(move || {
            let cached = cache.as_ref().map(|folder| folder::measure(folder, limits.size, limits.entries));
            if cached.is_some_and(|size| size.bytes > limits.size || size.entries > limits.entries) {
                let (mib, entries) = (limits.size / 1_048_576, limits.entries);
                return Some(format!("it keeps more than {mib} MiB or {entries} files in the build cache of the app"));
            }
            let mut kept = folder::Size::default();
            for folder in &own {
                let (bytes, entries) =
                    (limits.size.saturating_sub(kept.bytes), limits.entries.saturating_sub(kept.entries));
                let size = folder::measure(folder, bytes, entries);
                kept.bytes = kept.bytes.saturating_add(size.bytes);
                kept.entries = kept.entries.saturating_add(size.entries);
            }
            over_limit(kept, &limits)
        })
    }

    /// The size of the app's folder, if all folders of the build are within the limits.
    async fn size(&self) -> Result<folder::Size, BuildError> {
        let (app, limits, check) = (self.app.to_owned(), self.settings.limits.clone(), self.size_check());
        let measure = move || Ok((check(), folder::measure(&app, limits.size, limits.entries)));
        match pools::io(&self.settings.launcher.pools.measures, measure).await? {
            (Some(sentence), _) => Err(BuildError::OverLimit(sentence)),
            (None, size) => Ok(size),
        }
    }
}

/// Why a build of this size is refused; `None` when it is within the limits.
pub(crate) fn too_large(size: folder::Size, limits: &BuildLimits) -> Option<String> {
    if size.bytes > limits.size {
        let limit = limits.size / 1_048_576;
        return Some(format!("the built app is larger than {limit} MiB; remove what it does not need to run"));
    }
    (size.entries > limits.entries)
        .then(|| format!("the built app has more than {} files; remove what it does not need to run", limits.entries))
}

fn over_limit(kept: folder::Size, limits: &BuildLimits) -> Option<String> {
    if kept.bytes > limits.size {
        let limit = limits.size / 1_048_576;
        return Some(format!(
            "it keeps more than {limit} MiB, the source, HOME and TMPDIR included; remove what the app does not need to run"
        ));
    }
    (kept.entries > limits.entries).then(|| {
        let limit = limits.entries;
        format!("it keeps more than {limit} files, the source, HOME and TMPDIR included; remove what the app does not need to run")
    })
}

/// Whether exit status 127 means that the step's own program was missing, and not one that it called.
fn is_missing(argv: &[OsString], tail: &LastLines) -> bool {
    let program = argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    tail.lines()
        .iter()
        .any(|line| line.starts_with("callboard: the program `") && line.contains(&format!("`{program}`")))
}

fn variables(
    plan: &Plan,
    app: &Path,
    own: &BTreeMap<String, String>,
    cache: Option<&Taken>,
    settings: &BuildSettings,
    home: &Path,
) -> Vec<(OsString, OsString)> {
    let mut all = plan.environment.variables(app, &settings.launcher.path);
    // With it npm would leave out build dependencies.
    all.remove("NODE_ENV");
    let home = home.display().to_string();
    for (name, value) in [("LANG", "C.UTF-8"), ("CI", "true"), ("HOME", &home), ("TMPDIR", &home), ("NO_COLOR", "1")] {
        all.insert(name.to_owned(), value.to_owned());
    }
    all.extend(cache.into_iter().flat_map(|taken| taken.variables(is_locked(plan))));
    all.extend(settings.pass_through.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?))));
    all.extend(own.iter().filter(|(name, _)| !is_platform_variable(name)).map(|(n, v)| (n.clone(), v.clone())));
    all.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// Whether the versions of what is installed are fixed, so that a tool need not ask whether there are newer ones.
fn is_locked(plan: &Plan) -> bool {
    const FIXED: [&str; 4] = ["ci", "clean-install", "--frozen-lockfile", "--immutable"];
    plan.steps.iter().any(|step| step.command.argv(&[]).iter().any(|word| FIXED.contains(&word.as_str())))
}

#[cfg(test)]
mod tests;
