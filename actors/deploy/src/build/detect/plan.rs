//! The plan of an app: how it is built and what of it runs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use callboard_messages::project::{BuildConfig, StaticOptions};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::WEB;

/// The language of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// Node.js.
    Node,
    /// Python.
    Python,
    /// Go.
    Go,
    /// Rust.
    Rust,
    /// Ruby.
    Ruby,
    /// PHP.
    Php,
    /// Deno.
    Deno,
    /// Java and other languages of its virtual machine.
    Java,
    /// Files only.
    Static,
    /// A `Procfile`, or the owner's own commands.
    Other,
}

impl Language {
    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "Node.js",
            Self::Python => "Python",
            Self::Go => "Go",
            Self::Rust => "Rust",
            Self::Ruby => "Ruby",
            Self::Php => "PHP",
            Self::Deno => "Deno",
            Self::Java => "Java",
            Self::Static => "static site",
            Self::Other => "own commands",
        }
    }
}

/// How an app is built and what of it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The language of the app.
    pub language: Language,
    /// The app's folder inside the source; empty for the source itself. This folder becomes the release.
    pub root: PathBuf,
    /// The steps of the build, in order.
    pub steps: Vec<Step>,
    /// The commands to run, by process type. `web` is the one that listens on `PORT`.
    pub processes: IndexMap<String, Command>,
    /// Variables of its processes besides the owner's.
    pub environment: RunEnvironment,
    /// Runs once before the rollout, with the release's variables; its failure fails the deployment.
    #[serde(default)]
    pub release: Option<Command>,
    /// What of this build is kept for the app's next build.
    #[serde(default)]
    pub cache: Cache,
    /// The folder beneath the app that the build of a static site makes. The release holds it alone, at this path, which
    /// is also the root of [`Command::StaticSite`].
    #[serde(default)]
    pub publish: Option<PathBuf>,
    /// Folders that tools of this kind also build into, tried in this order when `publish` is not there after the build.
    #[serde(default)]
    pub publish_alternatives: Vec<PathBuf>,
    /// What the owner has decided: the project's build configuration, completed by the app's `callboard.toml`.
    #[serde(default)]
    pub config: BuildConfig,
    /// The reasons for the decisions, in sentences.
    pub reasons: Vec<String>,
}

impl Plan {
    pub(super) fn new(root: PathBuf, config: BuildConfig, reasons: Vec<String>) -> Self {
        Self {
            language: Language::Other,
            root,
            steps: Vec::new(),
            processes: IndexMap::new(),
            environment: RunEnvironment::default(),
            release: None,
            cache: Cache::default(),
            publish: None,
            publish_alternatives: Vec::new(),
            config,
            reasons,
        }
    }

    /// One that does nothing.
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        Self::new(PathBuf::new(), BuildConfig::default(), Vec::new())
    }

    /// What was detected, for the log.
    #[must_use]
    pub fn heading(&self) -> String {
        match self.language {
            Language::Static => "Static site detected".to_owned(),
            Language::Other if self.reasons.iter().any(|reason| reason.starts_with("Procfile")) => {
                "Procfile app detected".to_owned()
            }
            Language::Other => "App with its own start command detected".to_owned(),
            language => format!("{} app detected", language.name()),
        }
    }

    pub(super) fn say(&mut self, reason: impl Into<String>) {
        self.reasons.push(reason.into());
    }

    pub(super) fn step(&mut self, title: impl Into<String>, command: Command) {
        self.steps.push(Step { title: title.into(), command });
    }

    /// Adds to what the contents of the build's caches depend on.
    pub(super) fn depends_on(&mut self, part: &str) {
        if !self.cache.key.is_empty() {
            self.cache.key.push_str("; ");
        }
        self.cache.key.push_str(part);
    }

    /// Serves a folder as a static site, alone in the release unless it is the whole app.
    pub(super) fn serve(&mut self, folder: &Path, alternatives: Vec<PathBuf>, options: StaticOptions) {
        self.publish = Some(folder.to_owned()).filter(|folder| !folder.as_os_str().is_empty());
        self.publish_alternatives = alternatives;
        self.processes.insert(WEB.to_owned(), Command::StaticSite { root: folder.to_owned(), options });
    }

    /// Takes another folder as the one that the build has made; the processes that serve it follow.
    pub fn publish_from(&mut self, folder: &Path) {
        if let Some(former) = self.publish.replace(folder.to_owned()) {
            for command in self.processes.values_mut() {
                if let Command::StaticSite { root, .. } = command
                    && *root == former
                {
                    folder.clone_into(root);
                }
            }
        }
    }
}

/// What is kept between builds of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// Names what the contents depend on: tool, its version, the lock file's SHA-256. Empty when nothing is kept.
    pub key: String,
    /// Folders beneath the app, such as `.next/cache`. The download caches of tools are in `HOME` and not among them.
    pub folders: Vec<PathBuf>,
}

/// As options of the static server, such as `--single-page=true`.
fn arguments(options: &StaticOptions) -> impl Iterator<Item = String> {
    let options = [
        ("single-page", options.single_page),
        ("clean-urls", options.clean_urls),
        ("trailing-slash", options.trailing_slash),
    ];
    options.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value?)))
}

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it does, for the log.
    pub title: String,
    /// The command, run in the app's folder.
    pub command: Command,
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A program and its arguments.
    Exec(Vec<String>),
    /// The owner's own line of shell, from a `Procfile` or the build configuration.
    Shell(String),
    /// The platform's own server for a folder, relative to the release.
    StaticSite {
        /// The folder.
        root: PathBuf,
        /// How it answers.
        #[serde(default)]
        options: StaticOptions,
    },
    /// A command that runs in a folder, relative to the one in which it would run otherwise.
    In {
        /// The folder.
        folder: PathBuf,
        /// The command.
        command: Box<Command>,
    },
}

impl Command {
    /// A program and its arguments.
    pub(super) fn exec(argv: &[&str]) -> Self {
        Self::Exec(argv.iter().map(|&argument| argument.to_owned()).collect())
    }

    /// The same in a folder; an empty path is where it runs anyway.
    pub(super) fn within(self, folder: &Path) -> Self {
        if folder.as_os_str().is_empty() {
            return self;
        }
        Self::In { folder: folder.to_owned(), command: Box::new(self) }
    }

    /// For people, on one line.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Exec(argv) => argv.join(" "),
            Self::Shell(line) => line.clone(),
            Self::StaticSite { root, .. } if root.as_os_str().is_empty() => "static site".to_owned(),
            Self::StaticSite { root, .. } => format!("static site in {}", root.display()),
            Self::In { folder, command } => format!("{} (in {})", command.shown(), folder.display()),
        }
    }

    /// The program and arguments that run it; `static_server` is the command that serves the folder appended to it.
    ///
    /// A line of shell gets `exec` where it is one plain command, so that no shell stands between the app and its
    /// signals.
    #[must_use]
    pub fn argv(&self, static_server: &[String]) -> Vec<String> {
        match self {
            Self::Exec(argv) => argv.clone(),
            Self::Shell(line) => {
                let line = if is_plain(line) { format!("exec {line}") } else { line.clone() };
                vec!["/bin/sh".to_owned(), "-c".to_owned(), line]
            }
            Self::StaticSite { root, options } => {
                let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
                let arguments = arguments(options).chain([root.display().to_string()]);
                static_server.iter().cloned().chain(arguments).collect()
            }
            // `$0` is the folder: no text of the app is part of the script.
            Self::In { folder, command } => {
                let script = ["/bin/sh", "-c", "cd -- \"$0\" && exec \"$@\""].map(str::to_owned);
                let folder = [folder.display().to_string()];
                script.into_iter().chain(folder).chain(command.argv(static_server)).collect()
            }
        }
    }
}

/// Variables of an app's processes that depend on where its release is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunEnvironment {
    /// Folders that come first in `PATH`: of the release, or absolute ones of the node's.
    pub path: Vec<PathBuf>,
    /// Variables whose value is a folder of the release.
    pub folders: BTreeMap<String, PathBuf>,
    /// Variables whose value is a list of folders of the release, as in `PATH`.
    pub searches: BTreeMap<String, Vec<PathBuf>>,
    /// Variables, unless the owner sets them.
    pub variables: BTreeMap<String, String>,
}

impl RunEnvironment {
    /// The variables for a release in `release`, with `path` as the rest of `PATH`.
    #[must_use]
    pub fn variables(&self, release: &Path, path: &str) -> BTreeMap<String, String> {
        let inside = |folder: &PathBuf| release.join(folder).display().to_string();
        let listed = |folders: &[PathBuf]| folders.iter().map(inside).collect::<Vec<_>>();
        let mut all = self.variables.clone();
        all.extend(self.folders.iter().map(|(name, folder)| (name.clone(), inside(folder))));
        all.extend(self.searches.iter().map(|(name, folders)| (name.clone(), listed(folders).join(":"))));
        let search: Vec<String> = listed(&self.path).into_iter().chain([path.to_owned()]).collect();
        all.insert("PATH".to_owned(), search.join(":"));
        all
    }
}

/// Whether a line is one command without syntax of the shell.
fn is_plain(line: &str) -> bool {
    const SHELL: [&str; 16] = [
        "exec", "cd", "export", "set", "unset", "source", ".", "if", "for", "while", "until", "case", "eval", "trap",
        "test", "[",
    ];
    let first = line.split_whitespace().next().unwrap_or_default();
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "._/-+".contains(letter);
    !line.contains(['&', '|', ';', '<', '>', '(', ')', '{', '}', '`', '\n', '#', '!'])
        && !first.is_empty()
        && first.chars().all(is_name)
        && !SHELL.contains(&first)
}
