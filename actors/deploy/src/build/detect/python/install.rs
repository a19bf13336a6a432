//! How the packages of a Python app get into its release.
//!
//! Packages are installed into a folder of the release (`pip install --target`) and not into a virtual environment:
//! the scripts of an environment hold the absolute path it was made at, and a release is unpacked elsewhere. Lock files
//! of other tools are written out as requirements by their own tool, which pip brings for the build where it is missing.

use std::path::{Path, PathBuf};

use super::{
    App, Command, DetectError, OWN, Plan, Tool, Tools, choose,
    manifest::{Manifest, Packages},
    not_installed,
};
use crate::build::tools::Installed;

/// Where packages are installed to.
const PACKAGES: &str = ".callboard/python";
/// Where a build puts tools that the node does not have.
const BROUGHT: &str = ".callboard/tools";
/// What a lock file comes to.
const EXPORTED: &str = ".callboard/requirements.txt";
/// Where `python3` is the version that an app asks for.
const INTERPRETER: &str = ".callboard/bin";

/// The options of every installation.
const QUIET: [&str; 5] =
    ["--no-compile", "--no-input", "--disable-pip-version-check", "--no-warn-script-location", "--progress-bar=off"];

/// Makes the asked version the app's `python3`, and adds the steps that install its packages.
pub(super) fn add_steps(
    app: &App,
    tools: &Tools,
    packages: Option<&Packages>,
    asked: Option<&super::Asked>,
    file: &str,
    plan: &mut Plan,
) -> Result<(), DetectError> {
    let (python, sentences) = choose(tools, Tool::Python, file, asked)?;
    plan.reasons.extend(sentences);
    plan.depends_on(&format!("Python {}", python.version));
    interpreter(&python, plan);
    if app.has_folder("src") && !app.has("src/__init__.py") {
        // Packages of the app itself, where it keeps them apart from its other files.
        plan.environment.searches.insert("PYTHONPATH".to_owned(), vec![PathBuf::from("src")]);
    }
    let Some(packages) = packages else { return Ok(()) };
    if !packages.any {
        plan.say("it has no requirements to install");
        return Ok(());
    }
    if !python.has_pip {
        return Err(DetectError::NotInstalled {
            file: packages.file.to_owned(),
            tool: "pip",
            get: format!("`apt-get install python3-pip`, for {}", python.path.display()),
        });
    }
    if let Some(digest) = app.digest(packages.file)? {
        plan.depends_on(&format!("{} {digest}", packages.file));
    }
    let brought = match packages.manifest {
        Manifest::Requirements => {
            pip(plan, &["--requirement", "requirements.txt"]);
            false
        }
        Manifest::Project { is_package: false } | Manifest::Listed => {
            if packages.manifest == Manifest::Listed {
                plan.say(format!("{} has no lock file beside it: pip chooses the versions", packages.file));
            }
            let listed: Vec<&str> = packages.listed.iter().map(String::as_str).collect();
            pip(plan, &listed);
            false
        }
        Manifest::Project { is_package: true } | Manifest::Setup => {
            plan.say(format!("{} makes the app a package, which is installed with its requirements", packages.file));
            pip(plan, &["."]);
            false
        }
        Manifest::UvLock => uv(tools, plan),
        Manifest::Poetry { locked } => poetry(plan, locked),
        Manifest::Pipenv { locked } => pipenv(tools, plan, locked),
        Manifest::None => false,
    };
    if brought {
        plan.step("Removing what only the build needs", Command::exec(&["rm", "-rf", BROUGHT]));
    }
    plan.environment.path.push(PathBuf::from(PACKAGES).join("bin"));
    let search = plan.environment.searches.entry("PYTHONPATH".to_owned()).or_default();
    search.insert(0, PathBuf::from(PACKAGES));
    Ok(())
}

/// Lets `python3` lead to the chosen interpreter, where it does not by itself.
fn interpreter(python: &Installed, plan: &mut Plan) {
    if python.is_default {
        return;
    }
    if python.path.file_name().is_some_and(|name| name == "python3") {
        plan.environment.path.extend(python.path.parent().map(Path::to_owned));
        return;
    }
    // The interpreter is an argument, and no part of the script.
    let script = "mkdir -p \"$0\" && for name in python3 python; do printf '#!/bin/sh\\nexec %s \"$@\"\\n' \"$1\" \
                  > \"$0/$name\" && chmod 755 \"$0/$name\" || exit 1; done";
    let path = python.path.display().to_string();
    plan.step(
        format!("Choosing Python {}", python.version),
        Command::exec(&["/bin/sh", "-c", script, INTERPRETER, &path]),
    );
    plan.environment.path.push(PathBuf::from(INTERPRETER));
}

fn pip(plan: &mut Plan, what: &[&str]) {
    let install = ["python3", "-m", "pip", "install", "--target", PACKAGES];
    let argv: Vec<&str> = install.into_iter().chain(QUIET).chain(what.iter().copied()).collect();
    plan.step("Installing requirements", Command::exec(&argv));
}

/// Installs exactly the packages and versions of a lock file.
fn pip_exported(plan: &mut Plan) {
    pip(plan, &["--no-deps", "--requirement", EXPORTED]);
}

/// Brings a tool for this build.
fn bring(plan: &mut Plan, title: &str, packages: &[&str]) {
    let install = ["python3", "-m", "pip", "install", "--target", BROUGHT];
    let argv: Vec<&str> = install.into_iter().chain(QUIET).chain(packages.iter().copied()).collect();
    plan.step(format!("Preparing {title}"), Command::exec(&argv));
}

/// A module of a tool that was brought, as a command line of shell.
fn brought(module: &str, arguments: &str) -> String {
    format!("PYTHONPATH={BROUGHT} python3 -m {module} {arguments}")
}

fn uv(tools: &Tools, plan: &mut Plan) -> bool {
    plan.say("uv.lock fixes the versions, and uv reads it (pip brings it for this build where it is not installed)");
    let arguments = "export --frozen --no-dev --no-emit-project --no-header --format requirements-txt";
    let is_there = tools.default(Tool::Uv).is_some_and(|uv| uv.is_default);
    if !is_there {
        bring(plan, "uv", &["uv"]);
    }
    let program = if is_there { "uv".to_owned() } else { format!("{BROUGHT}/bin/uv") };
    let line = format!("mkdir -p {OWN} && {program} {arguments} --output-file {EXPORTED} --quiet");
    plan.step("Reading uv.lock", Command::Shell(line));
    pip_exported(plan);
    !is_there
}

fn poetry(plan: &mut Plan, locked: bool) -> bool {
    plan.say(if locked {
        "poetry.lock fixes the versions, and Poetry reads it (pip brings it for this build)"
    } else {
        "pyproject.toml is Poetry's and has no poetry.lock: Poetry chooses the versions"
    });
    // The export is a plugin, which an installed Poetry often lacks; it brings its Poetry along.
    bring(plan, "Poetry", &["poetry-plugin-export"]);
    if !locked {
        plan.step("Choosing versions", Command::Shell(brought("poetry", "lock --no-interaction")));
    }
    let arguments = format!("export --only main --format requirements.txt --output {EXPORTED} --no-interaction");
    plan.step("Reading poetry.lock", Command::Shell(brought("poetry", &arguments)));
    pip_exported(plan);
    true
}

fn pipenv(tools: &Tools, plan: &mut Plan, locked: bool) -> bool {
    plan.say(if locked {
        "Pipfile.lock fixes the versions, and Pipenv reads it (pip brings it for this build where it is not installed)"
    } else {
        "there is a Pipfile and no Pipfile.lock: Pipenv chooses the versions"
    });
    let is_there = tools.default(Tool::Pipenv).is_some_and(|pipenv| pipenv.is_default);
    if !is_there {
        bring(plan, "Pipenv", &["pipenv"]);
    }
    let line = |arguments: &str| match is_there {
        true => format!("pipenv {arguments}"),
        false => brought("pipenv", arguments),
    };
    if !locked {
        plan.step("Choosing versions", Command::Shell(line("lock")));
    }
    let write = format!("{} > {EXPORTED}", line("requirements --hash"));
    plan.step("Reading Pipfile.lock", Command::Shell(format!("mkdir -p {OWN} && {write}")));
    pip_exported(plan);
    !is_there
}

/// The refusal of an app without Python.
pub(super) fn missing(file: &str) -> DetectError {
    not_installed(Tool::Python, file)
}
