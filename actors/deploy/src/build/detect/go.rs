//! Go apps, by their `go.mod`: one binary, without Go in the release.

use std::path::PathBuf;

use super::{
    App, Command, DetectError, Language, OWN, Plan, Scene, Told,
    version::{Asked, choose},
};
use crate::{WEB, build::tools::Tool};

/// Adds what the app's files say to the plan.
pub(super) fn plan(scene: &Scene<'_>, plan: &mut Plan) -> Result<Told, DetectError> {
    let app = scene.app;
    let Some(module) = app.read("go.mod")? else { return Ok(Told::Nothing) };
    plan.say("go.mod makes it a Go app");
    if plan.language == Language::Other || !plan.processes.contains_key(WEB) {
        plan.language = Language::Go;
    }
    let directive =
        |key: &str| module.lines().find_map(|line| line.trim().strip_prefix(key)?.split_whitespace().next());
    let asked = scene.asked("go").or_else(|| Asked::new("go.mod", directive("go ")?));
    let (go, sentences) = choose(scene.tools, Tool::Go, "go.mod", asked.as_ref())?;
    plan.reasons.extend(sentences);
    if !go.is_default {
        plan.environment.path.extend(go.path.parent().map(PathBuf::from));
    }
    plan.depends_on(&format!("Go {}", go.version));
    if let Some(digest) = app.digest("go.sum")? {
        plan.depends_on(&format!("go.sum {digest}"));
    }
    // Another toolchain than the node's is not fetched: its operator decides what is installed.
    plan.environment.variables.insert("GOTOOLCHAIN".to_owned(), "local".to_owned());
    let name = directive("module ").map(|module| module.trim_matches('"'));
    let name = name.and_then(|module| module.rsplit('/').find(|part| !is_major(part))).unwrap_or("app");
    let programs = programs(app);
    let chosen = match programs.as_slice() {
        [] => {
            return Ok(Told::NoProcess(
                "go.mod makes it a Go app, and there is no `package main` in its folder or in cmd/*; choose the folder \
                 with `root` in callboard.toml, or set a build and a start command"
                    .to_owned(),
            ));
        }
        [only] => only,
        several => {
            let is_likely = |folder: &&String| {
                let last = folder.rsplit('/').next().unwrap_or_default();
                folder.as_str() == "." || [name, "server", "web", "api", "app"].contains(&last)
            };
            match several.iter().find(is_likely) {
                Some(likely) => likely,
                None => {
                    build(plan, several, name);
                    return Ok(Told::NoProcess(format!(
                        "go.mod makes it a Go app with several programs ({}); say which runs with a Procfile, such as \
                         `web: {OWN}/bin/{}`",
                        several.join(", "),
                        binary(several.first().map_or(".", String::as_str), name)
                    )));
                }
            }
        }
    };
    build(plan, &programs, name);
    if !scene.has_processes && !plan.processes.contains_key(WEB) {
        let binary = format!("{OWN}/bin/{}", binary(chosen, name));
        plan.say(format!("`{chosen}` is the program that runs"));
        plan.processes.insert(WEB.to_owned(), Command::Exec(vec![binary]));
    }
    Ok(Told::Planned)
}

fn build(plan: &mut Plan, programs: &[String], name: &str) {
    for folder in programs {
        let output = format!("{OWN}/bin/{}", binary(folder, name));
        plan.step("Building", Command::exec(&["go", "build", "-trimpath", "-o", &output, folder]));
    }
    plan.environment.path.push(PathBuf::from(OWN).join("bin"));
}

/// The name of a program's binary: its folder's, or the module's.
fn binary<'a>(folder: &'a str, name: &'a str) -> &'a str {
    match folder.rsplit('/').next() {
        Some(".") | None => name,
        Some(last) => last,
    }
}

/// Whether a part of a module's path is its major version.
fn is_major(part: &str) -> bool {
    part.strip_prefix('v').is_some_and(|number| number.parse::<u64>().is_ok())
}

/// Folders with a `package main`: the app's own, and those in `cmd`.
fn programs(app: &App) -> Vec<String> {
    let own = std::iter::once(PathBuf::new());
    let folders = own.chain(app.folders("cmd")).filter(|folder| {
        let files = app.names(folder).into_iter().filter(|name| name.ends_with(".go") && !name.ends_with("_test.go"));
        files
            .filter_map(|name| app.glance(folder.join(name)))
            .any(|text| text.lines().any(|line| line.trim_end() == "package main" || line.starts_with("package main ")))
    });
    folders
        .map(|folder| match folder.as_os_str().is_empty() {
            true => ".".to_owned(),
            false => format!("./{}", folder.display()),
        })
        .collect()
}
