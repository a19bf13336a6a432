//! What the programs of a Python app are, by their text. Nothing of it is run.

use std::path::{Path, PathBuf};

use super::App;

/// Names of programs that are looked at first, in this order.
const ENTRIES: [&str; 10] = [
    "main.py",
    "app.py",
    "wsgi.py",
    "asgi.py",
    "application.py",
    "server.py",
    "run.py",
    "api.py",
    "index.py",
    "web.py",
];
/// Folders in which they are looked for, besides the app's own packages.
const FOLDERS: [&str; 5] = ["", "app", "src", "src/app", "api"];
/// Most files that are looked at.
const MOST_FILES: usize = 200;

/// The interface between a server and an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    /// Synchronous: Flask, Django, Bottle, Dash.
    Wsgi,
    /// Asynchronous: FastAPI, Starlette, Quart, Litestar.
    Asgi,
}

/// A framework's app in a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) framework: &'static str,
    pub(super) interface: Interface,
    /// `package.module:name`, as servers take it.
    pub(super) address: String,
    /// The file, for sentences and for `python3`.
    pub(super) file: PathBuf,
    /// Whether the file starts a server by itself, on the port of the environment.
    pub(super) runs_itself: bool,
    /// The folder that must be searched for the module, if it is not the app's.
    pub(super) search: Option<PathBuf>,
}

/// Calls that make an app, with the framework and its interface.
const FRAMEWORKS: [(&str, &str, Interface); 9] = [
    ("FastAPI", "FastAPI", Interface::Asgi),
    ("Flask", "Flask", Interface::Wsgi),
    ("Starlette", "Starlette", Interface::Asgi),
    ("Quart", "Quart", Interface::Asgi),
    ("Litestar", "Litestar", Interface::Asgi),
    ("BlackSheep", "Application", Interface::Asgi),
    ("Falcon", "falcon.App", Interface::Wsgi),
    ("Falcon", "falcon.asgi.App", Interface::Asgi),
    ("Bottle", "Bottle", Interface::Wsgi),
];

/// Calls with which a program serves by itself.
const SERVES: [&str; 12] = [
    "uvicorn.run(",
    ".run(",
    "serve(",
    "serve_forever(",
    "run_app(",
    "run_simple(",
    "hypercorn",
    "HTTPServer(",
    "TCPServer(",
    ".listen(",
    "launch(",
    "start_server(",
];

/// The app of a framework, in the first file that has one.
pub(super) fn object(app: &App) -> Option<Object> {
    files(app).into_iter().find_map(|file| in_file(app, &file))
}

/// Whether a program starts a server on the port of the environment.
pub(super) fn serves_itself(text: &str) -> bool {
    text.contains("PORT") && SERVES.iter().any(|call| text.contains(call))
}

/// The files that may have an app, the likeliest first.
fn files(app: &App) -> Vec<PathBuf> {
    let folders = FOLDERS.iter().map(PathBuf::from);
    let packages = ["", "src"].iter().flat_map(|folder| app.folders(folder));
    let packages = packages.filter(|folder| app.has(folder.join("__init__.py")) || app.has(folder.join("main.py")));
    let folders: Vec<PathBuf> = folders.chain(packages).collect();
    let named = folders.iter().flat_map(|folder| ENTRIES.iter().map(move |name| folder.join(name)));
    let packages = folders.iter().map(|folder| folder.join("__init__.py"));
    let others =
        app.names("").into_iter().filter(|name| name.ends_with(".py") && !name.starts_with("test")).map(PathBuf::from);
    let mut all: Vec<PathBuf> = Vec::new();
    for file in named.chain(packages).chain(others) {
        if !all.contains(&file) && app.has(&file) {
            all.push(file);
        }
    }
    all.truncate(MOST_FILES);
    all
}

fn in_file(app: &App, file: &Path) -> Option<Object> {
    let text = app.glance(file)?;
    let (search, module) = module(app, file)?;
    let made = text.lines().find_map(|line| assigned(line, &text));
    let (framework, interface, name) = match made {
        Some((framework, interface, name)) => (framework, interface, name),
        None => {
            // A function that makes it, as Flask's own documentation has it; servers call it.
            let flask = text.contains("Flask(") && text.contains("def create_app(");
            flask.then(|| ("Flask", Interface::Wsgi, "create_app()".to_owned()))?
        }
    };
    Some(Object {
        framework,
        interface,
        address: format!("{module}:{name}"),
        file: file.to_owned(),
        runs_itself: serves_itself(&text),
        search,
    })
}

/// The framework and the name of `app = FastAPI(…)` at the beginning of a line.
fn assigned(line: &str, text: &str) -> Option<(&'static str, Interface, String)> {
    let (target, value) = line.split_once('=')?;
    let name = target.split(':').next()?.trim_end();
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return None; // indented, or no plain name
    }
    let value = value.trim_start();
    let call = value.split('(').next().filter(|_| value.contains('('))?.trim();
    let last = call.rsplit('.').next()?;
    let is_it = |known: &str| if known.contains('.') { call == known } else { last == known };
    let (framework, _, interface) = FRAMEWORKS.iter().find(|(_, known, _)| is_it(known))?;
    // Names that others use as well count only where the framework is imported.
    let imported = text.contains(&format!("import {framework}")) || text.contains(&framework.to_ascii_lowercase());
    imported.then(|| (*framework, *interface, name.to_owned()))
}

/// The module of a file, and the folder that must be searched for it besides the app's.
fn module(app: &App, file: &Path) -> Option<(Option<PathBuf>, String)> {
    let inside_src = file.strip_prefix("src").ok().filter(|_| !app.has("src/__init__.py"));
    let search = inside_src.map(|_| PathBuf::from("src"));
    let path = inside_src.unwrap_or(file);
    let mut parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let last = parts.pop()?;
    let stem = last.strip_suffix(".py")?;
    if stem != "__init__" {
        parts.push(stem.to_owned());
    }
    let is_module = |part: &String| part.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    (!parts.is_empty() && parts.iter().all(is_module)).then(|| (search, parts.join(".")))
}

/// A Django project: its package with `wsgi.py`, and whether that has `asgi.py`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Django {
    pub(super) package: String,
    pub(super) has_asgi: bool,
    /// Whether its settings name a folder for `collectstatic`.
    pub(super) has_static_root: bool,
}

/// The Django project whose `manage.py` is in the app's folder.
pub(super) fn django(app: &App) -> Option<Django> {
    let text = app.glance("manage.py")?;
    // `os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")`, and the same with `=`.
    let after = text.split_once("DJANGO_SETTINGS_MODULE")?.1;
    let settings = after.split(['"', '\'']).find(|part| {
        !part.is_empty() && part.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '.')
    })?;
    let package = settings.split('.').next()?.to_owned();
    let folder = PathBuf::from(&package);
    let has_wsgi = app.has(folder.join("wsgi.py"));
    let module = PathBuf::from(settings.replace('.', "/"));
    let mut files = vec![module.with_extension("py"), module.join("__init__.py")];
    let beside = module.parent().map(Path::to_owned).unwrap_or_default();
    files.extend(
        ["base.py", "common.py", "production.py", "prod.py", "settings.py"].iter().map(|name| beside.join(name)),
    );
    let says = |text: String| {
        // Several assignments may share a line.
        text.lines().any(|line| line.split(';').any(|part| part.trim().starts_with("STATIC_ROOT")))
    };
    let has_static_root = files.iter().filter_map(|file| app.glance(file)).any(says);
    has_wsgi.then(|| Django { has_asgi: app.has(folder.join("asgi.py")), package, has_static_root })
}
