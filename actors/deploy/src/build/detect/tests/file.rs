use super::*;

#[test]
fn the_apps_own_file_decides_what_nothing_else_does() {
    let text = r#"
        build = "make"
        release = "./migrate"
        [processes]
        web = "./server --port $PORT"
        worker = "./worker"
        [health_check]
        path = "/up"
        grace_seconds = 90
        [versions]
        node = "20"
    "#;
    let found = plan(&[("callboard.toml", text), ("package.json", "{}"), ("Procfile", "web: other")]).unwrap();
    assert_eq!(commands(&found), ["make"]);
    assert_eq!(web(&found), "./server --port $PORT");
    assert_eq!(found.processes.keys().collect::<Vec<_>>(), ["web", "worker"]);
    assert_eq!(found.release, Some(Command::Shell("./migrate".into())));
    assert_eq!(found.config.health_check_path.as_deref(), Some("/up"));
    assert_eq!(found.config.health_check_grace_seconds, Some(90));
    for sentence in ["callboard.toml names the processes", "callboard.toml replaces the build steps"] {
        assert!(says(&found, sentence), "{:?}", found.reasons);
    }
}

#[test]
fn the_projects_configuration_comes_before_the_file() {
    let folder = app(&[(
        "callboard.toml",
        "build = 'file'\nstart = 'file'\n[static]\nsingle_page = true\nclean_urls = false\n[versions]\nnode='20'\n",
    )]);
    let config = BuildConfig { start_command: Some("own".into()), ..BuildConfig::default() };
    let found = detect(folder.path(), &config, &usual()).unwrap();
    assert_eq!((commands(&found), web(&found)), (vec!["file".to_owned()], "own".to_owned()));
    // What is served is one decision.
    let static_options = StaticOptions { clean_urls: Some(true), ..StaticOptions::default() };
    let config = BuildConfig { publish: Some("out".into()), static_options, ..BuildConfig::default() };
    let found = detect(folder.path(), &config, &usual()).unwrap();
    let options = StaticOptions { single_page: Some(true), clean_urls: Some(true), trailing_slash: None };
    assert_eq!(site(&found), ("out".to_owned(), options));
    assert_eq!(found.config.start_command, None);
}

#[test]
fn the_file_can_say_where_the_app_is() {
    let folder = app(&[
        ("callboard.toml", "root = 'apps/web'\nstart = 'node b.js'\n"),
        ("apps/web/package.json", "{}"),
        ("apps/web/index.js", ""),
        ("apps/api/callboard.toml", "start = 'node api.js'"),
    ]);
    let found = detect(folder.path(), &BuildConfig::default(), &usual()).unwrap();
    assert_eq!((found.root.as_path(), web(&found).as_str()), (Path::new("apps/web"), "node b.js"));
    let config = BuildConfig { root: Some("apps/api".into()), ..BuildConfig::default() };
    assert_eq!(web(&detect(folder.path(), &config, &usual()).unwrap()), "node api.js");
    let error = refusal(&[("callboard.toml", "root = 'gone'"), ("index.html", "")]);
    assert!(error.contains("the root folder `gone` is not in the source"), "{error}");
}

#[test]
fn every_mistake_is_told_at_once_with_its_line() {
    let text = "\
root = \"/etc\"
build = 7
start = \"\"
release = [\"x\"]
publish = \"../out\"
biuld = \"make\"
static = \"yes\"

[processes]
\"we b\" = \"x\"
worker = true
release = \"x\"

[health_check]
path = \"up\"
grace_seconds = 0
every = 1

[versions]
node = 20
cobol = \"1\"
python = \"$(x)\"
";
    let error = refusal(&[("callboard.toml", text)]);
    assert!(error.starts_with("callboard.toml can't be used: line 1: `root` must be a relative folder"), "{error}");
    for part in [
        "line 2: `build` must be a text in quotes, and is of the kind integer",
        "line 3: `start` must be a command of 1 to 4,096 bytes",
        "line 4: `release` must be a text in quotes",
        "line 5: `publish` must be a relative folder",
        "line 5: `publish` and `start` exclude each other",
        "line 6: `biuld` is no setting; did you mean `build`?",
        "line 7: `static` must be a table",
        "line 10: `we b` is no process type",
        "line 11: `processes.worker` must be a text in quotes",
        "line 12: `release` is no process type",
        "line 15: `health_check.path` must be a path that begins with `/`",
        "line 16: `health_check.grace_seconds` must be a number from 1 to 600",
        "line 17: `health_check.every` is no setting; there are path, grace_seconds",
        "line 20: `versions.node` must be a text in quotes",
        "line 21: `versions.cobol` is no setting",
        "line 22: `versions.python` must be a version",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let lines: Vec<usize> =
        error.split("line ").skip(1).map(|rest| rest.split(':').next().unwrap().parse().unwrap()).collect();
    assert!(lines.is_sorted(), "{error}");
}

#[test]
fn mistakes_of_syntax_are_told_with_their_lines() {
    let error = refusal(&[("callboard.toml", "start = 'x'\nbuild = \n[static\n")]);
    assert!(error.contains("line 2: ") && error.contains("line 3: "), "{error}");
    let error = refusal(&[("callboard.toml", "start = 'x'\nstart = 'y'\n")]);
    assert!(error.contains("line 2: duplicate key"), "{error}");
}

#[test]
fn a_file_of_nothing_but_mistakes_is_judged_at_once_and_told_briefly() {
    let text: String = (0..90_000).map(|number| format!("a{number}=1\n")).collect();
    let error = refusal(&[("callboard.toml", &text)]);
    assert!(error.contains("line 20: `a19` is no setting") && !error.contains("line 21:"), "{error}");
    assert!(error.ends_with("; and 89980 more mistakes"), "{error}");
    let error = refusal(&[("callboard.toml", &format!("{} = 1", "a".repeat(500_000)))]);
    assert!(error.len() < 1_000, "{} bytes", error.len());
}

#[test]
fn numbers_are_read_as_they_are_written_and_a_folder_is_no_file() {
    let text = |seconds: &str| format!("start = 'x'\n[health_check]\ngrace_seconds = {seconds}\n");
    for (seconds, read) in [("0x10", 16), ("0o17", 15), ("0b11", 3), ("1_00", 100)] {
        let found = plan(&[("callboard.toml", &text(seconds)), ("package.json", "{}")]).unwrap();
        assert_eq!(found.config.health_check_grace_seconds, Some(read), "{seconds}");
    }
    assert!(refusal(&[("callboard.toml", &text("0x999"))]).contains("must be a number from 1 to 600"));
    let error = refusal(&[("callboard.toml/x", ""), ("index.html", "")]);
    assert!(error.starts_with("callboard.toml can't be used: it is a folder"), "{error}");
}

#[test]
fn the_apps_own_folder_can_be_what_is_published() {
    let found = plan(&[("callboard.toml", "publish = '.'"), ("index.html", "")]).unwrap();
    assert!(says(&found, "callboard.toml publishes the app's folder"), "{:?}", found.reasons);
}
