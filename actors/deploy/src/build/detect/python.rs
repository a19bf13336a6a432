//! Python apps, by `requirements.txt`, `pyproject.toml`, `main.py` or `app.py`.
//!
//! Packages are installed into a folder of the release (`pip install --target`) and not into a virtual environment:
//! the scripts of an environment hold the absolute path it was made at, and a release is unpacked elsewhere.

use std::path::PathBuf;

use super::{App, Command, DetectError, Language, Plan, Step};

const PACKAGES: &str = ".callboard/python";

/// Adds what the app's files say to the plan; returns a sentence when they do not say what to run.
pub(super) fn plan(app: &App, plan: &mut Plan) -> Result<Option<String>, DetectError> {
    let requirements = app.read("requirements.txt")?;
    let project = app.read("pyproject.toml")?;
    let entry = ["main.py", "app.py"].into_iter().find(|file| app.has(file));
    let alone = plan.language == Language::Other;
    let told = match (&requirements, &project, entry) {
        (Some(_), ..) => "requirements.txt",
        (None, Some(_), _) => "pyproject.toml",
        (None, None, Some(entry)) if alone => entry,
        _ => return Ok(None),
    };
    plan.reasons.push(format!("{told} makes it a Python app"));
    if alone {
        plan.language = Language::Python;
    }
    let arguments = match (requirements, project) {
        (Some(text), _) if has_requirements(&text) => vec!["--requirement".to_owned(), "requirements.txt".to_owned()],
        (Some(_), _) => Vec::new(),
        (None, Some(text)) => dependencies(&text)?,
        (None, None) => Vec::new(),
    };
    if arguments.is_empty() {
        plan.reasons.push("it has no requirements to install".to_owned());
    } else {
        let pip = ["python3", "-m", "pip", "install", "--target", PACKAGES, "--no-compile", "--no-input"];
        let quiet = ["--disable-pip-version-check", "--no-warn-script-location", "--progress-bar=off"];
        let argv = pip.into_iter().chain(quiet).map(str::to_owned).chain(arguments).collect();
        plan.steps.push(Step { title: "Installing requirements".to_owned(), command: Command::Exec(argv) });
        plan.environment.path.push(PathBuf::from(PACKAGES).join("bin"));
        plan.environment.folders.insert("PYTHONPATH".to_owned(), PathBuf::from(PACKAGES));
    }
    plan.environment.variables.insert("PYTHONUNBUFFERED".to_owned(), "1".to_owned());

    if plan.processes.contains_key("web") {
        return Ok(None);
    }
    let Some(entry) = entry else {
        return Ok(Some(format!(
            "{told} does not say what to run; add a main.py or app.py that listens on PORT, or a Procfile with a \
             `web` line such as `web: gunicorn app:app --bind 0.0.0.0:$PORT`"
        )));
    };
    plan.reasons.push(format!("{entry} is what runs"));
    plan.processes.insert("web".to_owned(), Command::Exec(vec!["python3".to_owned(), entry.to_owned()]));
    Ok(None)
}

fn has_requirements(text: &str) -> bool {
    text.lines().any(|line| !line.trim().is_empty() && !line.trim().starts_with('#'))
}

/// The entries of `[project] dependencies`: the app runs from its folder, so it is not itself installed.
fn dependencies(text: &str) -> Result<Vec<String>, DetectError> {
    let bad = |reason: String| DetectError::BadFile { file: "pyproject.toml", reason };
    let project: toml::Table = text.parse().map_err(|error: toml::de::Error| bad(error.message().to_owned()))?;
    let Some(listed) = project.get("project").and_then(|table| table.get("dependencies")) else {
        return Ok(Vec::new());
    };
    let listed = listed.as_array().ok_or_else(|| bad("`project.dependencies` is not a list".to_owned()))?;
    let texts = listed.iter().map(|item| {
        let text = item.as_str().map(str::trim).unwrap_or_default();
        // An argument that begins with `-` would be an option of pip.
        let good = text.starts_with(|letter: char| letter.is_ascii_alphanumeric());
        good.then(|| text.to_owned()).ok_or_else(|| bad(format!("`{item}` is not a requirement")))
    });
    texts.collect()
}
