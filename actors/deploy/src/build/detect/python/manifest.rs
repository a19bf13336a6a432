//! What a Python app depends on: the file that says so, the names in it, and the Python that it asks for.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use toml::{Table, Value};

use super::{
    App, Asked, DetectError,
    requirement::{listed, names, normalized},
};

/// The file that fixes or lists what is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manifest {
    /// `uv.lock`.
    UvLock,
    /// `poetry.lock`, or Poetry's `pyproject.toml` without one, if that has requirements that only Poetry understands.
    Poetry { locked: bool },
    /// `Pipfile.lock`, or a `Pipfile` without one, if that has requirements that only Pipenv understands.
    Pipenv { locked: bool },
    /// The requirements of a manifest of Poetry or Pipenv without a lock file, as pip has them.
    Listed,
    /// `requirements.txt`.
    Requirements,
    /// `[project]` of `pyproject.toml`; with a build system the app is itself installed.
    Project { is_package: bool },
    /// `setup.py` or `setup.cfg`.
    Setup,
    /// Nothing but programs.
    None,
}

/// What the files of an app say about its packages.
#[derive(Debug)]
pub(super) struct Packages {
    pub(super) manifest: Manifest,
    /// The file that decides, for sentences.
    pub(super) file: &'static str,
    /// Names of direct dependencies, normalized; a name with its extra as well: `fastapi[standard]`.
    pub(super) names: BTreeSet<String>,
    /// Requirements of `[project] dependencies`, as they are.
    pub(super) listed: Vec<String>,
    /// Whether all that is installed is in `names`: no file leads to another, and nothing is installed from an address.
    pub(super) all_named: bool,
    /// Whether there is anything to install.
    pub(super) any: bool,
    /// The Python that a manifest asks for.
    pub(super) asked: Option<Asked>,
}

impl Packages {
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether this framework will surely not be there: nothing is installed but servers, which need no framework.
    pub(super) fn lack(&self, framework: &str) -> bool {
        const SERVERS: [&str; 11] = [
            "gunicorn",
            "uvicorn",
            "uvicorn-worker",
            "waitress",
            "granian",
            "cheroot",
            "hypercorn",
            "daphne",
            "gevent",
            "eventlet",
            "whitenoise",
        ];
        let is_server = |name: &String| SERVERS.contains(&name.split('[').next().unwrap_or(name));
        self.all_named && !self.has(framework) && self.names.iter().all(is_server)
    }

    /// What the app's files say; nothing when it has none that a tool of Python reads.
    pub(super) fn read(app: &App) -> Result<Option<Self>, DetectError> {
        let project = pyproject(app)?;
        let poetry = project.as_ref().and_then(|table| table.get("tool")?.get("poetry")?.as_table().cloned());
        let table = project.as_ref().and_then(|table| table.get("project")?.as_table().cloned());
        let of_poetry = poetry.as_ref().and_then(|poetry| poetry.get("dependencies")?.as_table());
        let requirements = app.read("requirements.txt")?;
        let mut packages = Self {
            manifest: Manifest::None,
            file: "pyproject.toml",
            names: BTreeSet::new(),
            listed: Vec::new(),
            all_named: false,
            any: true,
            asked: None,
        };
        if let Some(table) = &table {
            packages.add_project(table)?;
        }
        if let Some(poetry) = &poetry {
            packages.add_poetry(poetry);
        }
        if let Some(text) = &requirements {
            packages.names.extend(text.lines().flat_map(names));
        }
        let (manifest, file) = if app.has("uv.lock") {
            (Manifest::UvLock, "uv.lock")
        } else if app.has("poetry.lock") {
            (Manifest::Poetry { locked: true }, "poetry.lock")
        } else if app.has("Pipfile.lock") {
            (Manifest::Pipenv { locked: true }, "Pipfile.lock")
        } else if let Some(text) = &requirements {
            let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            packages.all_named = lines.clone().all(|line| !names(line).is_empty());
            packages.any = lines.next().is_some();
            (Manifest::Requirements, "requirements.txt")
        } else if let Some(dependencies) = of_poetry.filter(|_| packages.listed.is_empty()) {
            match listed(dependencies, true) {
                Some(listed) => {
                    packages.any = !listed.is_empty();
                    packages.listed = listed;
                    (Manifest::Listed, "pyproject.toml")
                }
                None => (Manifest::Poetry { locked: false }, "pyproject.toml"),
            }
        } else if table.is_some() || poetry.is_some() {
            let is_package = project.as_ref().is_some_and(|table| table.contains_key("build-system"));
            packages.any = is_package || !packages.listed.is_empty();
            packages.all_named = !is_package && poetry.is_none();
            (Manifest::Project { is_package }, "pyproject.toml")
        } else if app.has("Pipfile") {
            (Manifest::Pipenv { locked: false }, "Pipfile")
        } else if let Some(file) = app.first(&["setup.py", "setup.cfg"]) {
            (Manifest::Setup, file_of_setup(file))
        } else if project.is_some() {
            packages.any = false;
            (Manifest::Project { is_package: false }, "pyproject.toml")
        } else {
            return Ok(None);
        };
        (packages.manifest, packages.file) = (manifest, file);
        if matches!(manifest, Manifest::Pipenv { .. }) {
            packages.add_pipfile(app, manifest == Manifest::Pipenv { locked: true })?;
        }
        if manifest == Manifest::Setup {
            let text = app.glance("setup.cfg").unwrap_or_default() + &app.glance("setup.py").unwrap_or_default();
            packages.names.extend(text.split(['\n', '\'', '"', ',']).flat_map(names));
        }
        Ok(Some(packages))
    }

    fn add_project(&mut self, table: &Table) -> Result<(), DetectError> {
        let bad = |reason: String| DetectError::bad("pyproject.toml", reason);
        if let Some(version) = table.get("requires-python").and_then(Value::as_str) {
            self.asked = Asked::new("`requires-python` of pyproject.toml", version);
        }
        let Some(listed) = table.get("dependencies") else { return Ok(()) };
        let listed = listed.as_array().ok_or_else(|| bad("`project.dependencies` is not a list".to_owned()))?;
        for item in listed {
            let text = item.as_str().map(str::trim).unwrap_or_default();
            // An argument that begins with `-` would be an option of pip.
            if !text.starts_with(|letter: char| letter.is_ascii_alphanumeric()) {
                return Err(bad(format!("`{item}` is not a requirement")));
            }
            self.names.extend(names(text));
            self.listed.push(text.to_owned());
        }
        Ok(())
    }

    fn add_poetry(&mut self, poetry: &Table) {
        let Some(dependencies) = poetry.get("dependencies").and_then(Value::as_table) else { return };
        for (name, value) in dependencies {
            if name == "python" {
                self.asked = value.as_str().and_then(|version| Asked::new("pyproject.toml", version));
                continue;
            }
            self.add(name, value);
        }
    }

    fn add_pipfile(&mut self, app: &App, locked: bool) -> Result<(), DetectError> {
        if let Some(text) = app.read("Pipfile")? {
            let bad = |error: toml::de::Error| DetectError::bad("Pipfile", error.message().to_owned());
            let table: Table = text.parse().map_err(bad)?;
            let dependencies = table.get("packages").and_then(Value::as_table);
            for (name, value) in dependencies.into_iter().flatten() {
                self.add(name, value);
            }
            let mut sources = table.get("source").and_then(Value::as_array).into_iter().flatten();
            let has_own_index = sources.any(|source| {
                source.get("url").and_then(Value::as_str).is_some_and(|url| !url.starts_with("https://pypi.org/"))
            });
            if !locked
                && !has_own_index
                && let Some(listed) = dependencies.and_then(|dependencies| listed(dependencies, false))
            {
                self.any = !listed.is_empty();
                (self.manifest, self.listed) = (Manifest::Listed, listed);
            }
            let requires = table.get("requires");
            let version =
                ["python_full_version", "python_version"].into_iter().find_map(|key| requires?.get(key)?.as_str());
            self.asked = version.and_then(|version| Asked::new("`[requires]` of the Pipfile", version));
        }
        if locked && let Some(text) = app.read("Pipfile.lock")? {
            let bad = |error: serde_json::Error| DetectError::bad("Pipfile.lock", error.to_string());
            let lock: Json = serde_json::from_str(&text).map_err(bad)?;
            let locked = lock.get("default").and_then(Json::as_object);
            self.any = locked.is_some_and(|locked| !locked.is_empty());
            if let Some(version) = lock.pointer("/_meta/requires/python_version").and_then(Json::as_str)
                && self.asked.is_none()
            {
                self.asked = Asked::new("Pipfile.lock", version);
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, value: &Value) {
        let name = normalized(name);
        for extra in value.get("extras").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            self.names.insert(format!("{name}[{extra}]"));
        }
        self.names.insert(name);
    }
}

fn file_of_setup(file: &str) -> &'static str {
    if file == "setup.py" { "setup.py" } else { "setup.cfg" }
}

fn pyproject(app: &App) -> Result<Option<Table>, DetectError> {
    let Some(text) = app.read("pyproject.toml")? else { return Ok(None) };
    let bad = |error: toml::de::Error| {
        let line = error.span().map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        DetectError::bad("pyproject.toml", format!("{line}{}", error.message()))
    };
    text.parse().map(Some).map_err(bad)
}
