//! Which server runs a Python app that has no `Procfile`.

use super::{
    App,
    manifest::Packages,
    source::{Django, Interface, Object},
};

/// The line of shell that serves an app, and the server's name.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) line: String,
}

/// The server of the app's requirements that has its interface.
pub(super) fn of(packages: &Packages, interface: Interface, address: &str) -> Option<Server> {
    let has = |name: &str| packages.has(name);
    let server = |name, line: String| Some(Server { name, line });
    let (factory, plain) = match address.strip_suffix("()") {
        Some(plain) => (" --factory", plain),
        None => ("", address),
    };
    // In brackets a shell would see a call of its own.
    let quoted = if factory.is_empty() { address.to_owned() } else { format!("'{address}'") };
    let has_uvicorn = ["uvicorn", "uvicorn[standard]", "fastapi[standard]", "fastapi[all]"].into_iter().any(has);
    match interface {
        Interface::Wsgi if has("gunicorn") => {
            server("gunicorn", format!("python3 -m gunicorn {quoted} --bind 127.0.0.1:$PORT"))
        }
        Interface::Wsgi if has("waitress") => {
            let call = if factory.is_empty() { "" } else { "--call " };
            server("waitress", format!("python3 -m waitress --listen=127.0.0.1:$PORT {call}{plain}"))
        }
        Interface::Wsgi if has("granian") => {
            server("granian", format!("python3 -m granian --interface wsgi --port $PORT{factory} {plain}"))
        }
        Interface::Wsgi if has("cheroot") => {
            server("cheroot", format!("python3 -m cheroot {plain} --bind 127.0.0.1:$PORT"))
        }
        Interface::Asgi if has_uvicorn && has("gunicorn") && factory.is_empty() => server(
            "gunicorn with uvicorn",
            format!(
                "python3 -m gunicorn {address} --worker-class uvicorn.workers.UvicornWorker --bind 127.0.0.1:$PORT"
            ),
        ),
        Interface::Asgi if has_uvicorn => {
            server("uvicorn", format!("python3 -m uvicorn {plain}{factory} --host 127.0.0.1 --port $PORT"))
        }
        Interface::Asgi if has("hypercorn") => {
            server("hypercorn", format!("python3 -m hypercorn {quoted} --bind 127.0.0.1:$PORT"))
        }
        Interface::Asgi if has("daphne") => {
            server("daphne", format!("python3 -m daphne --bind 127.0.0.1 --port $PORT {plain}"))
        }
        Interface::Asgi if has("granian") => {
            server("granian", format!("python3 -m granian --interface asgi --port $PORT{factory} {plain}"))
        }
        _ => None,
    }
}

/// The server of a Django project.
pub(super) fn of_django(packages: &Packages, django: &Django) -> Option<Server> {
    let package = &django.package;
    let wsgi = || of(packages, Interface::Wsgi, &format!("{package}.wsgi:application"));
    let asgi =
        || django.has_asgi.then(|| of(packages, Interface::Asgi, &format!("{package}.asgi:application"))).flatten();
    // Channels needs the asynchronous interface.
    if packages.has("channels") { asgi().or_else(wsgi) } else { wsgi().or_else(asgi) }
}

/// A file of requirements, as far as sentences on it go.
pub(super) struct Requirements<'a> {
    pub(super) app: &'a App,
    pub(super) packages: Option<&'a Packages>,
    /// The file that lines are added to.
    pub(super) file: &'a str,
    pub(super) is_there: bool,
}

impl Requirements<'_> {
    /// Whether the app would start without its framework.
    pub(super) fn lack(&self, framework: &str) -> bool {
        let name = framework.to_ascii_lowercase();
        // A framework may be part of the app: Bottle is a single file.
        let is_own = || self.app.has(format!("{name}.py")) || self.app.has_folder(&name);
        self.packages.is_some_and(|packages| packages.lack(&name)) && !is_own()
    }

    /// What is missing for `server` to serve an app of `framework`, and the lines to add.
    fn advice(&self, framework: &str, server: &str) -> String {
        let (file, framework) = (self.file, framework.to_ascii_lowercase());
        let has = |name: &str| self.packages.is_some_and(|packages| packages.has(name));
        match (self.is_there, has(&framework)) {
            (false, false) => format!(
                "there is no {file}; make one with the lines `{framework}` and `{server}`, and whatever else it imports"
            ),
            (false, true) => format!("there is no {file}; make one with the line `{server}` (it is then found)"),
            (true, false) if self.lack(&framework) => {
                format!("nothing in {file} installs it; add the lines `{framework}` and `{server}` to {file}")
            }
            (true, _) => {
                format!("nothing in {file} serves it; add the line `{server}` to {file} (it is then found)")
            }
        }
    }
}

/// How to add a server, and the framework where it is missing, to an app.
pub(super) fn advice(object: &Object, requirements: &Requirements<'_>) -> String {
    let (server, line) = match object.interface {
        Interface::Wsgi => ("gunicorn", format!("web: gunicorn {} --bind 0.0.0.0:$PORT", object.address)),
        Interface::Asgi => ("uvicorn", format!("web: uvicorn {} --host 0.0.0.0 --port $PORT", object.address)),
    };
    let advice = requirements.advice(object.framework, server);
    let file = object.file.display();
    if requirements.lack(object.framework) || requirements.packages.is_none() {
        return format!("{file} makes an app of {}, and {advice}", object.framework);
    }
    format!("{file} makes an app of {}, and {advice}, or a Procfile with the line `{line}`", object.framework)
}

/// The same for a Django project.
pub(super) fn django_advice(django: &Django, requirements: &Requirements<'_>) -> String {
    let advice = requirements.advice("django", "gunicorn");
    if requirements.lack("django") || requirements.packages.is_none() {
        return format!("manage.py makes it a Django project, and {advice}");
    }
    format!(
        "manage.py makes it a Django project, and {advice}, or a Procfile with the line `web: gunicorn {}.wsgi --bind \
         0.0.0.0:$PORT`",
        django.package
    )
}
