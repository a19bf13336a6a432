//! PHP apps, by their `composer.json` or `index.php`.
//!
//! PHP's own server is for developers and never goes public: an app is served by FrankenPHP, where the node has it, or by
//! what its `Procfile` says.

use std::path::PathBuf;

use serde_json::Value;

use super::{
    Command, DetectError, Language, Plan, Scene, Told,
    version::{Asked, choose, require},
};
use crate::{WEB, build::tools::Tool};

/// Adds what the app's files say to the plan.
pub(super) fn plan(scene: &Scene<'_>, plan: &mut Plan) -> Result<Told, DetectError> {
    let app = scene.app;
    let text = app.read("composer.json")?;
    let pages = ["public", "web", ""].into_iter().find(|folder| app.has(PathBuf::from(folder).join("index.php")));
    let file = match (&text, pages) {
        (Some(_), _) => "composer.json",
        (None, Some(_)) if plan.language == Language::Other => "index.php",
        _ => return Ok(Told::Nothing),
    };
    plan.say(format!("{file} makes it a PHP app"));
    plan.language = Language::Php;
    let composer: Value = match &text {
        Some(text) => {
            serde_json::from_str(text).map_err(|error| DetectError::bad("composer.json", error.to_string()))?
        }
        None => Value::Null,
    };
    let wants = composer.pointer("/require/php").and_then(Value::as_str);
    let asked = scene.asked("php");
    let asked =
        asked.or_else(|| Asked::new("`require.php` of composer.json", wants?.replace('|', "||").replace("||||", "||")));
    let has_packages =
        composer.get("require").and_then(Value::as_object).is_some_and(|all| all.keys().any(|name| name.contains('/')));
    let franken = scene.tools.has(Tool::FrankenPhp);
    if has_packages || !franken || scene.has_processes {
        let (php, sentences) = choose(scene.tools, Tool::Php, file, asked.as_ref())?;
        plan.reasons.extend(sentences);
        plan.depends_on(&format!("PHP {}", php.version));
    }
    if has_packages {
        require(scene.tools, Tool::Composer, "composer.json")?;
        if let Some(digest) = app.digest("composer.lock")? {
            plan.say("composer.lock fixes the versions");
            plan.depends_on(&format!("composer.lock {digest}"));
        }
        let install = ["composer", "install", "--no-dev", "--no-interaction", "--optimize-autoloader", "--no-progress"];
        plan.step("Installing packages", Command::exec(&install));
    }
    if scene.has_processes || plan.processes.contains_key(WEB) {
        return Ok(Told::Planned);
    }
    match pages {
        Some(folder) if franken => {
            let root = if folder.is_empty() { "." } else { folder };
            plan.say(format!("FrankenPHP serves {root}/"));
            let line = format!("frankenphp php-server --listen 127.0.0.1:$PORT --root {root}");
            plan.processes.insert(WEB.to_owned(), Command::Shell(line));
            Ok(Told::Planned)
        }
        _ => Ok(Told::NoProcess(format!(
            "{file} makes it a PHP app, and this node has no web server for PHP: `php -S` is for developers and never goes \
             public; install FrankenPHP (https://frankenphp.dev), which is then found, or add a Procfile with a `web` line"
        ))),
    }
}
