//! Fetches a git repository that a stranger names.
//!
//! The system's `git` does it, as a child of its own with nothing but what is written here: no configuration of the
//! machine or the user, no hooks, no filters, no submodules, no prompts, no redirects, one protocol, one address.
//! The address is resolved and judged by us and pinned for git, so that a second look-up can't give another one.

mod address;
mod source;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use callboard_supervisors::fs;
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::source::{Allowed, allow};
pub use self::{
    address::is_public,
    source::{GitSource, Resolve, system_resolver},
};
use crate::{
    archive::{LinkError, check_links},
    folder,
    limits::{Launch, NOT_FOUND},
    output::{Line, LineSink, OutputLimits, Stream},
    pools,
    process::{CgroupLimits, Check, End, Ended, How, Job, Launcher, Program, Streams, run},
};

/// What git may use, and how many processes it may have.
const MEMORY: u64 = 2 * 1024 * 1024 * 1024;
const PROCESSES: u64 = 256;
/// The folders beside the target that are git's home and, in the end, its repository.
const HOME: &str = "git-home";
const REPOSITORY: &str = "git";

/// How sources are fetched.
#[derive(Clone)]
pub struct FetchSettings {
    /// How git is started.
    pub launcher: Launcher,
    /// Whether http:// and private addresses are allowed. For development only; false unless told.
    pub allow_private_sources: bool,
    /// For the whole of it. 5 minutes unless told.
    pub time_limit: Duration,
    /// The repository and its files together, in bytes. 1 GiB unless told.
    pub size_limit: u64,
    /// Files and folders. 50,000 unless told, and as many again for git's own.
    pub entry_limit: u64,
    /// More variables for git, such as `GIT_SSL_CAINFO`.
    pub environment: Vec<(String, String)>,
    /// How names are resolved.
    pub resolve: Resolve,
}

impl FetchSettings {
    /// The defaults.
    #[must_use]
    pub fn new(launcher: Launcher) -> Self {
        Self {
            launcher,
            allow_private_sources: false,
            time_limit: Duration::from_secs(300),
            size_limit: 1024 * 1024 * 1024,
            entry_limit: 50_000,
            environment: Vec::new(),
            resolve: system_resolver(),
        }
    }
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The full id.
    pub id: String,
    /// The first line of its message.
    pub subject: String,
}

/// Why a repository was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The address is not allowed.
    #[error("`{url}` can't be fetched: {reason}")]
    Refused {
        /// As given, without a password.
        url: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// Not the name of a branch, tag or commit.
    #[error("`{0}` is not the name of a branch, a tag or a commit")]
    BadReference(String),
    /// No such host.
    #[error("the host `{host}` was not found ({error}); check the address")]
    Unresolved {
        /// Its name.
        host: String,
        /// Why.
        error: io::Error,
    },
    /// There is no git, or an old one.
    #[error("{0}")]
    NoGit(String),
    /// No such repository, or not a public one.
    #[error("there is no public repository at {0}; check the address, or upload an archive of a private one")]
    NotFound(String),
    /// The host wants us to go elsewhere.
    #[error("{0} sends us to another address, which is not followed; use the repository's own address")]
    Redirected(String),
    /// No such branch, tag or commit.
    #[error("the repository has no branch, tag or reachable commit `{0}`")]
    NoReference(String),
    /// Its links lead out.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It is too large.
    #[error("{0}")]
    TooLarge(String),
    /// It took too long.
    #[error("the repository was not fetched within {} seconds; try again, or upload an archive", .0.as_secs())]
    TimedOut(Duration),
    /// Somebody cancelled it.
    #[error("fetching was cancelled")]
    Cancelled,
    /// git failed otherwise.
    #[error("git could not fetch the repository: {0}")]
    Failed(String),
    /// Our own disk or processes.
    #[error("the repository could not be fetched: {0}")]
    Io(#[from] io::Error),
}

/// Fetches `source` into `target`, which must not be there or be empty: the files of one commit, without `.git`.
///
/// What git says goes to `sink`. Dropping the future ends git. What git itself needs is left beside the target, where there
/// must be nothing else; all of it is the caller's to remove.
///
/// # Errors
/// See [`FetchError`].
pub async fn clone(
    source: &GitSource,
    target: &Path,
    settings: &FetchSettings,
    sink: &LineSink,
    cancel: &CancellationToken,
) -> Result<Commit, FetchError> {
    let allowed = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(FetchError::Cancelled),
        allowed = allow(source, settings.allow_private_sources, &settings.resolve) => allowed?,
    };
    let pool = &settings.launcher.pools;
    let beside = target.parent().unwrap_or(target);
    let (home, repository) = (beside.join(HOME), beside.join(REPOSITORY));
    let folders = (target.to_owned(), home.clone());
    pools::io(&pool.prompt, move || {
        let (target, home) = folders;
        if fs::read_dir(&target).is_ok_and(|mut entries| entries.next().is_some()) {
            let message = format!("{} is not empty", target.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        fs::create_dir_all(&target)?;
        folder::make_private(&home, &[], None)
    })
    .await?;
    let git =
        Git { settings, allowed, home: &home, target, sink, cancel, deadline: Instant::now() + settings.time_limit };
    let commit = git.fetch().await?;
    let target = target.to_owned();
    let checked = pools::io(&pool.archives, move || {
        fs::rename(target.join(".git"), repository)?;
        Ok(check_links(&target))
    });
    checked.await??;
    Ok(commit)
}

struct Git<'a> {
    settings: &'a FetchSettings,
    allowed: Allowed,
    home: &'a Path,
    target: &'a Path,
    sink: &'a LineSink,
    cancel: &'a CancellationToken,
    deadline: Instant,
}

impl Git<'_> {
    async fn fetch(&self) -> Result<Commit, FetchError> {
        let version = self.git(&["--version"], false).await?;
        check_version(version.first().map_or("", String::as_str), self.settings.allow_private_sources)?;

        // An empty template: no hooks, no info/attributes.
        self.git(&["init", "--quiet", "--template="], true).await?;
        let reference = self.allowed.reference.as_deref().unwrap_or("HEAD");
        self.sink.say(format!("Fetching {} at {reference}", self.allowed.url));
        let fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-auto-gc", "--"];
        self.git(&[&fetch[..], &[self.allowed.url.as_str(), reference]].concat(), true).await?;
        self.git(&["checkout", "--quiet", "--force", "--no-recurse-submodules", "--detach", "FETCH_HEAD"], true)
            .await?;
        let lines = self.git(&["log", "-1", "--no-show-signature", "--format=%H%n%s"], false).await?;
        let mut lines = lines.into_iter();
        let id = lines.next().filter(|id| id.len() >= 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let id = id.ok_or_else(|| FetchError::Failed("it fetched no commit".to_owned()))?;
        Ok(Commit { id, subject: lines.next().unwrap_or_default() })
    }

    /// Runs git and returns its standard output; standard error is passed on and kept for the error.
    async fn git(&self, arguments: &[&str], tell: bool) -> Result<Vec<String>, FetchError> {
        let said: Arc<Mutex<Vec<Line>>> = Arc::default();
        let sink = LineSink::new({
            let (said, sink) = (said.clone(), self.sink.clone());
            move |line| {
                let mut said = said.lock();
                if said.len() < 100 {
                    said.push(line.clone());
                }
                drop(said);
                if tell {
                    sink.pass(line);
                }
            }
        });
        let argv: Vec<OsString> = std::iter::once("git".to_owned())
            .chain(self.configuration().into_iter().flat_map(|setting| ["-c".to_owned(), setting]))
            .chain(arguments.iter().map(|argument| (*argument).to_owned()))
            .map(OsString::from)
            .collect();
        let program = Program {
            id: Uuid::now_v7(),
            launch: Launch {
                file_size: self.settings.size_limit,
                data: Some(MEMORY),
                folder: self.target.to_owned(),
                own: vec![self.target.to_owned(), self.home.to_owned()],
                ..Launch::default()
            },
            limits: CgroupLimits { processes: PROCESSES, memory: MEMORY, cpus: None },
            argv,
            environment: self.environment(),
            streams: Streams::default(),
        };
        let job = Job {
            launcher: &self.settings.launcher,
            program,
            deadline: self.deadline,
            output: OutputLimits::default(),
            grace: Duration::from_secs(2),
        };
        let end = run(job, &sink, self.cancel, Some((Duration::from_millis(300), self.size_check()))).await?;
        let said = std::mem::take(&mut *said.lock());
        let of = |stream| {
            let lines = said.iter().filter(move |line| line.stream == stream);
            lines.map(|line| line.text.clone()).collect::<Vec<_>>()
        };
        match end {
            End::Exited(Ended { how: How::Status(0), .. }) => match self.too_large().await? {
                Some(sentence) => Err(FetchError::TooLarge(sentence)),
                None => Ok(of(Stream::Stdout)),
            },
            End::Exited(Ended { how: How::Status(status), .. }) if status == i32::from(NOT_FOUND) => {
                Err(FetchError::NoGit("git is not installed on this node; install it (apt install git)".to_owned()))
            }
            End::Exited(ended) => {
                let said = of(Stream::Stderr);
                let cut = ended.how == How::Signal(Signal::SIGXFSZ as i32)
                    || said.iter().any(|line| line.contains("signal 25") || line.contains("File too large"));
                let sentence = cut.then(|| {
                    format!("a file of the repository is larger than {} MiB", self.settings.size_limit / 1_048_576)
                });
                let sentence = match sentence {
                    Some(sentence) => Some(sentence),
                    None => self.too_large().await?,
                };
                Err(sentence.map_or_else(|| self.explain(&said), FetchError::TooLarge))
            }
            End::OutOfMemory => {
                Err(FetchError::TooLarge(format!("git used more than {} MiB of memory", MEMORY / 1_048_576)))
            }
            End::TooManyProcesses => Err(FetchError::Failed(format!("it started more than {PROCESSES} processes"))),
            End::TimedOut => Err(FetchError::TimedOut(self.settings.time_limit)),
            End::Cancelled => Err(FetchError::Cancelled),
            End::Refused(sentence) => Err(FetchError::TooLarge(sentence)),
        }
    }

    fn configuration(&self) -> Vec<String> {
        let mut settings: Vec<String> = [
            "protocol.allow=never",
            "protocol.https.allow=always",
            "http.followRedirects=false",
            "http.lowSpeedLimit=1000",
            "http.lowSpeedTime=30",
            "http.proxy=",
            "credential.helper=",
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "core.attributesFile=/dev/null",
            "core.askPass=/bin/false",
            "core.autocrlf=false",
            "core.protectHFS=true",
            "core.protectNTFS=true",
            "fetch.fsckObjects=true",
            "transfer.fsckObjects=true",
            "fetch.recurseSubmodules=false",
            "submodule.recurse=false",
            "gc.auto=0",
            "maintenance.auto=false",
            "advice.detachedHead=false",
            "init.defaultBranch=main",
        ]
        .map(str::to_owned)
        .to_vec();
        if self.settings.allow_private_sources {
            settings.push("protocol.http.allow=always".to_owned());
        }
        settings.extend(self.allowed.pin.as_ref().map(|pin| format!("http.curloptResolve={pin}")));
        settings
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let protocols = if self.settings.allow_private_sources { "https:http" } else { "https" };
        let home = self.home.as_os_str();
        let fixed = [
            ("HOME", home),
            ("TMPDIR", home),
            ("XDG_CONFIG_HOME", home),
            ("LANG", "C.UTF-8".as_ref()),
            ("LC_ALL", "C.UTF-8".as_ref()),
            ("GIT_CONFIG_NOSYSTEM", "1".as_ref()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".as_ref()),
            ("GIT_ATTR_NOSYSTEM", "1".as_ref()),
            ("GIT_TERMINAL_PROMPT", "0".as_ref()),
            ("GIT_ASKPASS", "/bin/false".as_ref()),
            ("SSH_ASKPASS", "/bin/false".as_ref()),
            ("GIT_SSH_COMMAND", "/bin/false".as_ref()),
            ("GIT_LFS_SKIP_SMUDGE", "1".as_ref()),
            ("GIT_ALLOW_PROTOCOL", protocols.as_ref()),
            // Whatever git finds above the folder is not its repository.
            ("GIT_CEILING_DIRECTORIES", self.target.parent().unwrap_or(self.target).as_os_str()),
        ];
        let own = self.settings.environment.iter().map(|(name, value)| (name.into(), value.into()));
        own.chain(fixed.into_iter().map(|(name, value)| (name.into(), value.into()))).collect()
    }

    async fn too_large(&self) -> io::Result<Option<String>> {
        let check = self.size_check();
        pools::io(&self.settings.launcher.pools.measures, move || Ok(check())).await
    }

    fn size_check(&self) -> Check {
        let (bytes, entries): (u64, u64) = (self.settings.size_limit, self.settings.entry_limit);
        let target: PathBuf = self.target.to_owned();
        Arc::new(move || {
            let size = folder::measure(&target, bytes, entries.saturating_mul(2));
            if size.bytes > bytes {
                return Some(format!("the repository is larger than {} MiB; make it smaller", bytes / 1_048_576));
            }
            (size.entries > entries.saturating_mul(2)).then(|| format!("the repository has more than {entries} files"))
        })
    }

    fn explain(&self, said: &[String]) -> FetchError {
        let url = self.allowed.url.to_string();
        let text = said.join("; ");
        let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        if has(&["couldn't find remote ref", "not our ref", "unadvertised object"]) {
            return FetchError::NoReference(self.allowed.reference.clone().unwrap_or_else(|| "HEAD".to_owned()));
        }
        if has(&["returned error: 30", "redirect"]) {
            return FetchError::Redirected(url);
        }
        let private = ["not found", "returned error: 404", "returned error: 401", "returned error: 403"];
        if has(&private) || has(&["could not read Username", "Authentication failed"]) {
            return FetchError::NotFound(url);
        }
        FetchError::Failed(if text.is_empty() { "it gave no reason".to_owned() } else { text })
    }
}

/// `http.curloptResolve` came with 2.37; an older git would ignore it and resolve the name once more.
fn check_version(line: &str, private: bool) -> Result<(), FetchError> {
    let version = line.strip_prefix("git version ").unwrap_or_default();
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if found >= (2, 37) || private {
        return Ok(());
    }
    Err(FetchError::NoGit(format!("this node has git {version}; fetching needs 2.37 or newer, so install a newer git")))
}
