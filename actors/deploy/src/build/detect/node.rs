//! Node.js apps, by their `package.json`.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{App, Command, DetectError, Language, Plan, StaticOptions, Step};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Package {
    main: Option<Value>,
    scripts: BTreeMap<String, Value>,
    dependencies: BTreeMap<String, Value>,
    dev_dependencies: BTreeMap<String, Value>,
    optional_dependencies: BTreeMap<String, Value>,
}

impl Package {
    fn script(&self, name: &str) -> Option<&str> {
        self.scripts.get(name)?.as_str().map(str::trim).filter(|script| !script.is_empty())
    }

    fn needs(&self, name: &str) -> bool {
        self.dependencies.contains_key(name) || self.dev_dependencies.contains_key(name)
    }
}

fn npm(arguments: &[&str]) -> Command {
    Command::Exec(std::iter::once("npm").chain(arguments.iter().copied()).map(str::to_owned).collect())
}

/// Adds what `package.json` says to the plan; returns a sentence when it does not say what to run.
pub(super) fn plan(app: &App, plan: &mut Plan) -> Result<Option<String>, DetectError> {
    let Some(text) = app.read("package.json")? else { return Ok(None) };
    let bad = |reason: String| DetectError::BadFile { file: "package.json", reason };
    if !text.trim_start().starts_with('{') {
        return Err(bad("it is not a JSON object".to_owned()));
    }
    let package: Package = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    plan.language = Language::Node;
    plan.reasons.push("package.json makes it a Node.js app".to_owned());
    add_steps(app, &package, plan);
    plan.environment.path.push(PathBuf::from("node_modules/.bin"));
    plan.environment.variables.insert("NODE_ENV".to_owned(), "production".to_owned());

    if let Some((command, reason)) = start(app, &package) {
        plan.reasons.push(reason);
        plan.processes.insert("web".to_owned(), command);
        return Ok(None);
    }
    if ["index.html", "public/index.html", "dist/index.html"].iter().any(|file| app.has(file))
        && package.script("build").is_none()
    {
        return Ok(None); // a static site that keeps its tools in a package.json
    }
    Ok(Some(
        "package.json does not say what to run; add a `start` script, `main`, a server.js or index.js, or a Procfile \
         with a `web` line"
            .to_owned(),
    ))
}

fn add_steps(app: &App, package: &Package, plan: &mut Plan) {
    let locked = app.has("package-lock.json") || app.has("npm-shrinkwrap.json");
    let has_dependencies = !package.dependencies.is_empty()
        || !package.dev_dependencies.is_empty()
        || !package.optional_dependencies.is_empty();
    let builds = package.script("build").is_some();
    // Build dependencies are installed only when there is a build, and removed before the release is made.
    let dev = if builds { "--include=dev" } else { "--omit=dev" };
    if has_dependencies {
        let (verb, reason) = if locked {
            ("ci", "package-lock.json fixes the versions: npm ci")
        } else {
            ("install", "there are dependencies and no package-lock.json: npm install")
        };
        plan.reasons.push(reason.to_owned());
        plan.steps.push(Step {
            title: "Installing dependencies".to_owned(),
            command: npm(&[verb, dev, "--no-audit", "--no-fund", "--no-update-notifier"]),
        });
    }
    if builds {
        plan.reasons.push("package.json has a build script".to_owned());
        plan.steps.push(Step { title: "Building".to_owned(), command: npm(&["run", "build"]) });
        if !package.dev_dependencies.is_empty() {
            plan.steps.push(Step {
                title: "Removing what only the build needs".to_owned(),
                command: npm(&["prune", "--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier"]),
            });
        }
    }
}

fn start(app: &App, package: &Package) -> Option<(Command, String)> {
    if let Some(script) = package.script("start") {
        let wrapped = package.script("prestart").is_some() || package.script("poststart").is_some();
        // Without npm between them, the app gets its signals itself, and 60 MiB of npm are not kept running.
        let plain = script.chars().all(|letter| letter.is_ascii_alphanumeric() || " ._/-=:,@".contains(letter));
        if plain && !wrapped && script.starts_with("node ") {
            let argv = script.split_whitespace().map(str::to_owned).collect();
            return Some((Command::Exec(argv), format!("the start script is `{script}`")));
        }
        return Some((npm(&["start"]), "package.json has a start script: npm start".to_owned()));
    }
    let main = package.main.as_ref().and_then(Value::as_str).map(str::to_owned);
    let main = main.filter(|main| !main.starts_with('-') && !main.starts_with('/') && !main.contains(".."));
    if let Some(main) = main.filter(|main| app.has(main)) {
        let reason = format!("package.json names `{main}` as main");
        return Some((Command::Exec(vec!["node".to_owned(), main]), reason));
    }
    if let Some(file) = ["server.js", "index.js"].into_iter().find(|file| app.has(file)) {
        return Some((Command::Exec(vec!["node".to_owned(), file.to_owned()]), format!("{file} is there")));
    }
    let folder = if package.needs("vite") { "dist" } else { "build" };
    if package.script("build").is_some() && (package.needs("vite") || package.needs("react-scripts")) {
        let reason = format!("its build makes a static site in {folder}/");
        return Some((Command::StaticSite { root: PathBuf::from(folder), options: StaticOptions::default() }, reason));
    }
    None
}
