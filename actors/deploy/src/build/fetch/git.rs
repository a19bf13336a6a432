//! The system's `git`, confined for untrusted repositories.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::signal::Signal;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Commit, FetchError, FetchSettings, source::Allowed};
use crate::{
    folder,
    logs::{
        output::{LineSink, OutputLimits},
        terminal::plain,
    },
    pools,
    process::{
        CgroupLimits, Check, End, Ended, How, Job, Program, Share, Streams, run,
        trampoline::{Launch, NOT_FOUND},
    },
};

/// Limits of git: memory in bytes, and processes.
const MEMORY: u64 = 2 * 1024 * 1024 * 1024;
const PROCESSES: u64 = 256;
/// Lines of standard error kept for the reason of a failure.
const SAID_LINES: usize = 100;
/// Largest output of git, in bytes: the list of a repository's files.
const ANSWER_BYTES: u64 = 32 * 1024 * 1024;

/// A repository that is being fetched.
pub(super) struct Git<'a> {
    pub(super) settings: &'a FetchSettings,
    pub(super) allowed: Allowed,
    pub(super) home: &'a Path,
    /// The folder below which everything is fetched.
    pub(super) target: &'a Path,
    /// The folder of this repository's files.
    pub(super) folder: PathBuf,
    pub(super) sink: &'a LineSink,
    pub(super) cancel: &'a CancellationToken,
    pub(super) deadline: Instant,
}

impl Git<'_> {
    /// Another repository, below the same folder and with the same limits.
    pub(super) fn at(&self, folder: PathBuf, allowed: Allowed) -> Self {
        Self { allowed, folder, ..*self }
    }

    pub(super) async fn check_version(&self) -> Result<(), FetchError> {
        let version = self.git(&["--version"], false).await?;
        let version = String::from_utf8_lossy(&version);
        check_version(version.lines().next().unwrap_or_default(), self.settings.allow_private_sources)
    }

    /// Fetches one commit and puts its files into the folder.
    pub(super) async fn fetch(&self) -> Result<Commit, FetchError> {
        // An empty template: no hooks, no info/attributes.
        self.git(&["init", "--quiet", "--template="], true).await?;
        let reference = self.allowed.reference.as_deref().unwrap_or("HEAD");
        self.sink.say(format!("Fetching {} at {reference}", self.allowed.url));
        let fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-auto-gc", "--"];
        self.git(&[&fetch[..], &[self.allowed.url.as_str(), reference]].concat(), true).await?;
        self.git(&["checkout", "--quiet", "--force", "--no-recurse-submodules", "--detach", "FETCH_HEAD"], true)
            .await?;
        let said = self.git(&["log", "-1", "--no-show-signature", "--format=%H%n%s"], false).await?;
        let said = String::from_utf8_lossy(&said);
        let mut lines = said.lines();
        let id = lines.next().filter(|id| id.len() >= 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let id = id.ok_or_else(|| FetchError::Failed("it fetched no commit".to_owned()))?;
        Ok(Commit { id: id.to_owned(), subject: plain(lines.next().unwrap_or_default()) })
    }

    /// Runs git and returns its standard output. Standard error is kept for the error, and passed to the log if `tell`.
    pub(super) async fn git(&self, arguments: &[&str], tell: bool) -> Result<Vec<u8>, FetchError> {
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = LineSink::new({
            let (said, sink) = (said.clone(), self.sink.clone());
            move |line| {
                let mut said = said.lock();
                if said.len() < SAID_LINES {
                    said.push(plain(&line.text));
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
        // Standard output goes to a file as bytes, not as lines of a log.
        let (threads, home) = (&self.settings.launcher.pools, self.home.to_owned());
        #[expect(clippy::disallowed_methods, reason = "on a thread that may wait")]
        let answer = pools::io(&threads.prompt, move || tempfile::tempfile_in(home)).await?;
        let program = Program {
            id: Uuid::now_v7(),
            launch: Launch {
                file_size: self.settings.size_limit,
                data: Some(MEMORY),
                folder: self.folder.clone(),
                own: vec![self.target.to_owned(), self.home.to_owned()],
                ..Launch::default()
            },
            limits: CgroupLimits { processes: PROCESSES, memory: MEMORY, cpus: None, share: Share::Builds },
            argv,
            environment: self.environment(),
            streams: Streams { stdout: Some(answer.try_clone()?.into()), ..Streams::default() },
        };
        let job = Job {
            launcher: &self.settings.launcher,
            program,
            deadline: self.deadline,
            output: OutputLimits::default(),
            grace: Duration::from_secs(2),
        };
        let check = (Duration::from_millis(300), self.size_check());
        let end = run(job, &sink, self.cancel, Some(check)).await?;
        let said = std::mem::take(&mut *said.lock());
        match end {
            End::Exited(Ended { how: How::Status(0), .. }) => match self.too_large().await? {
                Some(sentence) => Err(FetchError::TooLarge(sentence)),
                None => pools::io(&threads.prompt, move || Ok(read(answer))).await?,
            },
            End::Exited(Ended { how: How::Status(status), .. }) if status == i32::from(NOT_FOUND) => {
                Err(FetchError::NoGit("git is not installed on this node; install it (apt install git)".to_owned()))
            }
            End::Exited(Ended { how: How::Lost, .. }) => {
                Err(FetchError::Failed("the process that supervises it was killed".to_owned()))
            }
            End::Exited(ended) => {
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
            // A repository that git finds above the folder is not this one.
            ("GIT_CEILING_DIRECTORIES", self.folder.parent().unwrap_or(self.target).as_os_str()),
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

/// Reads git's standard output.
fn read(mut answer: File) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    answer.rewind()?;
    answer.take(ANSWER_BYTES).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        ANSWER_BYTES => Err(FetchError::TooLarge("the repository has too many files".to_owned())),
        _ => Ok(bytes),
    }
}

/// `http.curloptResolve` came with 2.37; an older git would ignore it and resolve the name again.
pub(super) fn check_version(line: &str, private: bool) -> Result<(), FetchError> {
    let version = line.strip_prefix("git version ").unwrap_or_default();
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if found >= (2, 37) || private {
        return Ok(());
    }
    Err(FetchError::NoGit(format!("this node has git {version}; fetching needs 2.37 or newer, so install a newer git")))
}
