//! The smallest apps that failed once, each with what is right for it.

use super::*;

#[test]
fn a_generator_whose_start_script_serves_for_developers_is_served_as_built() {
    let package = r#"{"private": true,
        "scripts": {"start": "ssg --serve", "build": "mkdir -p _site && cp page.html _site/index.html"}}"#;
    let found = plan(&[("package.json", package), ("page.html", "<h1>page</h1>")]).unwrap();
    assert_eq!(commands(&found), ["npm run build"]);
    assert!(matches!(found.processes["web"], Command::StaticSite { .. }));
    assert!(found.publish_alternatives.contains(&PathBuf::from("_site")));
}

#[test]
fn a_single_page_app_answers_its_deep_links() {
    let package = r#"{"private":true,"scripts":{"build":"vite build"},"devDependencies":{"vite":"^5.4.0"}}"#;
    let found = plan(&[("package.json", package), ("index.html", "<!doctype html><div id=app></div>")]).unwrap();
    assert_eq!(site(&found), ("dist".to_owned(), single_page()));
}

#[test]
fn sites_of_pages_are_served_as_they_are() {
    for files in [
        &[("index.html", "two")][..],
        &[("index.html", "home"), ("about.html", "about"), ("blog/index.html", "blog"), ("404.html", "nope")],
    ] {
        assert_eq!(site(&plan(files).unwrap()), (String::new(), StaticOptions::default()));
    }
}

#[test]
fn apps_without_an_entry_are_started_by_the_server_in_their_requirements() {
    let flask = "from flask import Flask\napp = Flask(__name__)\n@app.get(\"/\")\ndef home(): return \"hi\"\n";
    let found = plan(&[("requirements.txt", "flask\ngunicorn\n"), ("app.py", flask)]).unwrap();
    assert_eq!(web(&found), "python3 -m gunicorn app:app --bind 127.0.0.1:$PORT");
    let fastapi = "from fastapi import FastAPI\napp = FastAPI()\n@app.get(\"/\")\ndef home(): return {\"ok\": True}\n";
    let found = plan(&[("requirements.txt", "fastapi\nuvicorn\n"), ("main.py", fastapi)]).unwrap();
    assert_eq!(web(&found), "python3 -m uvicorn main:app --host 127.0.0.1 --port $PORT");
}

#[test]
fn djangos_static_files_are_collected() {
    let settings =
        "SECRET_KEY=\"x\"; DEBUG=False; ALLOWED_HOSTS=[\"*\"]\nSTATIC_URL=\"/static/\"; STATIC_ROOT=\"staticfiles\"\n";
    let manage = "import os,sys\nos.environ[\"DJANGO_SETTINGS_MODULE\"]=\"shop.settings\"\n";
    let found = plan(&[
        ("Procfile", "web: gunicorn shop.wsgi --bind 0.0.0.0:$PORT\n"),
        ("requirements.txt", "django<5.3\ngunicorn\nwhitenoise\n"),
        ("manage.py", manage),
        ("shop/__init__.py", ""),
        ("shop/settings.py", settings),
        ("shop/wsgi.py", ""),
    ])
    .unwrap();
    assert_eq!(commands(&found)[1], "python3 manage.py collectstatic --noinput");
    assert_eq!(web(&found), "gunicorn shop.wsgi --bind 0.0.0.0:$PORT");
}

#[test]
fn lock_files_and_manifests_of_other_tools_are_installed_by_these() {
    let web = ("web.py", "import bottle");
    let poetry = "[tool.poetry]\nname = \"demo\"\nversion = \"0.1.0\"\ndescription = \"\"\nauthors = []\n\
                  package-mode = false\n[tool.poetry.dependencies]\npython = \"^3.9\"\nbottle = \"^0.12\"\n";
    let found = plan(&[("pyproject.toml", poetry), ("Procfile", "web: python3 web.py"), web]).unwrap();
    assert!(commands(&found)[0].ends_with(" bottle>=0.12,<0.13"), "{:?}", found.reasons);
    let found = plan(&[("Pipfile", "[packages]\nbottle = \"*\"\n"), ("app.py", "import bottle")]).unwrap();
    assert!(commands(&found)[0].ends_with(" bottle"), "{:?}", found.reasons);
    let package = r#"{"private": true, "packageManager": "pnpm@9.15.0", "scripts": {"start": "node server.js"},
                      "dependencies": {"greet": "workspace:*"}}"#;
    let found = plan(&[
        ("package.json", package),
        ("pnpm-workspace.yaml", "packages: [\"packages/*\"]\n"),
        ("pnpm-lock.yaml", "lockfileVersion: '9.0'\n"),
        ("packages/greet/package.json", r#"{"name":"greet","version":"1.0.0","main":"index.js"}"#),
    ])
    .unwrap();
    assert!(commands(&found)[1].starts_with("pnpm install --frozen-lockfile"), "{:?}", commands(&found));
    let package = r#"{"private":true,"scripts":{"start":"node s.js"},"dependencies":{"left-pad":"^1.1.0"}}"#;
    let found = plan(&[("package.json", package), ("yarn.lock", "# yarn lockfile v1\n")]).unwrap();
    assert!(commands(&found)[1].starts_with("yarn install --frozen-lockfile"), "{:?}", commands(&found));
}

#[test]
fn a_version_that_is_not_there_is_refused_with_what_is() {
    let only = Tools::given(&[(Tool::Node, "20.20.2"), (Tool::Python, "3.11.2")]);
    let files = [("main.py", ""), (".python-version", "3.9\n"), ("runtime.txt", "python-3.9.20\n")];
    let error = plan_by(&files, &only).unwrap_err().to_string();
    assert!(error.starts_with("`runtime.txt` asks for Python 3.9.20, and this node has 3.11.2; install"), "{error}");
    let package = r#"{"private":true,"engines":{"node":"22.x"},"scripts":{"start":"node s.js"}}"#;
    let error = plan_by(&[("package.json", package)], &only).unwrap_err().to_string();
    assert!(
        error.starts_with("`engines.node` of package.json asks for Node.js 22.x, and this node has 20.20.2"),
        "{error}"
    );
    assert!(says(&plan(&files).unwrap(), "3.9.18 is used"));
}

#[test]
fn a_release_command_is_part_of_the_plan() {
    let procfile = "release: echo migrated > /tmp/x && echo MIGRATED\nweb: python3 web.py\n";
    let found = plan(&[("Procfile", procfile), ("web.py", "")]).unwrap();
    assert_eq!(found.release.unwrap().argv(&[])[2], "echo migrated > /tmp/x && echo MIGRATED");
    assert_eq!(found.processes.keys().collect::<Vec<_>>(), ["web"]);
}
