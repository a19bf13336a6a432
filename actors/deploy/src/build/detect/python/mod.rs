//! Python apps, by their requirements in any of the usual files, by `manage.py`, `main.py` or `app.py`.

mod install;
mod manifest;
mod requirement;
mod server;
mod source;

use std::path::PathBuf;

use self::manifest::Packages;
use super::{
    App, Command, DetectError, Language, OWN, Plan, Scene, Told,
    version::{Asked, choose, not_installed},
};
use crate::{
    WEB,
    build::tools::{Tool, Tools},
};

/// Adds what the app's files say to the plan.
pub(super) fn plan(scene: &Scene<'_>, plan: &mut Plan) -> Result<Told, DetectError> {
    let app = scene.app;
    let packages = Packages::read(app)?;
    let entry = app.first(&["main.py", "app.py"]);
    let django = source::django(app);
    let alone = plan.language == Language::Other;
    let file = match (&packages, &django, entry) {
        (Some(packages), ..) => packages.file,
        (None, Some(_), _) => "manage.py",
        (None, None, Some(entry)) if alone => entry,
        _ => return Ok(Told::Nothing),
    };
    plan.say(format!("{file} makes it a Python app"));
    if alone || !plan.processes.contains_key(WEB) {
        plan.language = Language::Python;
    }
    if !scene.tools.has(Tool::Python) {
        return Err(install::missing(file));
    }
    let asked = asked_version(scene, packages.as_ref())?;
    // Before anything is installed: an app that nothing serves is refused without waiting for a build.
    let web = if scene.has_processes || plan.processes.contains_key(WEB) {
        None
    } else {
        Some(web(app, packages.as_ref(), django.as_ref(), file))
    };
    install::add_steps(app, scene.tools, packages.as_ref(), asked.as_ref(), file, plan)?;
    plan.environment.variables.insert("PYTHONUNBUFFERED".to_owned(), "1".to_owned());
    if let Some(django) = &django {
        if django.has_static_root {
            plan.say("Django's settings name a STATIC_ROOT: collectstatic fills it");
            let collect = ["python3", "manage.py", "collectstatic", "--noinput"];
            plan.step("Collecting static files", Command::exec(&collect));
        }
        plan.say(
            "Django's migrations are not run by themselves; a Procfile's line `release: python3 manage.py migrate` runs \
             them before each rollout",
        );
    }
    match web {
        None => Ok(Told::Planned),
        Some(Web::Runs { command, reason, search }) => {
            plan.say(reason);
            plan.processes.insert(WEB.to_owned(), command);
            if let Some(search) = search {
                let folders = plan.environment.searches.entry("PYTHONPATH".to_owned()).or_default();
                if !folders.contains(&search) {
                    folders.push(search);
                }
            }
            Ok(Told::Planned)
        }
        Some(Web::Unknown(sentence)) => Ok(Told::NoProcess(sentence)),
    }
}

enum Web {
    Runs { command: Command, reason: String, search: Option<PathBuf> },
    Unknown(String),
}

fn web(app: &App, packages: Option<&Packages>, django: Option<&source::Django>, file: &str) -> Web {
    let runs = |line: String, reason: String| Web::Runs { command: Command::Shell(line), reason, search: None };
    let advised = if file.ends_with(".py") || file.ends_with(".lock") { advised(file) } else { file };
    let requirements = server::Requirements { app, packages, file: advised, is_there: app.has(advised) };
    // A server alone starts, and fails at the first import.
    let of_django = || packages.filter(|_| !requirements.lack("django"));
    if let Some(django) = django {
        return match of_django().and_then(|packages| server::of_django(packages, django)) {
            Some(server) => {
                runs(server.line, format!("manage.py makes it a Django project, which {} serves", server.name))
            }
            None => Web::Unknown(server::django_advice(django, &requirements)),
        };
    }
    if let Some(line) = packages.filter(|packages| packages.has("streamlit")).and_then(|_| streamlit(app)) {
        return line;
    }
    if packages.is_some_and(|packages| packages.has("gradio"))
        && let Some(entry) = app.first(&["app.py", "main.py"])
    {
        let line = format!("GRADIO_SERVER_NAME=127.0.0.1 GRADIO_SERVER_PORT=$PORT exec python3 {entry}");
        return runs(line, format!("{entry} is an app of Gradio, which serves itself"));
    }
    if let Some(object) = source::object(app) {
        let installed = packages.filter(|_| !requirements.lack(object.framework));
        if let Some(server) = installed.and_then(|packages| server::of(packages, object.interface, &object.address)) {
            let reason =
                format!("{} makes an app of {}, which {} serves", object.file.display(), object.framework, server.name);
            return Web::Runs { command: Command::Shell(server.line), reason, search: object.search };
        }
        if !object.runs_itself {
            return Web::Unknown(server::advice(&object, &requirements));
        }
        let file = object.file.display().to_string();
        let reason = format!("{file} makes an app of {} and serves it by itself on PORT", object.framework);
        return Web::Runs { command: Command::exec(&["python3", &file]), reason, search: object.search };
    }
    match app.first(&["main.py", "app.py"]) {
        // As generators of projects make it: it prints a line and ends.
        Some(entry) if app.glance(entry).is_some_and(|text| !text.trim().is_empty() && !text.contains("import")) => {
            Web::Unknown(format!(
                "{entry} imports nothing, so it can't listen on PORT; make it a server, or say what runs with a Procfile and \
                 its `web` line"
            ))
        }
        Some(entry) => Web::Runs {
            command: Command::exec(&["python3", entry]),
            reason: format!("{entry} is what runs"),
            search: None,
        },
        None => Web::Unknown(format!(
            "{file} does not say what to run; add a main.py or app.py that listens on PORT, or a Procfile with a `web` \
             line such as `web: gunicorn app:app --bind 0.0.0.0:$PORT`"
        )),
    }
}

/// The file in which requirements are added when another was found.
fn advised(file: &str) -> &'static str {
    match file {
        "uv.lock" | "poetry.lock" => "pyproject.toml",
        "Pipfile.lock" => "Pipfile",
        _ => "requirements.txt",
    }
}

fn streamlit(app: &App) -> Option<Web> {
    let names = app.names("").into_iter().filter(|name| name.ends_with(".py"));
    let preferred = ["streamlit_app.py", "app.py", "main.py"].map(str::to_owned);
    let imports = |name: &String| app.glance(name).is_some_and(|text| text.contains("import streamlit"));
    let entry = preferred.into_iter().chain(names).find(imports)?;
    if !entry.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter)) {
        return None; // its name would have to be quoted
    }
    // Outside of a folder called site-packages it takes itself for a checkout of its own developers.
    let options =
        "--global.developmentMode false --server.port $PORT --server.address 127.0.0.1 --server.headless true";
    let line = format!("python3 -m streamlit run {entry} {options}");
    let reason = format!("{entry} is an app of Streamlit, which serves itself");
    Some(Web::Runs { command: Command::Shell(line), reason, search: None })
}

/// The Python that the owner or the app's files ask for; the first one decides.
fn asked_version(scene: &Scene<'_>, packages: Option<&Packages>) -> Result<Option<Asked>, DetectError> {
    if let Some(asked) = scene.asked("python") {
        return Ok(Some(asked));
    }
    for file in ["runtime.txt", ".python-version"] {
        let text = scene.app.read(file)?.unwrap_or_default();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        let version = line.map(|line| line.trim_start_matches("python-").trim_start_matches("cpython-"));
        if let Some(asked) = version.and_then(|version| Asked::new(format!("`{file}`"), version)) {
            return Ok(Some(asked));
        }
    }
    Ok(packages.and_then(|packages| packages.asked.clone()))
}
