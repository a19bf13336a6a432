use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

/// A folder of programs, each a script of shell.
fn programs(folder: &Path, scripts: &[(&str, &str)]) {
    fs::create_dir_all(folder).unwrap();
    for (name, script) in scripts {
        let file = folder.join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn path(folders: &[&Path]) -> String {
    env::join_paths(folders.iter().copied().chain([Path::new("/usr/bin"), Path::new("/bin")]))
        .unwrap()
        .into_string()
        .unwrap()
}

#[test]
fn versions_are_read_from_what_programs_say() {
    for (said, version) in [
        ("v20.20.2\n", Some("20.20.2")),
        ("11.19.1", Some("11.19.1")),
        ("go version go1.22.1 linux/amd64", Some("1.22.1")),
        ("Poetry (version 1.8.2)", Some("1.8.2")),
        ("pipenv, version 2023.12.1", Some("2023.12.1")),
        ("ruby 3.1.2p20 (2022-04-12 revision 4491bb740a) [x86_64-linux-gnu]", Some("3.1.2")),
        ("openjdk version \"17.0.9\" 2023-10-17", Some("17.0.9")),
        ("PHP 8.2.7 (cli) (built: Jun  9 2023 19:37:27) (NTS)", Some("8.2.7")),
        ("\n------\nGradle 8.5\n------", Some("8.5")),
        ("uv 0.5.1 (abc 2024-11-08)", Some("0.5.1")),
        ("command not found", None),
        ("", None),
    ] {
        assert_eq!(probe::number(said).as_deref(), version, "{said}");
    }
}

#[test]
fn a_tool_is_found_by_its_version_and_again_when_it_changes() {
    let root = tempfile::tempdir().unwrap();
    let bin = root.path().join("bin");
    programs(&bin, &[("uv", "echo uv 1.2.3"), ("poetry", "exit 1"), ("pipenv", "echo not yet")]);
    fs::write(bin.join("deno"), "no program").unwrap();
    let tools = Tools::of_path(bin.display().to_string());
    let uv = tools.default(Tool::Uv).unwrap();
    assert_eq!((uv.version.as_str(), uv.is_default), ("1.2.3", true));
    for absent in [Tool::Poetry, Tool::Pipenv, Tool::Deno] {
        assert_eq!(tools.default(absent), None, "{absent:?}");
    }
    programs(&bin, &[("uv", "echo uv 1.2.30")]);
    assert_eq!(tools.default(Tool::Uv).unwrap().version, "1.2.30");
}

#[test]
fn a_program_gets_nothing_of_the_nodes_environment() {
    let root = tempfile::tempdir().unwrap();
    let bin = root.path().join("bin");
    programs(&bin, &[("uv", "[ -z \"$CARGO_PKG_NAME\" ] && [ ! -t 0 ] && echo 1.0")]);
    assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
    assert!(Tools::of_path(path(&[&bin])).has(Tool::Uv));
}

#[test]
fn version_managers_offer_what_they_have_beside_their_stand_ins() {
    let root = tempfile::tempdir().unwrap();
    let (shims, versions) = (root.path().join("shims"), root.path().join("versions"));
    let python = |version: &str| {
        let folder = versions.join(version).join("bin");
        format!("echo {version}; echo {}/python3; echo True", folder.display())
    };
    for version in ["3.9.18", "3.12.1"] {
        programs(&versions.join(version).join("bin"), &[("python3", &python(version))]);
    }
    programs(&shims, &[("python3", &python("3.12.1")), ("python3.9", "exit 127")]);
    let tools = Tools::of_path(shims.display().to_string());
    let all = tools.all(Tool::Python);
    let shown: Vec<_> = all.iter().map(|tool| (tool.version.as_str(), tool.is_default, tool.has_pip)).collect();
    assert_eq!(shown, [("3.12.1", false, true), ("3.9.18", false, true)]);
    assert!(all[0].path.ends_with("versions/3.12.1/bin/python3"));
}

#[test]
fn every_tool_says_how_to_get_it() {
    for tool in Tool::ALL {
        assert!(!tool.install().is_empty() && !tool.title().is_empty() && !tool.serves().is_empty());
        assert_eq!(tool.programs()[0], tool.program());
    }
}
