//! Rust apps, by their `Cargo.toml`: binaries, without the compiler's own files in the release.

use std::path::PathBuf;

use toml::{Table, Value};

use super::{
    App, Command, DetectError, Language, OWN, Plan, Scene, Told,
    version::{Asked, choose},
};
use crate::{WEB, build::tools::Tool};

/// Where the compiler's files are: beside Cargo's downloads, which are kept between builds and never in a release.
const TARGET: &str = "\"${CARGO_HOME:-$HOME/.cargo}/callboard-target\"";

/// Adds what the app's files say to the plan.
pub(super) fn plan(scene: &Scene<'_>, plan: &mut Plan) -> Result<Told, DetectError> {
    let app = scene.app;
    let Some(text) = app.read("Cargo.toml")? else { return Ok(Told::Nothing) };
    if plan.processes.contains_key(WEB) && !scene.has_processes {
        return Ok(Told::Nothing); // a part of an app in another language, which builds it
    }
    let bad = |error: toml::de::Error| DetectError::bad("Cargo.toml", error.message().to_owned());
    let manifest: Table = text.parse().map_err(bad)?;
    plan.say("Cargo.toml makes it a Rust app");
    plan.language = Language::Rust;
    let package = manifest.get("package").and_then(Value::as_table);
    let rust_version = package.and_then(|package| package.get("rust-version")?.as_str());
    let asked = scene.asked("rust");
    let asked = asked.or_else(|| Asked::new("`rust-version` of Cargo.toml", rust_version?));
    let (cargo, sentences) = choose(scene.tools, Tool::Cargo, "Cargo.toml", asked.as_ref())?;
    plan.reasons.extend(sentences);
    if !cargo.is_default {
        plan.environment.path.extend(cargo.path.parent().map(PathBuf::from));
    }
    plan.depends_on(&format!("Rust {}", cargo.version));
    let digest = app.digest("Cargo.lock")?;
    let locked = if digest.is_some() { " --locked" } else { "" };
    if let Some(digest) = digest {
        plan.depends_on(&format!("Cargo.lock {digest}"));
    }
    let crates = if package.is_some() { vec![(".".to_owned(), manifest.clone())] } else { members(app, &manifest)? };
    let programs: Vec<(String, String)> = crates
        .iter()
        .flat_map(|(folder, manifest)| binaries(app, folder, manifest).into_iter().map(|name| (folder.clone(), name)))
        .collect();
    let mut folders: Vec<&String> = programs.iter().map(|(folder, _)| folder).collect();
    folders.dedup();
    for folder in folders {
        let line =
            format!("cargo install --path '{folder}' --root {OWN}{locked} --no-track --force --target-dir {TARGET}");
        plan.step("Building", Command::Shell(line));
    }
    plan.environment.path.push(PathBuf::from(OWN).join("bin"));
    if scene.has_processes {
        return Ok(Told::Planned);
    }
    let default = package.and_then(|package| package.get("default-run")?.as_str());
    let is_likely = |name: &&str| Some(*name) == default || ["server", "web", "api"].contains(name);
    let names: Vec<&str> = programs.iter().map(|(_, name)| name.as_str()).collect();
    let chosen = match names.as_slice() {
        [only] => Some(*only),
        several => several
            .iter()
            .copied()
            .find(|name| Some(*name) == default)
            .or_else(|| several.iter().copied().find(is_likely)),
    };
    let Some(chosen) = chosen else {
        let sentence = match names.as_slice() {
            [] => "Cargo.toml makes it a Rust app without a program: there is no src/main.rs, src/bin or [[bin]]; add one, \
                   or set a start command"
                .to_owned(),
            several => format!(
                "Cargo.toml makes it a Rust app with several programs ({}); say which runs with `default-run` in \
                 Cargo.toml, or with a Procfile",
                several.join(", ")
            ),
        };
        return Ok(Told::NoProcess(sentence));
    };
    plan.say(format!("`{chosen}` is the program that runs"));
    plan.processes.insert(WEB.to_owned(), Command::Exec(vec![format!("{OWN}/bin/{chosen}")]));
    Ok(Told::Planned)
}

/// The packages of a workspace without a package of its own.
fn members(app: &App, manifest: &Table) -> Result<Vec<(String, Table)>, DetectError> {
    let patterns = manifest.get("workspace").and_then(|workspace| workspace.get("members")?.as_array());
    let patterns = patterns.into_iter().flatten().filter_map(Value::as_str);
    let mut all = Vec::new();
    for pattern in patterns {
        let folders = match pattern.strip_suffix("/*") {
            Some(folder) => app.folders(folder),
            None => vec![PathBuf::from(pattern)],
        };
        for folder in folders {
            let Some(text) = app.read(folder.join("Cargo.toml"))? else { continue };
            let name = folder.display().to_string();
            // It becomes part of a line of shell.
            if name.contains('\'') || folder.is_absolute() || name.contains("..") {
                return Err(DetectError::bad("Cargo.toml", format!("`{name}` is no folder for a package here")));
            }
            let table = text.parse().map_err(|error: toml::de::Error| {
                DetectError::bad(folder.join("Cargo.toml").display().to_string(), error.message().to_owned())
            })?;
            all.push((name, table));
        }
    }
    Ok(all)
}

/// The names of a package's programs.
fn binaries(app: &App, folder: &str, manifest: &Table) -> Vec<String> {
    let mut names = Vec::new();
    let of = |value: &Value| value.get("name")?.as_str().map(str::to_owned);
    names.extend(manifest.get("bin").and_then(Value::as_array).into_iter().flatten().filter_map(of));
    let folder = PathBuf::from(folder);
    let package = manifest.get("package").and_then(of);
    if app.has(folder.join("src/main.rs")) && names.is_empty() {
        names.extend(package);
    }
    for name in app.names(folder.join("src/bin")) {
        let stem = name.strip_suffix(".rs").unwrap_or(&name).to_owned();
        if !names.contains(&stem) {
            names.push(stem);
        }
    }
    names
}
