//! Detects how an app is built, and what of it runs.
//!
//! In this order: the project's build configuration, the app's `callboard.toml` ([`file`]), its `Procfile`, and what its
//! other files say, a module for each language. Every decision leaves a sentence in [`Plan::reasons`], which the build log
//! shows. No code of the app is executed here; the node's [`Tools`] are asked for their versions, so that what can't be
//! built on this node is refused before it is tried.

mod app;
mod deno;
mod error;
mod file;
mod go;
mod java;
mod mistakes;
mod node;
mod php;
mod plan;
mod procfile;
mod python;
mod ruby;
mod rust;
#[cfg(test)]
mod tests;
mod version;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub use callboard_messages::project::{BuildConfig, StaticOptions};

use self::{
    app::{App, relative},
    file::Settings,
    version::Asked,
};
pub use self::{
    error::DetectError,
    plan::{Cache, Command, Language, Plan, RunEnvironment, Step},
};
use super::tools::Tools;
use crate::{WEB, folder::Dir};

/// The folder of an app in which its packages and its compiled programs are put.
const OWN: &str = ".callboard";
/// The longest command of an owner, in bytes.
const COMMAND_MAXIMUM: usize = 4_096;
/// Most process types of an app.
const MAXIMUM_PROCESSES: usize = 20;

/// What a language's module needs to know.
struct Scene<'a> {
    app: &'a App,
    tools: &'a Tools,
    config: &'a BuildConfig,
    /// Whether the owner says what runs, so that no start command needs to be detected.
    has_processes: bool,
    /// Whether another language than that of `package.json` makes the app, whose assets that file then builds.
    has_backend: bool,
}

impl Scene<'_> {
    /// The version that the owner asks for, before any file of the language.
    fn asked(&self, language: &str) -> Option<Asked> {
        Asked::new("the build configuration", self.config.versions.get(language)?)
    }
}

/// What a language's module says about the app's processes.
enum Told {
    /// Nothing: its files are not there.
    Nothing,
    /// It has added its steps, and its processes unless others name them.
    Planned,
    /// It has added its steps and does not know what to run; a sentence says how to tell.
    NoProcess(String),
}

/// Files that make an app whose `package.json` builds its assets only.
const BACKENDS: [&str; 10] = [
    "requirements.txt",
    "pyproject.toml",
    "manage.py",
    "Pipfile",
    "go.mod",
    "Gemfile",
    "composer.json",
    "pom.xml",
    "build.gradle",
    "build.gradle.kts",
];

/// Makes the plan of the app in `source`, of what `tools` can do. Blocks.
///
/// # Errors
/// See [`DetectError`].
pub fn detect(source: &Path, config: &BuildConfig, tools: &Tools) -> Result<Plan, DetectError> {
    let mut reasons = Vec::new();
    let whole = App::new(Arc::new(Dir::open(source)?), PathBuf::new());
    let (app, settings) = locate(&whole, config, &mut reasons)?;
    let own = config;
    let config = own.or(&settings.config);
    let by = |is_own: bool| if is_own { "the build configuration" } else { file::NAME };
    let mut plan = Plan::new(app.root.clone(), config.clone(), reasons);
    let procfile = procfile::read(&app)?;
    let build = owner_line(config.build_command.as_deref(), "build command")?;
    let start = owner_line(config.start_command.as_deref(), "start command")?;
    let has_processes = procfile.as_ref().is_some_and(|file| !file.processes.is_empty())
        || start.is_some()
        || config.publish.is_some()
        || !settings.processes.is_empty();
    let has_backend = BACKENDS.iter().any(|file| app.has(file));
    let scene = Scene { app: &app, tools, config: &config, has_processes, has_backend };
    let mut missing_start = languages(&scene, &mut plan, build.is_some() && has_processes)?;
    if let Some(procfile) = procfile {
        plan.say("Procfile names the processes");
        if procfile.release.is_some() {
            plan.say("the `release` line of the Procfile runs before each rollout");
        }
        plan.release = procfile.release.map(|command| in_app(&plan, &app, command));
        if !procfile.processes.is_empty() {
            let processes = procfile.processes.into_iter();
            plan.processes = processes.map(|(name, command)| (name, in_app(&plan, &app, command))).collect();
            (missing_start, plan.publish) = (None, None);
        }
    }
    if !settings.processes.is_empty() {
        plan.say("callboard.toml names the processes");
        let processes = settings.processes.iter();
        let shell = |line: &String| in_app(&plan, &app, Command::Shell(line.clone()));
        plan.processes = processes.map(|(name, line)| (name.clone(), shell(line))).collect();
        (missing_start, plan.publish) = (None, None);
    }
    if let Some(line) = build {
        plan.say(format!("{} replaces the build steps", by(own.build_command.is_some())));
        plan.steps.clear();
        let command = in_app(&plan, &app, Command::Shell(line.to_owned()));
        plan.step(line, command);
    }
    if let Some(line) = owner_line(config.release_command.as_deref(), "release command")? {
        plan.say(format!("{} sets what runs before each rollout", by(own.release_command.is_some())));
        plan.release = Some(in_app(&plan, &app, Command::Shell(line.to_owned())));
    }
    if let Some(line) = start {
        plan.say(format!("{} sets the start command", by(own.start_command.is_some())));
        let command = in_app(&plan, &app, Command::Shell(line.to_owned()));
        plan.processes.insert(WEB.to_owned(), command);
        (missing_start, plan.publish) = (None, None);
    } else if let Some(folder) = &config.publish {
        let folder = relative(folder)
            .ok_or_else(|| DetectError::BadConfig(format!("the publish folder `{folder}` leads out of the app")))?;
        let published = match folder.as_os_str().is_empty() {
            true => "the app's folder".to_owned(),
            false => format!("`{}`", folder.display()),
        };
        plan.say(format!("{} publishes {published}", by(own.publish.is_some())));
        let single_page = plan.processes.values().find_map(|command| match command {
            Command::StaticSite { options, .. } => options.single_page,
            _ => None,
        });
        let found = StaticOptions { single_page, ..StaticOptions::default() };
        let folder = if plan.root == app.root { folder } else { within(&plan, &app).join(folder) };
        if plan.steps.is_empty() {
            plan.language = Language::Static;
        }
        plan.serve(&folder, Vec::new(), found);
        missing_start = None;
    }
    if plan.processes.is_empty()
        && missing_start.is_none()
        && let Some(root) = static_root(&app)
    {
        plan.language = Language::Static;
        plan.say(format!("{} makes it a static site", root.join("index.html").display()));
        plan.serve(&root, Vec::new(), StaticOptions::default());
    }
    finish(plan, &app, missing_start)
}

/// The app's folder and what its `callboard.toml` says.
fn locate(whole: &App, config: &BuildConfig, reasons: &mut Vec<String>) -> Result<(App, Settings), DetectError> {
    if let Some(root) = &config.root {
        let app = whole.at(&whole.chosen(root)?);
        let settings = file::read(&app)?;
        return Ok((app, settings));
    }
    let mut app = whole.clone();
    if let Some(only) = whole.implied() {
        reasons.push(format!("the source holds only the folder `{only}`, which is taken as the app"));
        app = whole.at(Path::new(&only));
    }
    let settings = file::read(&app)?;
    if let Some(root) = &settings.config.root {
        reasons.push(format!("callboard.toml says that the app is in `{root}`"));
        app = app.at(&app.chosen(root)?);
    }
    Ok((app, settings))
}

/// Asks each language's module; returns the sentence of the first that knows the app and not what to run. With
/// `is_decided` the owner's commands build and start the app, so that a module's refusal is only told.
fn languages(scene: &Scene<'_>, plan: &mut Plan, is_decided: bool) -> Result<Option<String>, DetectError> {
    let mut missing = None;
    // The second gives way where two decide: many a Python app has a package.json for its assets.
    for module in [node::plan, python::plan, go::plan, rust::plan, ruby::plan, php::plan, deno::plan, java::plan] {
        let before = plan.clone();
        match module(scene, plan) {
            Ok(Told::Nothing | Told::Planned) => {}
            Ok(Told::NoProcess(sentence)) => missing = missing.or(Some(sentence)),
            Err(error) if is_decided && error.is_about_tools() => {
                *plan = Plan { language: plan.language, ..before };
                plan.say(error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(missing.filter(|_| !plan.processes.contains_key(WEB)))
}

/// The app's folder beneath the plan's, which is the whole workspace when the app is a member of one.
fn within<'a>(plan: &Plan, app: &'a App) -> &'a Path {
    app.root.strip_prefix(&plan.root).unwrap_or(Path::new(""))
}

/// A command of the app, which runs in the app's folder.
fn in_app(plan: &Plan, app: &App, command: Command) -> Command {
    command.within(within(plan, app))
}

fn finish(mut plan: Plan, app: &App, missing_start: Option<String>) -> Result<Plan, DetectError> {
    for command in plan.processes.values_mut() {
        if let Command::StaticSite { options, .. } = command {
            *options = plan.config.static_options.or(options);
        }
    }
    // What else runs needs the rest of the app.
    if plan.processes.values().any(|command| !matches!(command, Command::StaticSite { .. })) || plan.release.is_some() {
        plan.publish = None;
        plan.publish_alternatives.clear();
    }
    if app.has("Dockerfile") && !plan.processes.is_empty() {
        plan.say("the Dockerfile is not used: this node runs apps as processes");
    }
    match (plan.processes.is_empty(), missing_start) {
        (false, _) => Ok(plan),
        (true, Some(sentence)) => Err(DetectError::NoProcess(sentence)),
        (true, None) if app.has("Dockerfile") => Err(DetectError::DockerfileOnly),
        (true, None) => Err(DetectError::NothingRecognized { folder: app.shown(), found: app.listing() }),
    }
}

fn static_root(app: &App) -> Option<PathBuf> {
    let roots = ["", "public", "dist"].map(PathBuf::from);
    roots.into_iter().find(|root| app.has(root.join("index.html")))
}

fn owner_line<'a>(line: Option<&'a str>, what: &str) -> Result<Option<&'a str>, DetectError> {
    let Some(line) = line.map(str::trim).filter(|line| !line.is_empty()) else { return Ok(None) };
    if line.len() > COMMAND_MAXIMUM || line.contains('\0') {
        return Err(DetectError::BadConfig(format!("the {what} is longer than 4,096 bytes or holds a NUL")));
    }
    Ok(Some(line))
}
