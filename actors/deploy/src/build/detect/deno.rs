//! Deno apps, by their `deno.json` or `deno.lock`.

use std::path::PathBuf;

use serde_json::Value;

use super::{Command, DetectError, Language, OWN, Plan, Scene, Told, version::choose};
use crate::{WEB, build::tools::Tool};

/// Programs of an app without a `start` task.
const ENTRIES: [&str; 8] =
    ["main.ts", "server.ts", "mod.ts", "main.js", "server.js", "main.tsx", "src/main.ts", "src/server.ts"];

/// Adds what the app's files say to the plan.
pub(super) fn plan(scene: &Scene<'_>, plan: &mut Plan) -> Result<Told, DetectError> {
    let app = scene.app;
    let Some(file) = app.first(&["deno.json", "deno.jsonc", "deno.lock"]) else { return Ok(Told::Nothing) };
    if plan.language != Language::Other {
        return Ok(Told::Nothing);
    }
    plan.say(format!("{file} makes it a Deno app"));
    plan.language = Language::Deno;
    let (deno, sentences) = choose(scene.tools, Tool::Deno, file, scene.asked("deno").as_ref())?;
    plan.reasons.extend(sentences);
    plan.depends_on(&format!("Deno {}", deno.version));
    if let Some(digest) = app.digest("deno.lock")? {
        plan.depends_on(&format!("deno.lock {digest}"));
    }
    let text = app.read(file)?.unwrap_or_default();
    let tasks = tasks(&text);
    let task = |name: &str| tasks.iter().any(|task| task == name);
    let entry = app.first(&ENTRIES);
    // What it imports is part of the release.
    plan.environment.folders.insert("DENO_DIR".to_owned(), PathBuf::from(OWN).join("deno"));
    if let Some(entry) = entry {
        plan.step("Fetching imports", Command::Shell(format!("DENO_DIR={OWN}/deno exec deno cache {entry}")));
    }
    if task("build") {
        plan.say(format!("{file} has a `build` task"));
        plan.step("Building", Command::exec(&["deno", "task", "build"]));
    }
    if scene.has_processes {
        return Ok(Told::Planned);
    }
    if task("start") {
        plan.say(format!("{file} has a `start` task"));
        plan.processes.insert(WEB.to_owned(), Command::exec(&["deno", "task", "start"]));
        return Ok(Told::Planned);
    }
    let Some(entry) = entry else {
        return Ok(Told::NoProcess(format!(
            "{file} does not say what to run; add a `start` task, a main.ts, or a Procfile with a `web` line"
        )));
    };
    let text = app.glance(entry).unwrap_or_default();
    let exports = text.contains("export default") && text.contains("fetch");
    let line = if exports {
        format!("deno serve --allow-all --host 127.0.0.1 --port $PORT {entry}")
    } else {
        format!("deno run --allow-all {entry}")
    };
    plan.say(format!("{entry} is what runs"));
    plan.processes.insert(WEB.to_owned(), Command::Shell(line));
    Ok(Told::Planned)
}

/// The names of the tasks in a `deno.json`, whose comments are left out.
fn tasks(text: &str) -> Vec<String> {
    let without: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let parsed: Value = serde_json::from_str(&without.join("\n")).unwrap_or_default();
    let tasks = parsed.get("tasks").and_then(Value::as_object);
    tasks.map(|tasks| tasks.keys().cloned().collect()).unwrap_or_default()
}
