mod cases;
mod file;
mod frameworks;
mod node;
mod others;
mod python;
mod versions;

use std::fs;

use super::*;
use crate::build::tools::Tool;

/// A machine with the usual tools, and nothing of the other languages.
const USUAL: [(Tool, &str); 5] = [
    (Tool::Node, "20.20.2"),
    (Tool::Npm, "10.9.0"),
    (Tool::Corepack, "0.34.0"),
    (Tool::Python, "3.12.1"),
    (Tool::Python, "3.9.18"),
];

pub(super) fn usual() -> Tools {
    Tools::given(&USUAL)
}

/// The usual tools and these.
fn with(tools: &[(Tool, &str)]) -> Tools {
    Tools::given(&USUAL.iter().chain(tools).copied().collect::<Vec<_>>())
}

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
    plan_by(files, &usual())
}

fn plan_by(files: &[(&str, &str)], tools: &Tools) -> Result<Plan, DetectError> {
    detect(app(files).path(), &BuildConfig::default(), tools)
}

fn refusal(files: &[(&str, &str)]) -> String {
    plan(files).unwrap_err().to_string()
}

fn commands(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| step.command.shown()).collect()
}

fn web(plan: &Plan) -> String {
    plan.processes["web"].shown()
}

fn says(plan: &Plan, part: &str) -> bool {
    plan.reasons.iter().any(|reason| reason.contains(part))
}

/// The folder and options of a static site.
fn site(plan: &Plan) -> (String, StaticOptions) {
    let Command::StaticSite { root, options } = &plan.processes["web"] else { panic!("{:?}", plan.processes) };
    (root.display().to_string(), options.clone())
}

fn single_page() -> StaticOptions {
    StaticOptions { single_page: Some(true), ..StaticOptions::default() }
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
        let plan = detect(&examples.join(name), &BuildConfig::default(), &usual()).unwrap();
        assert_eq!(plan.language, language, "{name}");
        assert_eq!(plan.processes.keys().collect::<Vec<_>>(), processes, "{name}");
        assert!(plan.steps.is_empty(), "{name} needs no network to build");
    }
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
    // With a `release` line alone, what runs is detected.
    let found = plan(&[("Procfile", "release: ./migrate"), ("package.json", "{}"), ("index.js", "")]).unwrap();
    assert_eq!((web(&found).as_str(), found.release.unwrap().shown().as_str()), ("node index.js", "./migrate"));
}

#[test]
fn procfiles_with_mistakes_are_told_by_line() {
    for (text, part) in [
        ("", "names no process"),
        ("web: x\nnonsense", "line 2 is not"),
        ("we b: x", "line 1: a process type"),
        ("web:", "line 1: `web` needs a command"),
        ("web: x\nweb: y", "line 2: `web` is there twice"),
        ("web: x\nrelease: y\nrelease: z", "line 3: `release` is there twice"),
    ] {
        let error = refusal(&[("Procfile", text)]);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn static_sites_are_served_from_where_their_page_is() {
    for (file, root) in [("index.html", ""), ("public/index.html", "public"), ("dist/index.html", "dist")] {
        let found = plan(&[(file, ""), ("README.md", "")]).unwrap();
        assert_eq!(found.language, Language::Static);
        assert_eq!(site(&found), (root.to_owned(), StaticOptions::default()));
        // The release holds the site alone.
        assert_eq!(found.publish, Some(PathBuf::from(root)).filter(|_| !root.is_empty()));
    }
    let server = ["callboard".to_owned(), "static-server".to_owned()];
    let argv = |options| Command::StaticSite { root: "".into(), options }.argv(&server);
    assert_eq!(argv(StaticOptions::default()), ["callboard", "static-server", "."]);
    let options = StaticOptions { single_page: Some(true), clean_urls: None, trailing_slash: Some(false) };
    assert_eq!(argv(options), ["callboard", "static-server", "--single-page=true", "--trailing-slash=false", "."]);
}

#[test]
fn a_dockerfile_alone_is_refused_with_a_way_out() {
    let error = plan(&[("Dockerfile", "FROM scratch")]).unwrap_err();
    assert!(matches!(error, DetectError::DockerfileOnly));
    assert!(error.to_string().contains("add a Procfile"), "{error}");
    let found = plan(&[("Dockerfile", ""), ("Procfile", "web: ./x")]).unwrap();
    assert!(says(&found, "Dockerfile is not used"));
}

#[test]
fn what_is_unknown_is_told_with_what_was_looked_for() {
    let error = refusal(&[("main.rs", ""), ("notes.txt", "")]);
    assert!(
        error.contains("looked for callboard.toml, Procfile") && error.contains("Found: main.rs, notes.txt"),
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
        [("Cargo.toml", "=")],
        [("Pipfile", "=")],
        [("composer.json", "=")],
        [("callboard.toml", "=")],
        [("Procfile", large.as_str())],
    ] {
        let error = plan_by(&files, &with(&[(Tool::Cargo, "1.95.0"), (Tool::Php, "8.2.0")])).unwrap_err();
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
        release_command: Some("./migrate".into()),
        ..BuildConfig::default()
    };
    let found = detect(folder.path(), &config, &usual()).unwrap();
    assert_eq!(found.root, Path::new("apps/web"));
    assert_eq!(commands(&found), ["make all"]);
    assert_eq!(found.processes["web"].argv(&[]), ["/bin/sh", "-c", "exec ./serve --port $PORT"]);
    assert_eq!(found.release, Some(Command::Shell("./migrate".into())));
    assert_eq!(found.config, config);
    std::os::unix::fs::symlink("/etc", folder.path().join("out")).unwrap();
    for root in ["..", "/etc", "apps/../..", "gone", "apps/web/index.js", "out"] {
        let config = BuildConfig { root: Some(root.into()), ..BuildConfig::default() };
        assert!(matches!(detect(folder.path(), &config, &usual()), Err(DetectError::BadConfig(_))), "{root}");
    }
}

#[test]
fn own_commands_need_none_of_the_tools_that_detection_would() {
    let folder = app(&[("Gemfile", ""), ("package.json", r#"{"engines":{"node":"4"}}"#)]);
    let config = BuildConfig {
        build_command: Some("make".into()),
        start_command: Some("./run".into()),
        ..BuildConfig::default()
    };
    let found = detect(folder.path(), &config, &usual()).unwrap();
    assert_eq!((commands(&found), web(&found)), (vec!["make".to_owned()], "./run".to_owned()));
    assert!(says(&found, "Ruby is not installed") && says(&found, "Node.js 4"), "{:?}", found.reasons);
    let config = BuildConfig { build_command: None, ..config };
    assert!(detect(folder.path(), &config, &usual()).is_err());
}

#[test]
fn a_chosen_folder_is_published_alone_and_without_a_start_command() {
    let package = r#"{"scripts":{"build":"make","start":"node server.js"}}"#;
    let folder = app(&[("package.json", package)]);
    let options = StaticOptions { trailing_slash: Some(true), ..StaticOptions::default() };
    let config =
        BuildConfig { publish: Some("./site/out".into()), static_options: options.clone(), ..BuildConfig::default() };
    let found = detect(folder.path(), &config, &usual()).unwrap();
    assert_eq!(site(&found), ("site/out".to_owned(), options));
    assert_eq!(found.publish, Some("site/out".into()));
    assert_eq!(commands(&found), ["npm run build"]);
    // What runs before a rollout needs the rest of the app.
    let config = BuildConfig { release_command: Some("./notify".into()), ..config };
    assert_eq!(detect(folder.path(), &config, &usual()).unwrap().publish, None);
    let config = BuildConfig { publish: Some("../out".into()), ..BuildConfig::default() };
    assert!(matches!(detect(folder.path(), &config, &usual()), Err(DetectError::BadConfig(_))));
}

#[test]
fn another_folder_can_take_the_place_of_the_published_one() {
    let vite = r#"{"scripts":{"build":"vite build"},"devDependencies":{"vite":"5"}}"#;
    let mut found = plan(&[("package.json", vite)]).unwrap();
    assert!(found.publish_alternatives.contains(&PathBuf::from("out")));
    found.publish_from(Path::new("out"));
    assert_eq!((found.publish.as_deref(), site(&found).0.as_str()), (Some(Path::new("out")), "out"));
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
    let found = detect(&source, &config, &usual()).unwrap();
    assert_eq!((found.root.as_path(), web(&found).as_str()), (Path::new("v2"), "node a.js"));

    fs::remove_file(source.join("v2/a.js")).unwrap();
    symlink("../../outside.js", source.join("v2/a.js")).unwrap();
    assert!(matches!(detect(&source, &config, &usual()), Err(DetectError::NoProcess(_))));
    fs::write(folder.path().join("outside"), "web: node outside.js\n").unwrap();
    symlink(folder.path().join("outside"), source.join("v2/Procfile")).unwrap();
    symlink(folder.path().join("outside"), source.join("v2/callboard.toml")).unwrap();
    nix::unistd::mkfifo(&source.join("v2/requirements.txt"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(detect(&source, &config, &usual()), Err(DetectError::NoProcess(_))));
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

#[test]
fn a_command_in_a_folder_gets_its_arguments_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("a b")).unwrap();
    let command = Command::exec(&["/bin/sh", "-c", "pwd; echo \"$0|$1\"", "x;y", "$HOME"]).within(Path::new("a b"));
    assert_eq!(command.shown(), "/bin/sh -c pwd; echo \"$0|$1\" x;y $HOME (in a b)");
    let argv = command.argv(&[]);
    let output = std::process::Command::new(&argv[0]).args(&argv[1..]).current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with("/a b\nx;y|$HOME\n"), "{said}");
}

#[test]
fn plans_of_earlier_releases_are_read() {
    let stored = r#"{"language":"static","root":"","steps":[],"processes":{"web":{"static_site":{"root":"dist"}}},
                     "environment":{"path":["x"]},"reasons":[]}"#;
    let plan: Plan = serde_json::from_str(stored).unwrap();
    assert_eq!(site(&plan), ("dist".to_owned(), StaticOptions::default()));
    assert_eq!((plan.release, plan.cache, plan.publish), (None, Cache::default(), None));
}
