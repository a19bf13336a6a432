//! Why no plan could be made.

use std::io;

/// Why no plan could be made. Each sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// No file that detection knows.
    #[error(
        "nothing in {folder} tells what this app is; looked for callboard.toml, Procfile, package.json, \
         requirements.txt, pyproject.toml, Pipfile, setup.py, manage.py, main.py, app.py, go.mod, Cargo.toml, Gemfile, \
         composer.json, index.php, deno.json, pom.xml, build.gradle and index.html (also in public/ and dist/). Add one \
         of them, or set a start command. Found: {found}"
    )]
    NothingRecognized {
        /// The folder that was searched.
        folder: String,
        /// The files found instead.
        found: String,
    },
    /// Only a Dockerfile.
    #[error(
        "this app has only a Dockerfile, and this node runs apps as processes, without a container engine; add a \
         Procfile with the command of its CMD, such as `web: ./server`, and what builds it, or deploy it to a node \
         with a container runtime"
    )]
    DockerfileOnly,
    /// The build is known, but not what to run.
    #[error("{0}")]
    NoProcess(String),
    /// What runs is known, and may not or can't run here.
    #[error("{0}")]
    Refused(String),
    /// A tool that the plan needs is not on this node.
    #[error("`{file}`: {tool} is not installed on this node; {get}")]
    NotInstalled {
        /// The file that decided.
        file: String,
        /// The tool's name for people.
        tool: &'static str,
        /// How to get it.
        get: String,
    },
    /// No installed version is the one that the app asks for.
    #[error("{by} asks for {tool} {asked}, and this node has {installed}; {get}, or ask for a version that is there")]
    NoSuchVersion {
        /// What asks, such as "`.nvmrc`".
        by: String,
        /// The tool's name for people.
        tool: &'static str,
        /// The version that is asked for.
        asked: String,
        /// The installed ones.
        installed: String,
        /// How to get another.
        get: String,
    },
    /// A file of the app is malformed.
    #[error("{file} can't be used: {reason}")]
    BadFile {
        /// Its name.
        file: String,
        /// What is wrong and how to mend it.
        reason: String,
    },
    /// The build configuration is wrong.
    #[error("the build configuration can't be used: {0}")]
    BadConfig(String),
    /// Reading the source failed.
    #[error("the app could not be looked at: {0}")]
    Io(#[from] io::Error),
}

impl DetectError {
    pub(super) fn bad(file: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::BadFile { file: file.into(), reason: reason.into() }
    }

    /// Whether it is about what the owner's own commands could do without.
    pub(super) const fn is_about_tools(&self) -> bool {
        matches!(self, Self::NotInstalled { .. } | Self::NoSuchVersion { .. } | Self::Refused(_) | Self::NoProcess(_))
    }
}
