//! How long a file may be kept by who has it.

use std::path::Path;

/// It may be kept, and each use asks whether it is still the same: pages, which name everything else.
pub const ASKED_EACH_TIME: &str = "no-cache";
/// It never changes: its name has a hash of its content.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";
/// Anything else: a deploy is seen after five minutes at the latest.
const FOR_A_WHILE: &str = "public, max-age=300";

/// `Cache-Control` of a file.
pub fn cache_control(path: &Path, content_type: &str) -> &'static str {
    if content_type.starts_with("text/html") || content_type.starts_with("application/xhtml") {
        return ASKED_EACH_TIME;
    }
    match path.file_name().and_then(|name| name.to_str()) {
        Some(name) if has_hash(name) => FOR_GOOD,
        _ => FOR_A_WHILE,
    }
}

/// What bundlers write, and people give names like `Galaxy-S24Ultra` to seldom.
const OF_BUNDLERS: [&str; 8] = ["js", "mjs", "cjs", "css", "map", "wasm", "woff", "woff2"];

/// Whether a name looks as bundlers write them: `index-DhX8sd92.css`, `main.8e3f1a2b.chunk.js`. A year is long for a
/// mistake, so a name that may be written by hand is none of them.
fn has_hash(name: &str) -> bool {
    let mut parts: Vec<&str> = name.split('.').collect();
    let extension = parts.pop().unwrap_or_default();
    while parts.last().is_some_and(|part| matches!(*part, "min" | "chunk" | "bundle" | "module" | "js" | "css")) {
        parts.pop();
    }
    let stem = parts.join(".");
    // Eight letters behind the name, in which `-` and `_` may be, as Vite and Rollup write them.
    let fixed = stem.len().checked_sub(8).and_then(|at| Some((stem.get(..at)?, stem.get(at..)?)));
    let last = stem.rsplit(['.', '-', '_']).next().filter(|last| last.len() < stem.len());
    let mixed = OF_BUNDLERS.contains(&extension)
        && (fixed.is_some_and(|(before, hash)| before.ends_with(['.', '-']) && is_mixed(hash))
            || last.is_some_and(is_mixed));
    mixed || last.is_some_and(is_hexadecimal)
}

/// At least eight hexadecimal digits in which digits and letters take turns.
fn is_hexadecimal(text: &str) -> bool {
    let all = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (8..=64).contains(&text.len()) && all && turns(text) >= 2
}

/// At least eight letters and digits that take turns, some of them upper case.
fn is_mixed(text: &str) -> bool {
    let all = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let has = |kind: fn(&u8) -> bool| text.as_bytes().iter().any(kind);
    (8..=64).contains(&text.len()) && all && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit) && turns(text) >= 3
}

/// How often the kind of letter changes.
fn turns(text: &str) -> usize {
    let kind = |byte: &u8| match byte {
        b'0'..=b'9' => 0,
        b'A'..=b'Z' => 1,
        b'a'..=b'z' => 2,
        _ => 3,
    };
    let kinds: Vec<u8> = text.as_bytes().iter().map(kind).collect();
    kinds.windows(2).filter(|pair| pair.first() != pair.last()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_bundlers_are_known_and_those_of_people_are_not() {
        for name in [
            "index-DhX8sd92.css",
            "index-B-x_12Ab.js",
            "index.BsV8Xf0q.css",
            "main.8e3f1a2b.js",
            "787.a1b2c3d4e5f6a7b8c9d0.chunk.js",
            "main.8e3f1a2b.chunk.css",
            "framework-2c79e2a64abdb08b.js",
            "main-es2015.1a2b3c4d5e6f7a8b9c0d.js",
            "app-7XQ2KLM4.js",
            "logo.5e2f3c19.svg",
            "inter-latin-400-normal-C38fXH4l.woff2",
        ] {
            assert!(has_hash(name), "{name}");
        }
        for name in [
            "app.js",
            "jquery-3.7.1.min.js",
            "bootstrap.bundle.min.js",
            "report-20240131.pdf",
            "photo-portrait.jpg",
            "my-document.pdf",
            "slides-Version2.pdf",
            "slides.Version2.pdf",
            "IMG_20240131.jpg",
            "DSC-00012345.jpg",
            "annual-deadbeef.txt",
            "release-2024abcd.zip",
            "JavaScript-TypeScript.js",
            "Galaxy-S24Ultra.jpg",
            "photo-iPhone15Pro.jpg",
            "8e3f1a2b.js",
            "8e3f1a2b",
            "a",
            "",
            "...",
        ] {
            assert!(!has_hash(name), "{name}");
        }
    }

    #[test]
    fn pages_are_asked_for_each_time() {
        let of = |name: &str, content_type: &str| cache_control(Path::new(name), content_type);
        assert_eq!(of("index-DhX8sd92.html", "text/html; charset=utf-8"), ASKED_EACH_TIME);
        assert_eq!(of("assets/index-DhX8sd92.css", "text/css; charset=utf-8"), FOR_GOOD);
        assert_eq!(of("robots.txt", "text/plain; charset=utf-8"), FOR_A_WHILE);
    }
}
