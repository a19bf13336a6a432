use super::super::version::{Fit, fit};
use super::*;

#[test]
fn versions_of_node_are_those_of_npm() {
    for (asked, version, expected) in [
        ("20", "20.20.2", Fit::Exact),
        ("20.x", "20.20.2", Fit::Exact),
        (">=18", "20.20.2", Fit::Exact),
        ("^18 || ^20", "20.20.2", Fit::Exact),
        ("v20.20.2", "20.20.2", Fit::Exact),
        ("lts/*", "20.20.2", Fit::Exact),
        ("lts/iron", "20.20.2", Fit::Exact),
        ("node", "20.20.2", Fit::Exact),
        ("20.11.1", "20.20.2", Fit::Near),
        ("20.30.0", "20.20.2", Fit::No),
        ("lts/jod", "20.20.2", Fit::No),
        ("22.x", "20.20.2", Fit::No),
        ("<20", "20.20.2", Fit::No),
        ("lts/nothing", "20.20.2", Fit::Unknown),
        ("the newest", "20.20.2", Fit::Unknown),
    ] {
        assert_eq!(fit(Tool::Node, asked, version), expected, "{asked}");
    }
}

#[test]
fn versions_of_python_are_those_of_its_tools() {
    for (asked, version, expected) in [
        ("3", "3.12.1", Fit::Exact),
        ("3.12", "3.12.1", Fit::Exact),
        ("3.12.1", "3.12.1", Fit::Exact),
        ("python-3.12.1", "3.12.1", Fit::Exact),
        (">=3.9", "3.12.1", Fit::Exact),
        (">=3.9,<4", "3.12.1", Fit::Exact),
        ("^3.9", "3.12.1", Fit::Exact),
        ("~3.12", "3.12.1", Fit::Exact),
        ("3.12.*", "3.12.1", Fit::Exact),
        ("~=3.9", "3.12.1", Fit::Exact),
        ("==3.12.*", "3.12.1", Fit::Exact),
        ("*", "3.12.1", Fit::Exact),
        ("3.12.9", "3.12.1", Fit::Near),
        ("3.11", "3.12.1", Fit::No),
        ("~3.9", "3.12.1", Fit::No),
        ("<3.12", "3.12.1", Fit::No),
        ("^4.0", "3.12.1", Fit::No),
        ("my-environment", "3.12.1", Fit::Unknown),
    ] {
        assert_eq!(fit(Tool::Python, asked, version), expected, "{asked}");
    }
    assert_eq!(fit(Tool::Go, "1.21", "1.22.3"), Fit::Exact);
    assert_eq!(fit(Tool::Go, "1.23", "1.22.3"), Fit::No);
}

#[test]
fn the_version_that_an_app_asks_for_is_chosen_among_those_that_are_there() {
    let tools = with(&[(Tool::Node, "22.11.0")]);
    let node = |files: &[(&str, &str)], engines: &str| {
        let package = format!(r#"{{"engines":{{"node":"{engines}"}},"scripts":{{"start":"node s.js"}}}}"#);
        plan_by(&[&[("package.json", package.as_str())], files].concat(), &tools)
    };
    // The default is taken silently.
    let found = node(&[], ">=18").unwrap();
    assert!(!says(&found, "engines") && found.environment.path == [Path::new("node_modules/.bin")]);
    for files in [&[(".nvmrc", "# ours\nv22\n")][..], &[(".node-version", "22.11.0")], &[(".nvmrc", "lts/jod")]] {
        let found = node(files, "*").unwrap();
        assert!(says(&found, "22.11.0 is used"), "{:?}", found.reasons);
        assert!(found.environment.path.contains(&PathBuf::from("/opt/node-22.11.0/bin")));
    }
    let found = node(&[], "22").unwrap();
    assert!(says(&found, "`engines.node` of package.json asks for Node.js 22: 22.11.0 is used"));
    let found = node(&[(".nvmrc", "20.11.1")], "*").unwrap();
    assert!(says(&found, "`.nvmrc` asks for Node.js 20.11.1: 20.20.2 is used"), "{:?}", found.reasons);
    let found = node(&[(".nvmrc", "whatever")], "*").unwrap();
    assert!(says(&found, "which is no version"), "{:?}", found.reasons);
    let error = node(&[(".nvmrc", "18")], "*").unwrap_err().to_string();
    assert_eq!(
        error,
        "`.nvmrc` asks for Node.js 18, and this node has 20.20.2, 22.11.0; install that version, for example with `npx n \
         <version>`, or ask for a version that is there"
    );
}

#[test]
fn python3_is_the_asked_version_for_every_command() {
    let files = [("main.py", ""), (".python-version", "3.9\n")];
    let found = plan(&files).unwrap();
    assert!(says(&found, "`.python-version` asks for Python 3.9: 3.9.18 is used"), "{:?}", found.reasons);
    assert!(found.environment.path.contains(&PathBuf::from("/opt/python3-3.9.18/bin")), "{:?}", found.environment);
    let runtime = [("main.py", ""), ("runtime.txt", "python-3.9.20\n")];
    assert!(says(&plan(&runtime).unwrap(), "3.9.18 is used"));
    let asked = [("main.py", ""), ("pyproject.toml", "[project]\nname='x'\nrequires-python = '<3.10'\n")];
    assert!(says(&plan(&asked).unwrap(), "3.9.18 is used"));
    let pipfile = [("main.py", ""), ("Pipfile", "[packages]\nx = '*'\n[requires]\npython_version = '3.8'\n")];
    let error = refusal(&pipfile);
    assert!(
        error.starts_with("`[requires]` of the Pipfile asks for Python 3.8, and this node has 3.12.1, 3.9.18"),
        "{error}"
    );
}

/// A program that tells this version as an interpreter does, and else what it was asked to run.
fn interpreter(file: &Path, version: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = -I ]; then echo {version}; echo {}; echo True; else echo \"{version} runs $*\"; fi\n",
        file.display()
    );
    fs::write(file, script).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_interpreter_of_another_name_becomes_the_python3_of_the_release() {
    let machine = tempfile::tempdir().unwrap();
    for (name, version) in [("python3", "3.12.1"), ("python3.9", "3.9.18")] {
        interpreter(&machine.path().join(name), version);
    }
    let folder = app(&[("main.py", ""), (".python-version", "3.9")]);
    let tools = Tools::of_path(machine.path().display().to_string());
    let found = detect(folder.path(), &BuildConfig::default(), &tools).unwrap();
    assert_eq!(found.steps[0].title, "Choosing Python 3.9.18");
    let run = |argv: &[String]| {
        let path = found.environment.variables(folder.path(), "/usr/bin:/bin")["PATH"].clone();
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", "exec \"$0\" \"$@\""])
            .args(argv)
            .current_dir(folder.path())
            .env("PATH", path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    run(&found.steps[0].command.argv(&[]));
    assert_eq!(run(&found.processes["web"].argv(&[])), "3.9.18 runs main.py\n");
    assert_eq!(run(&["python".to_owned(), "-m".to_owned(), "a b".to_owned()]), "3.9.18 runs -m a b\n");
}

#[test]
fn the_owner_asks_before_any_file() {
    let folder = app(&[("main.py", ""), (".python-version", "3.12")]);
    let versions = [("python".to_owned(), "3.9".to_owned())].into_iter().collect();
    let config = BuildConfig { versions, ..BuildConfig::default() };
    let found = detect(folder.path(), &config, &usual()).unwrap();
    assert!(says(&found, "the build configuration asks for Python 3.9: 3.9.18 is used"), "{:?}", found.reasons);
}

#[test]
fn a_version_of_any_length_is_quoted_in_part() {
    let package = format!(r#"{{"scripts":{{"start":"node x"}},"engines":{{"node":"{}"}}}}"#, "a".repeat(300_000));
    let found = plan(&[("package.json", &package)]).unwrap();
    assert!(found.reasons.iter().all(|reason| reason.len() < 300), "{:?}", found.reasons);
    assert!(says(&found, "which is no version"), "{:?}", found.reasons);
}
