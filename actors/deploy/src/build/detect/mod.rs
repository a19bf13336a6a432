//! Detects how an app is built, and what of it runs.
//!
//! A `Procfile` names the processes; `package.json`, `requirements.txt` or `pyproject.toml` say how to build and,
//! without a `Procfile`, what to run; an `index.html` alone is a static site. Every decision leaves a sentence in
//! [`Plan::reasons`], which the build log shows. No code of the app is executed here.

mod node;
mod procfile;
mod python;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::folder::{Dir, Found, What};

/// The build configuration that the owner of an app may set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildConfig {
    /// The folder of the app inside the source, such as `apps/web`.
    pub root: Option<String>,
    /// Runs instead of the steps that were detected; a line of shell.
    pub build_command: Option<String>,
    /// Runs as `web` instead of what was detected; a line of shell.
    pub start_command: Option<String>,
}

/// The language of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// Node.js.
    Node,
    /// Python.
    Python,
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
    /// The reasons for the decisions, in sentences.
    pub reasons: Vec<String>,
}

impl Plan {
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

/// How a static site answers. What is `None` is decided by the site's files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StaticOptions {
    /// Whether a navigation to a page that is not there gets `index.html`. `None`: if there is no `404.html`.
    pub single_page: Option<bool>,
    /// Whether `/about` is `about.html`. `None`: it is.
    pub clean_urls: Option<bool>,
    /// `true`: `/a` redirects to `/a/`; `false`: `/a/` to `/a`. `None`: folders end with a slash, files do not.
    pub trailing_slash: Option<bool>,
}

impl StaticOptions {
    /// As options of the static server, such as `--single-page=true`.
    fn arguments(&self) -> impl Iterator<Item = String> {
        let options = [
            ("single-page", self.single_page),
            ("clean-urls", self.clean_urls),
            ("trailing-slash", self.trailing_slash),
        ];
        options.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value?)))
    }
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
                let arguments = options.arguments().chain([root.display().to_string()]);
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
    /// Folders of the release that come first in `PATH`.
    pub path: Vec<PathBuf>,
    /// Variables whose value is a folder of the release.
    pub folders: BTreeMap<String, PathBuf>,
    /// Variables, unless the owner sets them.
    pub variables: BTreeMap<String, String>,
}

impl RunEnvironment {
    /// The variables for a release in `release`, with `path` as the rest of `PATH`.
    #[must_use]
    pub fn variables(&self, release: &Path, path: &str) -> BTreeMap<String, String> {
        let mut all = self.variables.clone();
        all.extend(
            self.folders.iter().map(|(name, folder)| (name.clone(), release.join(folder).display().to_string())),
        );
        let own = self.path.iter().map(|folder| release.join(folder).display().to_string());
        all.insert("PATH".to_owned(), own.chain([path.to_owned()]).collect::<Vec<_>>().join(":"));
        all
    }
}

/// Why no plan could be made.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// No file that detection knows.
    #[error(
        "nothing in {folder} tells what this app is; looked for Procfile, package.json, requirements.txt, \
         pyproject.toml, main.py, app.py and index.html (also in public/ and dist/). Add one of them, or set a start \
         command. Found: {found}"
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
    /// A file of the app is malformed.
    #[error("{file} can't be used: {reason}")]
    BadFile {
        /// Its name.
        file: &'static str,
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

/// Makes the plan of the app in `source`.
///
/// # Errors
/// See [`DetectError`].
pub fn detect(source: &Path, config: &BuildConfig) -> Result<Plan, DetectError> {
    let mut reasons = Vec::new();
    let source = Dir::open(source)?;
    let root = match &config.root {
        Some(root) => chosen_root(&source, root)?,
        None => implied_root(&source, &mut reasons)?,
    };
    let app = App { source, root: root.clone() };
    let mut plan = Plan {
        language: Language::Other,
        root,
        steps: Vec::new(),
        processes: IndexMap::new(),
        environment: RunEnvironment::default(),
        release: None,
        cache: Cache::default(),
        publish: None,
        publish_alternatives: Vec::new(),
        reasons,
    };
    let procfile = procfile::read(&app)?;
    // The second gives way where both decide: many a Python app has a package.json for its assets.
    let missing_start = [node::plan(&app, &mut plan)?, python::plan(&app, &mut plan)?];
    let mut missing_start = missing_start.into_iter().flatten().next();
    if let Some(procfile) = procfile {
        plan.reasons.push("Procfile names the processes".to_owned());
        if procfile.release.is_some() {
            plan.reasons.push("the `release` line of the Procfile runs before each rollout".to_owned());
        }
        plan.release = procfile.release;
        plan.processes = procfile.processes;
        missing_start = None;
    }
    if let Some(line) = owner_line(config.build_command.as_deref(), "build command")? {
        plan.reasons.push("the build configuration replaces the build steps".to_owned());
        plan.steps = vec![Step { title: line.to_owned(), command: Command::Shell(line.to_owned()) }];
    }
    if let Some(line) = owner_line(config.start_command.as_deref(), "start command")? {
        plan.reasons.push("the build configuration sets the start command".to_owned());
        plan.processes.insert("web".to_owned(), Command::Shell(line.to_owned()));
        missing_start = None;
    }
    if plan.processes.is_empty()
        && missing_start.is_none()
        && let Some(root) = static_root(&app)
    {
        plan.language = Language::Static;
        plan.reasons.push(format!("{} makes it a static site", root.join("index.html").display()));
        plan.processes.insert("web".to_owned(), Command::StaticSite { root, options: StaticOptions::default() });
    }
    if app.has("Dockerfile") && !plan.processes.is_empty() {
        plan.reasons.push("the Dockerfile is not used: this node runs apps as processes".to_owned());
    }
    match (plan.processes.is_empty(), missing_start) {
        (false, _) => Ok(plan),
        (true, Some(sentence)) => Err(DetectError::NoProcess(sentence)),
        (true, None) if app.has("Dockerfile") => Err(DetectError::DockerfileOnly),
        (true, None) => Err(DetectError::NothingRecognized { folder: app.shown(), found: app.listing() }),
    }
}

/// The app's folder, as far as detection reads it. Its links may lead anywhere in the source, but not out of it.
struct App {
    source: Dir,
    root: PathBuf,
}

impl App {
    const MAXIMUM: u64 = 1024 * 1024;

    fn file(&self, name: impl AsRef<Path>) -> Option<File> {
        match self.source.follow(&self.root.join(name), |_| true).ok()?.what {
            What::File(file) => Some(file),
            What::Folder(_) => None,
        }
    }

    fn has(&self, name: impl AsRef<Path>) -> bool {
        self.file(name).is_some()
    }

    fn read(&self, name: &'static str) -> Result<Option<String>, DetectError> {
        let Some(file) = self.file(name) else { return Ok(None) };
        let bad = |reason: String| DetectError::BadFile { file: name, reason };
        let mut bytes = Vec::new();
        file.take(Self::MAXIMUM + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > Self::MAXIMUM {
            return Err(bad("it is larger than 1 MiB".to_owned()));
        }
        let text = String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8 text".to_owned()))?;
        Ok(Some(text.trim_start_matches('\u{feff}').to_owned()))
    }

    fn shown(&self) -> String {
        if self.root.as_os_str().is_empty() { "the source".to_owned() } else { format!("`{}`", self.root.display()) }
    }

    fn listing(&self) -> String {
        let mut names = self.source.open_dir(&self.root).and_then(|root| visible(&root)).unwrap_or_default();
        if names.is_empty() {
            return "no files".to_owned();
        }
        let more = names.len().saturating_sub(15);
        names.truncate(15);
        names.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
    }
}

/// The folder that the owner names, by a path without links.
fn chosen_root(source: &Dir, root: &str) -> Result<PathBuf, DetectError> {
    let bad = |reason: &str| DetectError::BadConfig(format!("the root folder `{root}` {reason}"));
    let mut clean = PathBuf::new();
    for part in Path::new(root).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return Err(bad("must be relative and without `..`")),
        }
    }
    match source.follow(&clean, |_| true) {
        Ok(Found { path, what: What::Folder(_) }) => Ok(path),
        Ok(Found { what: What::File(_), .. }) => Err(bad("is not a folder")),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Err(bad("is a link out of the source")),
        Err(_) => Err(bad("is not in the source")),
    }
}

/// The only folder of the source, if that is all it has and the app is in it.
fn implied_root(source: &Dir, reasons: &mut Vec<String>) -> Result<PathBuf, DetectError> {
    let names = visible(source)?;
    let [only] = names.as_slice() else { return Ok(PathBuf::new()) };
    if source.open_dir(Path::new(only)).is_err() || matches!(only.as_str(), "public" | "dist") {
        return Ok(PathBuf::new());
    }
    reasons.push(format!("the source holds only the folder `{only}`, which is taken as the app"));
    Ok(PathBuf::from(only))
}

/// Names in a folder, sorted, without hidden files and what macOS adds to archives.
fn visible(folder: &Dir) -> io::Result<Vec<String>> {
    let names = folder.entries()?.map(|entry| Ok(entry?.name.to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.retain(|name| !name.starts_with('.') && name != "__MACOSX");
    names.sort();
    Ok(names)
}

fn static_root(app: &App) -> Option<PathBuf> {
    let roots = ["", "public", "dist"].map(PathBuf::from);
    roots.into_iter().find(|root| app.has(root.join("index.html")))
}

fn owner_line<'a>(line: Option<&'a str>, what: &str) -> Result<Option<&'a str>, DetectError> {
    let Some(line) = line.map(str::trim).filter(|line| !line.is_empty()) else { return Ok(None) };
    if line.len() > 4_096 || line.contains('\0') {
        return Err(DetectError::BadConfig(format!("the {what} is longer than 4,096 bytes or holds a NUL")));
    }
    Ok(Some(line))
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
