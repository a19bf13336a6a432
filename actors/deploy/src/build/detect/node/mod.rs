//! Node.js apps, by their `package.json`.
//!
//! A `start` script that is a server for developers never goes public: what the build makes is served instead, by the
//! framework's own server or as files. Dependencies that are for developers only are installed when there is a build, and
//! removed before the release is made, unless what runs needs them.

mod framework;
mod installation;
mod manager;
mod needs;
mod package;
mod script;
mod workspace;

use std::path::{Path, PathBuf};

use self::{
    framework::{Run, Served},
    package::Package,
    script::Start,
};
use super::{
    App, Command, DetectError, Language, OWN, Plan, Scene, StaticOptions, Told, relative,
    version::{Asked, choose, not_installed},
};
use crate::{
    WEB,
    build::tools::{Tool, Tools},
};

/// What runs as `web`, before it is put into the plan.
enum Web {
    /// A command of the app's folder.
    Command(Command, String),
    /// A folder of files.
    Site { folder: PathBuf, alternatives: Vec<PathBuf>, single_page: bool, reason: String },
    /// It can't; a sentence says why, and what to do.
    Refused(String),
    /// Nothing that this module knows.
    Unknown,
}

/// Adds what `package.json` says to the plan.
pub(super) fn plan(scene: &Scene<'_>, plan: &mut Plan) -> Result<Told, DetectError> {
    let app = scene.app;
    let Some(package) = Package::read(app)? else { return Ok(Told::Nothing) };
    plan.language = Language::Node;
    plan.say("package.json makes it a Node.js app");
    let workspace = app.at(&workspace::root(app)?);
    let root_package = if workspace.root == app.root { None } else { Package::read(&workspace)? };
    if root_package.is_some() {
        let inside = app.root.strip_prefix(&workspace.root).unwrap_or(&app.root);
        plan.say(format!(
            "`{}` is a package of a workspace, which is installed and released as a whole",
            inside.display()
        ));
        plan.root = workspace.root.clone();
    }
    let installed =
        installation::Installation { scene, workspace: &workspace, package: root_package.as_ref().unwrap_or(&package) };
    let web = if scene.has_processes { Web::Unknown } else { web(scene, &package, plan)? };
    if let Web::Refused(sentence) = web {
        return Err(DetectError::Refused(sentence));
    }
    let is_site_alone = matches!(web, Web::Site { .. }) || scene.config.publish.is_some();
    let needs_tools = match &web {
        Web::Command(Command::Exec(argv), _) if argv.first().is_none_or(|program| program != "npm") => {
            needs::of_commands(&package, std::slice::from_ref(argv))
        }
        Web::Command(..) | Web::Unknown => needs::of_start(&package),
        Web::Site { .. } | Web::Refused(_) => None,
    };
    installation::node_version(scene, &workspace, installed.package, &package, plan)?;
    installed.add_steps(&package, plan, is_site_alone, needs_tools)?;
    add_environment(app, plan);
    put(scene, &package, plan, web)
}

/// Puts what runs into the plan; says how to tell when that is unknown.
fn put(scene: &Scene<'_>, package: &Package, plan: &mut Plan, web: Web) -> Result<Told, DetectError> {
    let inside = scene.app.root.strip_prefix(&plan.root).unwrap_or(Path::new("")).to_owned();
    match web {
        Web::Command(command, reason) => {
            plan.say(reason);
            plan.processes.insert(WEB.to_owned(), command.within(&inside));
            Ok(Told::Planned)
        }
        Web::Site { folder, alternatives, single_page, reason } => {
            plan.say(reason);
            let options = StaticOptions { single_page: single_page.then_some(true), ..StaticOptions::default() };
            let alternatives = alternatives.into_iter().map(|folder| inside.join(folder)).collect();
            plan.serve(&inside.join(folder), alternatives, options);
            Ok(Told::Planned)
        }
        Web::Unknown | Web::Refused(_) if scene.has_processes || scene.has_backend => Ok(Told::Planned),
        Web::Unknown | Web::Refused(_) => {
            let has_page =
                ["index.html", "public/index.html", "dist/index.html"].iter().any(|file| scene.app.has(file));
            if has_page && package.script("build").is_none() {
                return Ok(Told::Planned); // a static site that keeps its tools in a package.json
            }
            Ok(Told::NoProcess(unknown(scene.app, package)?))
        }
    }
}

/// How to tell what runs.
fn unknown(app: &App, package: &Package) -> Result<String, DetectError> {
    if let Some(patterns) = workspace::patterns(app, package)? {
        let members = workspace::members(app, &patterns);
        let named: Vec<String> = members.iter().take(8).map(|member| member.display().to_string()).collect();
        if !named.is_empty() {
            let choices = named.join(", ");
            return Ok(format!(
                "package.json is the root of a workspace and does not say what to run; choose the package to deploy with \
                 `root = \"…\"` in callboard.toml, of: {choices}"
            ));
        }
    }
    Ok("package.json does not say what to run; add a `start` script, `main`, a server.js or index.js, a Procfile with a \
        `web` line, or, for a static site, `publish = \"<folder>\"` in callboard.toml"
        .to_owned())
}

/// The variables of processes: their packages' programs first in `PATH`.
fn add_environment(app: &App, plan: &mut Plan) {
    let inside = app.root.strip_prefix(&plan.root).unwrap_or(Path::new(""));
    let own = inside.join("node_modules/.bin");
    if !inside.as_os_str().is_empty() {
        plan.environment.path.push(own);
    }
    plan.environment.path.push(PathBuf::from("node_modules/.bin"));
    plan.environment.variables.insert("NODE_ENV".to_owned(), "production".to_owned());
}

/// What runs as `web`.
fn web(scene: &Scene<'_>, package: &Package, plan: &mut Plan) -> Result<Web, DetectError> {
    let app = scene.app;
    let framework = framework::of(package);
    let builds = package.script("build").is_some();
    let Some(script) = package.script("start") else {
        if scene.has_backend {
            return Ok(Web::Unknown);
        }
        // A framework's own way, unless there is a program that says otherwise.
        return Ok(match (framework, program(app, package)) {
            (Some(framework), None) if builds => served(framework.served(app, package)),
            (_, Some((argv, reason))) => Web::Command(Command::Exec(argv), reason),
            (_, None) => Web::Unknown,
        });
    };
    let prefer_framework = |shown: &str| -> Web {
        match framework {
            _ if !builds => Web::Refused(format!(
                "package.json: the start script `{shown}` is a server for developers, which never goes public, and there \
                 is no `build` script whose result could be served; add one, or a `start` script for production"
            )),
            Some(framework) => served(framework.served(app, package)),
            None => Web::Site {
                folder: PathBuf::from("dist"),
                alternatives: framework::FOLDERS.iter().skip(1).map(PathBuf::from).collect(),
                single_page: false,
                reason: "the build makes a static site".to_owned(),
            },
        }
    };
    match script::start(package, script) {
        Start::Development(_) if scene.has_backend => Ok(Web::Unknown),
        Start::Development(shown) => {
            let maker = framework.map_or("its build", |framework| framework.name);
            plan.say(format!(
                "`{shown}` is a server for developers, which never goes public: what {maker} makes is served"
            ));
            Ok(prefer_framework(&shown))
        }
        Start::Files { shown, folder, single_page } => {
            plan.say(format!("`{shown}` serves files, which the platform does itself"));
            let folder = folder.as_deref().and_then(relative);
            let built = framework.filter(|_| builds).map(|framework| framework.served(app, package));
            Ok(match (folder, built) {
                (None, Some(built @ Served::Site { .. })) => served(built),
                (folder, _) => Web::Site {
                    reason: format!("the static site is in {}/", folder.as_deref().unwrap_or(Path::new(".")).display()),
                    folder: folder.unwrap_or_default(),
                    alternatives: Vec::new(),
                    single_page,
                },
            })
        }
        Start::Watched { shown, file } => {
            let reason = format!("`{shown}` restarts a program as it is written: node {file} runs without that");
            Ok(Web::Command(Command::exec(&["node", &file]), reason))
        }
        Start::Program => Ok(started(app, package, script, framework)),
    }
}

/// What a start script for production comes to.
fn started(app: &App, package: &Package, script: &str, framework: Option<&'static framework::Framework>) -> Web {
    let words = script::commands(package, script);
    let last: Vec<&str> = words.last().map(|words| words.iter().map(String::as_str).collect()).unwrap_or_default();
    let compiles = matches!(last.as_slice(), ["nest", "start", ..] | ["next", "start", ..]);
    if compiles
        && package.script("build").is_some()
        && let Some(framework) = framework
    {
        return served(framework.served(app, package));
    }
    let wrapped = package.script("prestart").is_some() || package.script("poststart").is_some();
    // Without npm between them, the app gets its signals itself, and 60 MiB of npm are not kept running.
    let plain = script.chars().all(|letter| letter.is_ascii_alphanumeric() || " ._/-=:,@".contains(letter));
    if plain && !wrapped && script.starts_with("node ") {
        let argv = script.split_whitespace().map(str::to_owned).collect();
        return Web::Command(Command::Exec(argv), format!("the start script is `{script}`"));
    }
    Web::Command(Command::exec(&["npm", "start"]), "package.json has a start script: npm start".to_owned())
}

fn served(served: Served) -> Web {
    match served {
        Served::Program { command: Run::Exec(argv), reason } => Web::Command(Command::Exec(argv), reason),
        Served::Program { command: Run::Shell(line), reason } => Web::Command(Command::Shell(line), reason),
        Served::Site { folder, alternatives, single_page, reason } => {
            Web::Site { folder, alternatives, single_page, reason }
        }
        Served::Refused(sentence) => Web::Refused(sentence),
    }
}

/// The program of an app without a start script.
fn program(app: &App, package: &Package) -> Option<(Vec<String>, String)> {
    if let Some(main) = package.main().filter(|main| app.has(main)) {
        let reason = format!("package.json names `{main}` as main");
        return Some((vec!["node".to_owned(), main.to_owned()], reason));
    }
    let file = app.first(&["server.js", "index.js", "server.mjs", "index.mjs"])?;
    Some((vec!["node".to_owned(), file.to_owned()], format!("{file} is there")))
}
