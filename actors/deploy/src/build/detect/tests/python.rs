use super::*;

/// A gunicorn-less app of Flask, and one of FastAPI.
const FLASK: &str = "from flask import Flask\napp = Flask(__name__)\n";
const FASTAPI: &str = "from fastapi import FastAPI\napp = FastAPI()\n";

#[test]
fn python_apps_install_into_the_release() {
    let found = plan(&[("requirements.txt", "# none\nrequests==2\n"), ("app.py", "")]).unwrap();
    assert_eq!(found.language, Language::Python);
    assert!(commands(&found)[0].starts_with("python3 -m pip install --target .callboard/python"));
    assert!(commands(&found)[0].ends_with("--requirement requirements.txt"));
    assert_eq!(web(&found), "python3 app.py");
    let variables = found.environment.variables(Path::new("/r"), "/bin");
    assert_eq!(variables["PATH"], "/r/.callboard/python/bin:/bin");
    assert_eq!(variables["PYTHONPATH"], "/r/.callboard/python");

    let project = "[project]\nname = 'x'\ndependencies = ['requests>=3', 'httpx']\n";
    let found = plan(&[("pyproject.toml", project), ("main.py", ""), ("app.py", "")]).unwrap();
    assert!(commands(&found)[0].ends_with("requests>=3 httpx"));
    assert_eq!(web(&found), "python3 main.py");
    assert!(plan(&[("pyproject.toml", "[project]\nname='x'\n"), ("app.py", "")]).unwrap().steps.is_empty());
    assert!(plan(&[("main.py", "")]).is_ok());
    let option = "[project]\ndependencies = ['--index-url=https://evil']\n";
    assert!(matches!(plan(&[("pyproject.toml", option), ("app.py", "")]), Err(DetectError::BadFile { .. })));
    assert!(matches!(plan(&[("requirements.txt", "")]), Err(DetectError::NoProcess(_))));
}

#[test]
fn packages_of_their_own_are_installed_with_their_requirements() {
    let project = "[build-system]\nrequires = ['hatchling']\n[project]\nname = 'x'\ndependencies = ['requests']\n";
    let found = plan(&[("pyproject.toml", project), ("src/x/__init__.py", ""), ("main.py", "")]).unwrap();
    assert!(commands(&found)[0].ends_with(" ."), "{:?}", commands(&found));
    let variables = found.environment.variables(Path::new("/r"), "/bin");
    assert_eq!(variables["PYTHONPATH"], "/r/.callboard/python:/r/src");
    for file in ["setup.py", "setup.cfg"] {
        let found = plan(&[(file, "[options]\ninstall_requires =\n  requests\n"), ("main.py", "")]).unwrap();
        assert!(commands(&found)[0].ends_with(" ."), "{file}");
    }
}

#[test]
fn lock_files_are_read_by_their_own_tool() {
    let project = "[project]\nname = 'x'\ndependencies = ['requests']\n";
    let main = ("main.py", "");
    let files = [("uv.lock", "version = 1"), ("pyproject.toml", project), main];
    let found = plan(&files).unwrap();
    let steps = commands(&found);
    assert!(steps[0].contains("--target .callboard/tools") && steps[0].ends_with(" uv"), "{steps:?}");
    assert!(steps[1].contains(".callboard/tools/bin/uv export --frozen --no-dev"), "{steps:?}");
    assert!(steps[2].ends_with("--no-deps --requirement .callboard/requirements.txt"), "{steps:?}");
    assert_eq!(steps[3], "rm -rf .callboard/tools");
    let steps = commands(&plan_by(&files, &with(&[(Tool::Uv, "0.5.0")])).unwrap());
    assert!(steps.len() == 2 && steps[0].contains("&& uv export"), "{steps:?}");

    let poetry = "[tool.poetry]\nname = 'x'\n[tool.poetry.dependencies]\npython = '^3.9'\nrequests = '^2'\n";
    let steps = commands(&plan(&[("poetry.lock", ""), ("pyproject.toml", poetry), main]).unwrap());
    assert!(steps[0].ends_with(" poetry-plugin-export"), "{steps:?}");
    assert!(steps[1].contains("python3 -m poetry export --only main"), "{steps:?}");
    // Without a lock file nothing is lost when pip reads the manifest, as far as it understands that.
    let steps = commands(&plan(&[("pyproject.toml", poetry), main]).unwrap());
    assert!(steps.len() == 1 && steps[0].ends_with(" requests>=2,<3"), "{steps:?}");
    let git = poetry.replace("requests = '^2'", "requests = { git = 'https://example.com/x.git' }");
    let steps = commands(&plan(&[("pyproject.toml", &git), main]).unwrap());
    assert!(steps[1].contains("poetry lock"), "{steps:?}");

    let pipfile = "[packages]\nrequests = '*'\n";
    let lock = r#"{"_meta":{"requires":{"python_version":"3.12"}},"default":{"requests":{"version":"==2.0.0"}}}"#;
    let steps = commands(&plan(&[("Pipfile", pipfile), ("Pipfile.lock", lock), main]).unwrap());
    assert!(steps[1].contains("python3 -m pipenv requirements --hash > .callboard/requirements.txt"), "{steps:?}");
    let steps = commands(&plan(&[("Pipfile", pipfile), main]).unwrap());
    assert!(steps.len() == 1 && steps[0].ends_with(" requests"), "{steps:?}");
    let index = format!("[[source]]\nurl = 'https://example.com/simple'\n{pipfile}");
    let steps = commands(&plan_by(&[("Pipfile", &index), main], &with(&[(Tool::Pipenv, "2024.0.0")])).unwrap());
    assert_eq!(steps[0], "pipenv lock");

    // A lock file is never ignored for a list without versions.
    let both = [("requirements.txt", "requests"), ("poetry.lock", ""), ("pyproject.toml", poetry), main];
    assert!(says(&plan(&both).unwrap(), "poetry.lock fixes the versions"));
}

#[test]
fn versions_of_poetry_are_put_into_pips_words() {
    for (asked, requirement) in [
        ("^1.2", "x>=1.2,<2"),
        ("^0.12", "x>=0.12,<0.13"),
        ("^0.0.3", "x>=0.0.3,<0.0.4"),
        ("^0", "x>=0,<1"),
        ("~1.2.3", "x>=1.2.3,<1.3"),
        ("~1", "x>=1,<2"),
        ("1.2.3", "x==1.2.3"),
        (">=1, <2", "x>=1,<2"),
        ("1.*", "x==1.*"),
        ("*", "x"),
    ] {
        let text = format!("[tool.poetry]\n[tool.poetry.dependencies]\nx = '{asked}'\n");
        let steps = commands(&plan(&[("pyproject.toml", &text), ("main.py", "")]).unwrap());
        assert!(steps[0].ends_with(&format!(" {requirement}")), "{asked}: {steps:?}");
    }
    let text = "[tool.poetry]\n[tool.poetry.dependencies]\nx = { version = '^1', extras = ['a', 'b'] }\n";
    let steps = commands(&plan(&[("pyproject.toml", text), ("main.py", "")]).unwrap());
    assert!(steps[0].ends_with(" x[a,b]>=1,<2"), "{steps:?}");
}

#[test]
fn apps_of_frameworks_are_started_by_the_server_in_their_requirements() {
    for (requirements, file, text, runs) in [
        ("flask\ngunicorn", "app.py", FLASK, "python3 -m gunicorn app:app --bind 127.0.0.1:$PORT"),
        ("Flask==3\nwaitress", "app.py", FLASK, "python3 -m waitress --listen=127.0.0.1:$PORT app:app"),
        ("fastapi\nuvicorn", "main.py", FASTAPI, "python3 -m uvicorn main:app --host 127.0.0.1 --port $PORT"),
        ("fastapi[standard]", "app/main.py", FASTAPI, "python3 -m uvicorn app.main:app --host 127.0.0.1 --port $PORT"),
        ("fastapi\nhypercorn", "main.py", FASTAPI, "python3 -m hypercorn main:app --bind 127.0.0.1:$PORT"),
        ("fastapi\ndaphne", "main.py", FASTAPI, "python3 -m daphne --bind 127.0.0.1 --port $PORT main:app"),
        (
            "fastapi\nuvicorn\ngunicorn",
            "main.py",
            FASTAPI,
            "python3 -m gunicorn main:app --worker-class uvicorn.workers.UvicornWorker --bind 127.0.0.1:$PORT",
        ),
        (
            "flask\ngunicorn",
            "shop/__init__.py",
            "from flask import Flask\ndef create_app():\n    app = Flask(__name__)\n    return app\n",
            "python3 -m gunicorn 'shop:create_app()' --bind 127.0.0.1:$PORT",
        ),
        (
            "quart\nhypercorn",
            "server.py",
            "import quart\napi: quart.Quart = quart.Quart(__name__)\n",
            "python3 -m hypercorn server:api --bind 127.0.0.1:$PORT",
        ),
        (
            "streamlit",
            "streamlit_app.py",
            "import streamlit as st\n",
            "python3 -m streamlit run streamlit_app.py --global.developmentMode false --server.port $PORT --server.address 127.0.0.1 --server.headless true",
        ),
    ] {
        let found = plan(&[("requirements.txt", requirements), (file, text)]).unwrap();
        assert_eq!(web(&found), runs, "{requirements}");
    }
    let project = "[project]\nname = 'x'\ndependencies = ['fastapi', 'uvicorn[standard]']\n";
    let found =
        plan(&[("pyproject.toml", project), ("src/shop/__init__.py", ""), ("src/shop/main.py", FASTAPI)]).unwrap();
    assert_eq!(web(&found), "python3 -m uvicorn shop.main:app --host 127.0.0.1 --port $PORT");
    assert!(found.environment.variables(Path::new("/r"), "")["PYTHONPATH"].ends_with(":/r/src"));
}

#[test]
fn a_program_that_imports_nothing_serves_nothing() {
    let text = "def main():\n    print('Hello from app!')\n\n\nif __name__ == '__main__':\n    main()\n";
    let error = refusal(&[("pyproject.toml", "[project]\nname = 'app'\n"), ("main.py", text)]);
    assert!(error.starts_with("main.py imports nothing"), "{error}");
}

#[test]
fn an_app_that_serves_itself_on_its_port_runs_as_it_is() {
    let text = format!("{FLASK}if __name__ == '__main__':\n    app.run(port=int(os.environ['PORT']))\n");
    assert_eq!(web(&plan(&[("requirements.txt", "flask"), ("app.py", &text)]).unwrap()), "python3 app.py");
}

#[test]
fn an_app_that_nothing_serves_is_refused_with_the_lines_to_add() {
    let error = refusal(&[("requirements.txt", "flask\n"), ("app.py", FLASK)]);
    assert!(error.contains("add the line `gunicorn` to requirements.txt"), "{error}");
    assert!(error.contains("`web: gunicorn app:app --bind 0.0.0.0:$PORT`"), "{error}");
    let error = refusal(&[("requirements.txt", "fastapi\n"), ("main.py", FASTAPI)]);
    assert!(error.contains("add the line `uvicorn` to requirements.txt"), "{error}");
    assert!(error.contains("`web: uvicorn main:app --host 0.0.0.0 --port $PORT`"), "{error}");
    let poetry = "[tool.poetry]\n[tool.poetry.dependencies]\nfastapi = '*'\n";
    let error = refusal(&[("poetry.lock", ""), ("pyproject.toml", poetry), ("main.py", FASTAPI)]);
    assert!(error.contains("to pyproject.toml"), "{error}");
}

/// A Django project as `django-admin startproject shop .` makes it, with these settings.
fn django(requirements: &str, settings: &str) -> Result<Plan, DetectError> {
    let manage = "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n";
    plan(&[
        ("requirements.txt", requirements),
        ("manage.py", manage),
        ("shop/__init__.py", ""),
        ("shop/settings.py", settings),
        ("shop/wsgi.py", ""),
        ("shop/asgi.py", ""),
    ])
}

#[test]
fn django_collects_its_static_files_and_is_served() {
    let found = django("django\ngunicorn", "STATIC_URL = 'static/'\nSTATIC_ROOT = BASE_DIR / 'static'\n").unwrap();
    assert_eq!(commands(&found)[1], "python3 manage.py collectstatic --noinput");
    assert_eq!(web(&found), "python3 -m gunicorn shop.wsgi:application --bind 127.0.0.1:$PORT");
    assert!(says(&found, "release: python3 manage.py migrate"));
    let found = django("django\ngunicorn", "STATIC_URL = 'static/'\n# STATIC_ROOT = 'x'\n").unwrap();
    assert_eq!(found.steps.len(), 1);
    let found = django("django\nuvicorn", "").unwrap();
    assert_eq!(web(&found), "python3 -m uvicorn shop.asgi:application --host 127.0.0.1 --port $PORT");
    let error = django("django", "").unwrap_err().to_string();
    assert!(error.contains("`web: gunicorn shop.wsgi --bind 0.0.0.0:$PORT`"), "{error}");
}

#[test]
fn a_django_project_without_requirements_is_told_what_to_add() {
    let error = refusal(&[
        ("manage.py", "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')"),
        ("shop/wsgi.py", ""),
    ]);
    assert!(error.contains("there is no requirements.txt; make one with the lines `django` and `gunicorn`"), "{error}");
    for (file, text, line) in
        [("app.py", FLASK, "`flask` and `gunicorn`"), ("main.py", FASTAPI, "`fastapi` and `uvicorn`")]
    {
        let error = refusal(&[(file, text)]);
        assert!(error.contains("there is no requirements.txt") && error.contains(line), "{error}");
    }
}

#[test]
fn a_server_without_the_framework_is_refused_because_it_could_not_import_the_app() {
    let error = django("gunicorn\nwhitenoise", "").unwrap_err().to_string();
    assert!(error.contains("add the lines `django` and `gunicorn` to requirements.txt"), "{error}");
    let error = refusal(&[("requirements.txt", "gunicorn"), ("app.py", FLASK)]);
    assert!(error.contains("add the lines `flask` and `gunicorn` to requirements.txt"), "{error}");
    let error = refusal(&[("requirements.txt", "uvicorn[standard]"), ("main.py", FASTAPI)]);
    assert!(error.contains("add the lines `fastapi` and `uvicorn` to requirements.txt"), "{error}");
    let bottle =
        [("requirements.txt", "gunicorn"), ("app.py", "import bottle\napp = bottle.Bottle()\n"), ("bottle.py", "")];
    assert_eq!(web(&plan(&bottle).unwrap()), "python3 -m gunicorn app:app --bind 127.0.0.1:$PORT");
    // What else is named may bring the framework.
    assert!(django("djangorestframework\ngunicorn", "").is_ok());
    assert!(django("-r requirements/base.txt\ngunicorn", "").is_ok());
}

#[test]
fn a_python_app_without_python_or_pip_is_refused_before_its_build() {
    let node = Tools::given(&[(Tool::Node, "20.0.0")]);
    let error = plan_by(&[("requirements.txt", "flask"), ("app.py", "")], &node).unwrap_err().to_string();
    let get = "`requirements.txt`: Python is not installed on this node; `apt-get install python3 python3-pip`";
    assert_eq!(error, get);
}
