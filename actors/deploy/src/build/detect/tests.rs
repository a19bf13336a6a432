use std::fs;

use super::*;

fn app(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn plan(files: &[(&str, &str)]) -> Result<Plan, DetectError> {
    detect(app(files).path(), &BuildConfig::default())
}

fn commands(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| step.command.shown()).collect()
}

fn web(plan: &Plan) -> String {
    plan.processes["web"].shown()
}

#[test]
fn the_examples_are_recognized() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for (name, language, processes) in [
        ("static", Language::Static, &["web"][..]),
        ("node", Language::Node, &["web"]),
        ("python", Language::Python, &["web"]),
        ("procfile", Language::Python, &["web", "worker"]),
    ] {
        let plan = detect(&examples.join(name), &BuildConfig::default()).unwrap();
        assert_eq!(plan.language, language, "{name}");
        assert_eq!(plan.processes.keys().collect::<Vec<_>>(), processes, "{name}");
        assert!(plan.steps.is_empty(), "{name} needs no network to build");
    }
}

#[test]
fn node_apps_install_build_and_start() {
    let package = r#"{"scripts":{"build":"tsc","start":"node dist/server.js"},"dependencies":{"a":"1"},"devDependencies":{"b":"1"}}"#;
    let found = plan(&[("package.json", package), ("package-lock.json", "{}")]).unwrap();
    assert_eq!(
        commands(&found),
        [
            "npm ci --include=dev --no-audit --no-fund --no-update-notifier",
            "npm run build",
            "npm prune --omit=dev --no-audit --no-fund --no-update-notifier"
        ]
    );
    assert_eq!(web(&found), "node dist/server.js");
    let package = r#"{"dependencies":{"a":"1"},"main":"app.js"}"#;
    let found = plan(&[("package.json", package), ("app.js", "")]).unwrap();
    assert_eq!(commands(&found), ["npm install --omit=dev --no-audit --no-fund --no-update-notifier"]);
    assert_eq!(web(&found), "node app.js");
}

#[test]
fn node_apps_start_by_script_main_or_name() {
    let start = |package: &str| web(&plan(&[("package.json", package), ("server.js", ""), ("m.js", "")]).unwrap());
    assert_eq!(start("{}"), "node server.js");
    assert_eq!(start(r#"{"main":"m.js"}"#), "node m.js");
    assert_eq!(start(r#"{"main":"gone.js"}"#), "node server.js");
    assert_eq!(start(r#"{"main":"--eval=1"}"#), "node server.js");
    assert_eq!(start(r#"{"scripts":{"start":"next start"}}"#), "npm start");
    assert_eq!(start(r#"{"scripts":{"start":"node a.js && node b.js"}}"#), "npm start");
    assert_eq!(start(r#"{"scripts":{"start":"node a.js","prestart":"x"}}"#), "npm start");
    let vite = r#"{"scripts":{"build":"vite build"},"devDependencies":{"vite":"5"}}"#;
    let found = plan(&[("package.json", vite), ("index.html", "")]).unwrap();
    assert_eq!(found.processes["web"], Command::StaticSite { root: "dist".into(), options: StaticOptions::default() });
    let error = plan(&[("package.json", r#"{"scripts":{"build":"x"}}"#)]).unwrap_err();
    assert!(error.to_string().contains("add a `start` script"), "{error}");
}

#[test]
fn python_apps_install_into_the_release() {
    let found = plan(&[("requirements.txt", "# none\nflask==3\n"), ("app.py", "")]).unwrap();
    assert_eq!(found.language, Language::Python);
    assert!(commands(&found)[0].starts_with("python3 -m pip install --target .callboard/python"));
    assert!(commands(&found)[0].ends_with("--requirement requirements.txt"));
    assert_eq!(web(&found), "python3 app.py");
    let variables = found.environment.variables(Path::new("/r"), "/bin");
    assert_eq!(variables["PATH"], "/r/.callboard/python/bin:/bin");
    assert_eq!(variables["PYTHONPATH"], "/r/.callboard/python");

    let project = "[project]\nname = 'x'\ndependencies = ['flask>=3', 'httpx']\n";
    let found = plan(&[("pyproject.toml", project), ("main.py", ""), ("app.py", "")]).unwrap();
    assert!(commands(&found)[0].ends_with("flask>=3 httpx"));
    assert_eq!(web(&found), "python3 main.py");
    assert!(plan(&[("pyproject.toml", "[project]\nname='x'\n"), ("app.py", "")]).unwrap().steps.is_empty());
    assert!(plan(&[("main.py", "")]).is_ok());
    let option = "[project]\ndependencies = ['--index-url=https://evil']\n";
    assert!(matches!(plan(&[("pyproject.toml", option), ("app.py", "")]), Err(DetectError::BadFile { .. })));
    assert!(matches!(plan(&[("requirements.txt", "")]), Err(DetectError::NoProcess(_))));
}

#[test]
fn a_procfile_names_the_processes_of_any_language() {
    let procfile = "# what runs\nweb: gunicorn app:app --bind 0.0.0.0:$PORT\n\nworker: python3 work.py\nrelease: x\n";
    let found = plan(&[("Procfile", procfile), ("requirements.txt", "gunicorn")]).unwrap();
    assert_eq!(found.language, Language::Python);
    assert_eq!(found.processes.keys().collect::<Vec<_>>(), ["web", "worker"]);
    assert_eq!(found.release, Some(Command::Shell("x".to_owned())));
    let found = plan(&[("Procfile", "worker: ./run"), ("package.json", "{}"), ("index.js", "")]).unwrap();
    assert_eq!(found.processes.keys().collect::<Vec<_>>(), ["worker"]);
    let found = plan(&[("Procfile", "web: ./server")]).unwrap();
    assert_eq!(found.language, Language::Other);
}

#[test]
fn procfiles_with_mistakes_are_told_by_line() {
    for (text, part) in [
        ("", "names no process"),
        ("web: x\nnonsense", "line 2 is not"),
        ("we b: x", "line 1: a process type"),
        ("web:", "line 1: `web` needs a command"),
        ("web: x\nweb: y", "line 2: `web` is there twice"),
    ] {
        let error = plan(&[("Procfile", text)]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn static_sites_are_served_from_where_their_page_is() {
    for (file, root) in [("index.html", ""), ("public/index.html", "public"), ("dist/index.html", "dist")] {
        let found = plan(&[(file, ""), ("README.md", "")]).unwrap();
        assert_eq!(found.language, Language::Static);
        assert_eq!(
            found.processes["web"],
            Command::StaticSite { root: root.into(), options: StaticOptions::default() }
        );
    }
    let server = ["callboard".to_owned(), "static-server".to_owned()];
    let site = |options| Command::StaticSite { root: "".into(), options }.argv(&server);
    assert_eq!(site(StaticOptions::default()), ["callboard", "static-server", "."]);
    let options = StaticOptions { single_page: Some(true), clean_urls: None, trailing_slash: Some(false) };
    assert_eq!(site(options), ["callboard", "static-server", "--single-page=true", "--trailing-slash=false", "."]);
}

#[test]
fn a_dockerfile_alone_is_refused_with_a_way_out() {
    let error = plan(&[("Dockerfile", "FROM scratch")]).unwrap_err();
    assert!(matches!(error, DetectError::DockerfileOnly));
    assert!(error.to_string().contains("add a Procfile"), "{error}");
    let found = plan(&[("Dockerfile", ""), ("Procfile", "web: ./x")]).unwrap();
    assert!(found.reasons.iter().any(|reason| reason.contains("Dockerfile is not used")));
}

#[test]
fn what_is_unknown_is_told_with_what_was_looked_for() {
    let error = plan(&[("main.rs", ""), ("notes.txt", "")]).unwrap_err().to_string();
    assert!(
        error.contains("looked for Procfile, package.json") && error.contains("Found: main.rs, notes.txt"),
        "{error}"
    );
}

#[test]
fn files_that_are_not_what_they_should_be_are_refused() {
    let large = "x".repeat(2 * 1024 * 1024);
    for files in [
        [("package.json", "{")],
        [("package.json", "[]")],
        [("package.json", r#"{"scripts":[]}"#)],
        [("pyproject.toml", "=")],
        [("Procfile", large.as_str())],
    ] {
        let error = plan(&files).unwrap_err();
        assert!(matches!(error, DetectError::BadFile { .. }), "{error:?}");
    }
}

#[test]
fn one_folder_in_an_archive_is_the_app() {
    let found = plan(&[("my-app/package.json", "{}"), ("my-app/index.js", "")]).unwrap();
    assert_eq!(found.root, Path::new("my-app"));
    let found = plan(&[("my-app/index.html", ""), ("__MACOSX/x", ""), (".git/config", "")]).unwrap();
    assert_eq!(found.root, Path::new("my-app"));
}

#[test]
fn the_owners_configuration_wins() {
    let folder =
        app(&[("apps/web/package.json", r#"{"dependencies":{"a":"1"}}"#), ("apps/web/index.js", ""), ("x", "")]);
    let config = BuildConfig {
        root: Some("./apps/web".into()),
        build_command: Some(" make all ".into()),
        start_command: Some("./serve --port $PORT".into()),
    };
    let found = detect(folder.path(), &config).unwrap();
    assert_eq!(found.root, Path::new("apps/web"));
    assert_eq!(commands(&found), ["make all"]);
    assert_eq!(found.processes["web"].argv(&[]), ["/bin/sh", "-c", "exec ./serve --port $PORT"]);
    std::os::unix::fs::symlink("/etc", folder.path().join("out")).unwrap();
    for root in ["..", "/etc", "apps/../..", "gone", "apps/web/index.js", "out"] {
        let config = BuildConfig { root: Some(root.into()), ..BuildConfig::default() };
        assert!(matches!(detect(folder.path(), &config), Err(DetectError::BadConfig(_))), "{root}");
    }
}

#[test]
fn links_are_followed_within_the_source_only() {
    use std::os::unix::fs::symlink;
    let folder =
        app(&[("source/shared/package.json", r#"{"main":"a.js"}"#), ("source/v2/a.js", ""), ("outside.js", "")]);
    let source = folder.path().join("source");
    symlink("../shared/package.json", source.join("v2/package.json")).unwrap();
    symlink("v2", source.join("current")).unwrap();
    let config = BuildConfig { root: Some("current".into()), ..BuildConfig::default() };
    let found = detect(&source, &config).unwrap();
    assert_eq!((found.root.as_path(), web(&found).as_str()), (Path::new("v2"), "node a.js"));

    fs::remove_file(source.join("v2/a.js")).unwrap();
    symlink("../../outside.js", source.join("v2/a.js")).unwrap();
    assert!(matches!(detect(&source, &config), Err(DetectError::NoProcess(_))));
    fs::write(folder.path().join("outside"), "web: node outside.js\n").unwrap();
    symlink(folder.path().join("outside"), source.join("v2/Procfile")).unwrap();
    nix::unistd::mkfifo(&source.join("v2/requirements.txt"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(detect(&source, &config), Err(DetectError::NoProcess(_))));
}

#[test]
fn exec_is_put_before_plain_commands_only() {
    let line = |text: &str| Command::Shell(text.to_owned()).argv(&[])[2].clone();
    assert_eq!(line("python3 app.py --port $PORT"), "exec python3 app.py --port $PORT");
    for text in ["cd web && node x", "A=1 node x", "node x | tee y", "exec node x", "if true; then x; fi", "export A=1"]
    {
        assert_eq!(line(text), text);
    }
}
