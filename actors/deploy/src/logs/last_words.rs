//! The last lines of a program's output, and the reason for its end in them.
//!
//! The last line is often not the program's own: npm prints a notice of a newer version of itself, Node.js prints its
//! version, and both print what belongs to the error above.

use std::collections::VecDeque;

use crate::logs::terminal::{Colours, clean};

/// The last lines of a program's output, without npm's notices about itself and with only the beginning of its long
/// explanations.
#[derive(Debug, Default)]
pub(crate) struct LastLines {
    lines: VecDeque<String>,
    /// Lines of npm's own error in a row so far.
    of_npm: usize,
}

impl LastLines {
    const LINES: usize = 30;
    const CHARACTERS: usize = 500;
    const OF_NPM: usize = 8;

    pub(crate) fn push(&mut self, text: &str) {
        // Without its colours, which have no place in a sentence.
        let text = &clean(text, Colours::Dropped);
        self.of_npm = if npm_error(text).is_some() { self.of_npm + 1 } else { 0 };
        if is_about_npm(text) || self.of_npm > Self::OF_NPM {
            return;
        }
        if self.lines.len() == Self::LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(text.chars().take(Self::CHARACTERS).collect());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}

/// The end of a sentence with the reason for a program's failure, from its last lines; empty without one.
pub(crate) fn said(lines: &[String]) -> String {
    match reason(lines) {
        Some(reason) => missing_program(&reason).map_or_else(|| format!("; it said: {reason}"), |it| format!("; {it}")),
        None => String::new(),
    }
}

/// The message of a shell or of our own launcher for a missing program, in our words.
pub(crate) fn missing_program(line: &str) -> Option<String> {
    let name = match line.strip_prefix("callboard: the program `") {
        Some(rest) => rest.split('`').next()?,
        None => {
            // dash: `/bin/sh: 1: exec: name: not found`; bash: `/bin/sh: line 1: name: command not found`
            let (shell, rest) = line.split_once(": ")?;
            let is_shell = matches!(shell.rsplit('/').next(), Some("sh" | "dash" | "bash"));
            let rest = rest.strip_suffix(": not found").or_else(|| rest.strip_suffix(": command not found"));
            is_shell.then_some(rest?.rsplit(": ").next()?)?
        }
    };
    Some(format!("the program `{name}` was not found; install it or check its name"))
}

/// The line that states the reason.
pub(crate) fn reason(lines: &[String]) -> Option<String> {
    let mut found: Option<&str> = None;
    // The error that the following lines belong to, if they end as Node.js's do.
    let mut error: Option<&str> = None;
    let mut npm = Npm::default();
    let mut report = Report::default();
    for line in lines.iter().map(|line| line.trim_end()) {
        report.hear(line);
        if let Some(said) = npm_error(line) {
            if let Some(said) = npm.hear(said) {
                found = Some(said);
            }
            continue;
        }
        npm = Npm::default();
        if line.starts_with("Node.js v") {
            found = error.take().or(found);
        } else if !is_noise(line) {
            found = Some(line);
            if is_error(line) {
                error = Some(line);
            }
        }
    }
    report.reason().or_else(|| found.map(|line| line.trim().to_owned()))
}

/// The report of a compiler or a bundler: it says that there is an error, then which one and where, and then explains at
/// length. Whatever follows is about the same.
#[derive(Debug, Default)]
struct Report<'a> {
    /// Whether the next line that says something is the error.
    awaited: bool,
    /// Where the error is, if that is said before it.
    place: Option<&'a str>,
    error: Option<&'a str>,
}

impl<'a> Report<'a> {
    /// Lines after which the error stands.
    const HEADINGS: [&'static str; 4] = [
        "error during build:",
        "Failed to compile.",
        "Build failed because of webpack errors",
        "Error: Command failed:",
    ];

    fn hear(&mut self, line: &'a str) {
        let text = line.trim();
        if Self::HEADINGS.contains(&text) {
            *self = Self { awaited: true, ..Self::default() };
        } else if let Some(place) = text.strip_prefix("ERROR in ") {
            // webpack: the file in the same line.
            *self = Self { awaited: true, place: Some(place), error: None };
        } else if self.awaited && !text.is_empty() {
            let is_place = self.place.is_none() && text.starts_with("./") && !text.contains(' ');
            if is_place {
                self.place = Some(text);
            } else {
                (self.awaited, self.error) = (false, Some(text));
            }
        } else if is_of_rustc(text) {
            *self = Self { error: Some(text), ..Self::default() };
        } else if self.error.is_some_and(is_of_rustc) && self.place.is_none() {
            self.place = text.strip_prefix("--> ");
        } else if line.starts_with("npm error code E") {
            // What has failed now is the installation.
            *self = Self::default();
        }
    }

    fn reason(&self) -> Option<String> {
        let error = self.error?;
        Some(self.place.map_or_else(|| error.to_owned(), |place| format!("{error} ({place})")))
    }
}

/// `error[E0425]: …`; that nothing was compiled is no error of its own.
fn is_of_rustc(line: &str) -> bool {
    line.starts_with("error[E")
}

/// The position within npm's report of an error.
#[derive(Debug, Default)]
enum Npm {
    #[default]
    Silent,
    /// Its own error: the first line after the code says what is wrong.
    Own,
    /// A script of a package failed: its last line does.
    Script,
    /// The app's own script failed, which has printed why.
    Told,
}

impl Npm {
    /// The reason in a line of the report, if it has one.
    fn hear<'a>(&mut self, said: &'a str) -> Option<&'a str> {
        if let Some(code) = said.strip_prefix("code ") {
            *self = match code.trim() {
                "ELIFECYCLE" => Self::Told,
                code if code.bytes().all(|byte| byte.is_ascii_digit()) => Self::Script,
                _ => Self::Own,
            };
            return None;
        }
        if said.starts_with("Lifecycle script") {
            *self = Self::Told;
        }
        let is_circumstance =
            ["path ", "workspace ", "location ", "command ", "errno ", "syscall ", "A complete log of "]
                .iter()
                .any(|beginning| said.starts_with(beginning));
        match self {
            _ if said.trim().is_empty() || is_circumstance => None,
            Self::Told => None,
            Self::Script => Some(said),
            Self::Silent | Self::Own => {
                *self = Self::Told;
                Some(said)
            }
        }
    }
}

fn npm_error(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("npm error").or_else(|| line.strip_prefix("npm ERR!"))?;
    (rest.is_empty() || rest.starts_with(' ')).then(|| rest.trim_start())
}

fn is_about_npm(line: &str) -> bool {
    ["npm notice", "npm warn", "npm WARN"].iter().any(|beginning| line.starts_with(beginning))
}

/// What tools say when what they have run has failed, and of newer versions of themselves.
fn is_about_a_tool(line: &str) -> bool {
    const BEGINNINGS: [&str; 13] = [
        // pip
        "[notice] ",
        "WARNING: Running pip as",
        // yarn and pnpm
        "info Visit https://yarnpkg.com/",
        "error Command failed with exit code",
        "ELIFECYCLE",
        "ERR_PNPM_RECURSIVE_RUN_FIRST_FAIL",
        // make
        "make: *** ",
        "make[",
        // cargo
        "error: could not compile",
        "error: aborting due to",
        "For more information about this error",
        "Some errors have detailed explanations",
        "warning: build failed",
    ];
    BEGINNINGS.iter().any(|beginning| line.starts_with(beginning))
}

/// `TypeError: …`, at the beginning of a line.
fn is_error(line: &str) -> bool {
    let Some((name, _)) = line.split_once(':') else { return false };
    let name = name.trim_start_matches("Uncaught ").split(' ').next().unwrap_or_default();
    let is_name = name.chars().all(|letter| letter.is_alphanumeric() || "._$".contains(letter));
    is_name && ["Error", "Exception", "Rejection"].iter().any(|end| name.ends_with(end))
}

/// Whether a line only surrounds a reason: frames, marks, npm's own notices.
fn is_noise(line: &str) -> bool {
    let text = line.trim();
    let is_frame = text.starts_with("at ") && line.starts_with(' ');
    let is_native_frame =
        text.split_once(": 0x").is_some_and(|(number, _)| number.bytes().all(|it| it.is_ascii_digit()));
    let is_mark = text.chars().all(|letter| "^~{}[]()|-=*".contains(letter));
    is_mark
        || is_frame
        || is_native_frame
        || text.starts_with("(Use `node ")
        || text.starts_with("----- Native stack trace")
        || text.starts_with("Aborted")
        || is_about_npm(line)
        || is_about_a_tool(text)
        // What npm runs, as it says it.
        || line.starts_with("> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<String> {
        let mut tail = LastLines::default();
        text.lines().for_each(|line| tail.push(line));
        reason(&tail.lines())
    }

    #[test]
    fn the_reason_is_what_the_program_said_and_not_what_stands_around_it() {
        let frames = "    at Module._load (node:internal/modules/cjs/loader:1038:27)\n".repeat(10);
        let module = format!(
            "node:internal/modules/cjs/loader:1210\n  throw err;\n  ^\n\nError: Cannot find module 'nope'\nRequire stack:\n\
             - /app/s.js\n{frames}    at main (x:1:2) {{\n  code: 'MODULE_NOT_FOUND',\n  requireStack: [ '/app/s.js' ]\n}}\n\n\
             Node.js v20.20.2\n"
        );
        let heap = "<--- JS stacktrace --->\n\nFATAL ERROR: Reached heap limit Allocation failed\n\
                    ----- Native stack trace -----\n\n 1: 0xb78db3 node::OOM(char const*) [node]\n10: 0x10b7fb4  [node]\nAborted\n";
        for (said, reason) in [
            ("one\ntwo\n\n", "two"),
            (
                "\n> start\n> echo the-real-reason >&2; exit 3\n\nthe-real-reason\nnpm notice\nnpm notice New major version\nnpm notice\n",
                "the-real-reason",
            ),
            (&module, "Error: Cannot find module 'nope'"),
            (
                "/app/s.js:1\nthrow \"x\"\n^\nx\n(Use `node --trace-uncaught ...` to show where)\n\nNode.js v20.20.2\n",
                "x",
            ),
            (heap, "FATAL ERROR: Reached heap limit Allocation failed"),
            ("TypeError: handled\nstarted\nDetail: it ends\n", "Detail: it ends"),
            ("Traceback (most recent call last):\n  File \"a.py\", line 1\nValueError: no\n", "ValueError: no"),
            ("compiling\nbroken\nnpm ERR! code ELIFECYCLE\nnpm ERR! errno 3\nnpm ERR! app@ start: `x`\n", "broken"),
            (
                "broken\nnpm error Lifecycle script `build` failed with error:\nnpm error code 3\nnpm error path /app\n",
                "broken",
            ),
        ] {
            assert_eq!(of(said).as_deref(), Some(reason), "{said}");
        }
        assert_eq!(of("\n"), None);
        assert_eq!(of("npm notice\nnpm notice New major version of npm available!\n"), None);
    }

    #[test]
    fn the_error_of_a_compiler_is_told_with_its_place_however_long_it_explains() {
        for (said, reason) in [
            (
                "vite v5.4.0 building for production...\nerror during build:\n[vite]: Rollup failed to resolve import \"x\" from \"/a/main.js\".\n\
                 This is most likely unintended because it can break your application at runtime.\n    at viteWarn (file:///a.js:1:2)\n",
                "[vite]: Rollup failed to resolve import \"x\" from \"/a/main.js\".",
            ),
            (
                "Failed to compile.\n\n./app/page.js\nModule not found: Can't resolve 'x'\n\nhttps://nextjs.org/docs/messages/module-not-found\n\n> Build failed\n",
                "Module not found: Can't resolve 'x' (./app/page.js)",
            ),
            (
                "ERROR in ./src/index.js 1:0-20\nModule not found: Error: Can't resolve 'x' in '/a/src'\nresolve 'x' in '/a/src'\n\nwebpack 5.9 compiled with 1 error in 200 ms\n",
                "Module not found: Error: Can't resolve 'x' in '/a/src' (./src/index.js 1:0-20)",
            ),
            (
                "   Compiling a v0.1.0 (/a)\nerror[E0425]: cannot find value `x` in this scope\n --> src/main.rs:2:5\n  |\n2 |     x\n  |     ^ not found in this scope\n\n\
                 For more information about this error, try `rustc --explain E0425`.\nerror: could not compile `a` (bin \"a\") due to 1 previous error\n",
                "error[E0425]: cannot find value `x` in this scope (src/main.rs:2:5)",
            ),
            (
                "ERROR: No matching distribution found for nope\n\n[notice] A new release of pip is available: 23.0 -> 25.0\n[notice] To update, run: pip install --upgrade pip\n",
                "ERROR: No matching distribution found for nope",
            ),
            (
                "src/a.ts(3,5): error TS2322: Type 'string' is not assignable to type 'number'.\nerror Command failed with exit code 2.\ninfo Visit https://yarnpkg.com/en/docs/cli/run for documentation about this command.\n",
                "src/a.ts(3,5): error TS2322: Type 'string' is not assignable to type 'number'.",
            ),
            ("# a\n./main.go:5:2: undefined: x\nmake: *** [build] Error 1\n", "./main.go:5:2: undefined: x"),
        ] {
            assert_eq!(of(said).as_deref(), Some(reason), "{said}");
        }
    }

    #[test]
    fn an_error_of_npm_itself_is_told_by_its_first_line_however_much_follows() {
        let usage = "npm error --ignore-scripts\n".repeat(100);
        let text =
            format!("npm error code EUSAGE\nnpm error\nnpm error The `npm ci` command can only install\n{usage}");
        assert_eq!(of(&text).as_deref(), Some("The `npm ci` command can only install"));
        let text = "npm error code E404\nnpm error 404 Not Found - GET https://registry.example/nope\nnpm error 404\n";
        assert_eq!(of(text).as_deref(), Some("404 Not Found - GET https://registry.example/nope"));
        let text = "npm error code 1\nnpm error path /app/node_modules/x\nnpm error command sh -c node-gyp\nnpm error gyp: no make\n\
                    npm error A complete log of this run can be found in: /x\n";
        assert_eq!(of(text).as_deref(), Some("gyp: no make"));
    }

    #[test]
    fn a_program_that_is_missing_is_named_whoever_looked_for_it() {
        for line in [
            "/bin/sh: 1: exec: nosuchprogram: not found",
            "sh: 1: nosuchprogram: not found",
            "/bin/sh: line 1: exec: nosuchprogram: not found",
            "bash: line 1: nosuchprogram: command not found",
            "callboard: the program `nosuchprogram` was not found; install it or check its name",
        ] {
            let sentence = said(&[line.to_owned()]);
            assert_eq!(sentence, "; the program `nosuchprogram` was not found; install it or check its name", "{line}");
        }
        assert_eq!(said(&["404: page: not found".to_owned()]), "; it said: 404: page: not found");
        assert_eq!(said(&[]), "");
    }
}
