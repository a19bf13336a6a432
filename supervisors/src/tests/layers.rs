//! Layers of the modules: those below the actor runtime do not use it, so that each is understood by itself.

use std::{fs, path::Path};

/// Each module uses only those before it.
const LAYERS: [&str; 13] = [
    "rules",
    "restart",
    "time",
    "tasks",
    "blocking",
    "health",
    "breaker",
    "bulkhead",
    "telemetry",
    "db",
    "lease",
    "live",
    "seal",
];

/// The code of a module without its tests and comments.
fn code(path: &Path) -> String {
    let mut code = String::new();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.file_stem().is_some_and(|name| name != "tests") {
                code.push_str(&self::code(&path));
            }
        }
        return code;
    }
    let source = fs::read_to_string(path).unwrap();
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    for line in source.lines() {
        code.push_str(line.split("//").next().unwrap());
        code.push('\n');
    }
    code
}

/// The first names after each `crate::`, also in a list.
fn names(code: &str) -> Vec<&str> {
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let first = |text: &'_ str| text.find(|letter| !is_name(letter)).unwrap_or(text.len());
    let mut names = Vec::new();
    for after in code.split("crate::").skip(1) {
        let Some(list) = after.strip_prefix('{') else {
            names.push(&after[..first(after)]);
            continue;
        };
        let (mut depth, mut begins) = (0, true);
        for (at, letter) in list.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                letter if begins && is_name(letter) => {
                    names.push(&list[at..at + first(&list[at..])]);
                    begins = false;
                }
                _ => {}
            }
        }
    }
    names
}

#[test]
fn what_stands_below_the_actor_runtime_does_not_know_it() {
    assert_eq!(names("use crate::{a::{b, c}, d};\ncrate::e::f()"), ["a", "d", "e"]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (at, layer) in LAYERS.iter().enumerate() {
        let folder = source.join(layer);
        let code = code(&if folder.is_dir() { folder } else { folder.with_extension("rs") });
        for name in names(&code) {
            assert!(LAYERS[..=at].contains(&name), "{layer} stands on {name}, which is not below it");
        }
    }
}
