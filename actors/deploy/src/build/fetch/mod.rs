//! Fetches a git repository from an address that a tenant names.
//!
//! The system's `git` does it, as a child with only the configuration written here: none of the machine or the user, no
//! hooks, no filters, no prompts, no redirects, one protocol, one address. The node resolves and judges the address and
//! pins it for git, so that a second look-up can't give another one. Submodules are fetched by the node too, each as a
//! repository by the same rules: git itself would take their configuration from the repository.

mod address;
mod git;
mod source;
mod submodules;
#[cfg(test)]
mod tests;

use std::{io, path::Path, time::Duration};

use callboard_supervisors::fs;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::{
    address::is_public,
    source::{GitSource, Resolve, system_resolver},
};
use self::{git::Git, source::allow};
use crate::{
    build::archive::{LinkError, check_links},
    folder,
    logs::output::LineSink,
    pools,
    process::Launcher,
};

/// The folder beside the target that is git's home.
const HOME: &str = "git-home";
/// Prefix of the folder of each repository's `.git`, beside the target: removing it is not awaited.
const REPOSITORY: &str = "git-";

/// How sources are fetched.
#[derive(Clone)]
pub struct FetchSettings {
    /// How git is started.
    pub launcher: Launcher,
    /// Whether http:// and private addresses are allowed. For development only; default: false.
    pub allow_private_sources: bool,
    /// Time limit of the whole fetch. Default: 5 minutes.
    pub time_limit: Duration,
    /// The repository and its files together, in bytes. Default: 1 GiB.
    pub size_limit: u64,
    /// Files and folders. Default: 50,000, and as many again for git's own.
    pub entry_limit: u64,
    /// Additional variables for git, such as `GIT_SSL_CAINFO`.
    pub environment: Vec<(String, String)>,
    /// The resolver of host names.
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

/// The commit that was fetched.
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
        /// The address as given, without a password.
        url: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Not the name of a branch, tag or commit.
    #[error("`{0}` is not the name of a branch, a tag or a commit")]
    BadReference(String),
    /// The host name has no address.
    #[error("the host `{host}` was not found ({error}); check the address")]
    Unresolved {
        /// Its name.
        host: String,
        /// Why.
        error: io::Error,
    },
    /// git is missing or too old.
    #[error("{0}")]
    NoGit(String),
    /// No such repository, or not a public one.
    #[error("there is no public repository at {0}; check the address, or upload an archive of a private one")]
    NotFound(String),
    /// The host redirects.
    #[error("{0} sends us to another address, which is not followed; use the repository's own address")]
    Redirected(String),
    /// No such branch, tag or commit.
    #[error("the repository has no branch, tag or reachable commit `{0}`")]
    NoReference(String),
    /// A submodule failed for a reason that may pass; one that will not is reported in the log instead.
    #[error("the submodule `{path}`: {error}")]
    Submodule {
        /// Its path in the repository.
        path: String,
        /// Why.
        error: Box<FetchError>,
    },
    /// A link leads out of the repository.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The repository is too large.
    #[error("{0}")]
    TooLarge(String),
    /// The fetch took too long.
    #[error("the repository was not fetched within {} seconds; try again, or upload an archive", .0.as_secs())]
    TimedOut(Duration),
    /// It was cancelled.
    #[error("fetching was cancelled")]
    Cancelled,
    /// git failed otherwise.
    #[error("git could not fetch the repository: {0}")]
    Failed(String),
    /// Our own disk or processes failed.
    #[error("the repository could not be fetched: {0}")]
    Io(#[from] io::Error),
}

/// Fetches `source` into `target`, which must not exist or be empty: the files of one commit and of its submodules,
/// without `.git`. Submodules that can't be fetched are named in the log.
///
/// git's standard error goes to `sink`. Dropping the future ends git. Its working files are left beside the target,
/// where there must be nothing else; the caller removes all of it.
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
    let beside = target.parent().unwrap_or(target).to_owned();
    let home = beside.join(HOME);
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
    let git = Git {
        settings,
        allowed,
        home: &home,
        target,
        folder: target.to_owned(),
        sink,
        cancel,
        deadline: Instant::now() + settings.time_limit,
    };
    git.check_version().await?;
    let commit = git.fetch().await?;
    let mut repositories = submodules::fetch(&git).await?;
    repositories.push(target.to_owned());
    let target = target.to_owned();
    let checked = pools::io(&pool.archives, move || {
        for (number, repository) in repositories.iter().enumerate() {
            fs::rename(repository.join(".git"), beside.join(format!("{REPOSITORY}{number}")))?;
        }
        Ok(check_links(&target))
    });
    checked.await??;
    Ok(commit)
}
