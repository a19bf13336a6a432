//! What the scripts of `package.json` run: their commands, and which of them are for developers only.

use super::package::Package;

/// How deep scripts may call each other.
const DEPTH: usize = 6;

/// What a start script comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// A server that rebuilds what it serves, for one developer.
    Development(String),
    /// A server for a folder of files, with that folder where it is named, and whether it is for a single-page app.
    Files { shown: String, folder: Option<String>, single_page: bool },
    /// A watcher around a program of Node.js.
    Watched { shown: String, file: String },
    /// What is to run.
    Program,
}

/// The simple commands that a script runs, each as its words, with the scripts that it calls in their place.
pub(super) fn commands(package: &Package, script: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    expand(package, script, DEPTH, &mut all);
    all
}

/// What the start script of a package comes to: its last command is the one that stays.
pub(super) fn start(package: &Package, script: &str) -> Start {
    let commands = commands(package, script);
    let judged: Vec<Start> = commands.iter().map(|words| judge(words)).collect();
    // Beside a server for developers all else helps it.
    judged
        .iter()
        .find(|start| matches!(start, Start::Development(_)))
        .or_else(|| judged.last())
        .cloned()
        .unwrap_or(Start::Program)
}

fn expand(package: &Package, script: &str, depth: usize, all: &mut Vec<Vec<String>>) {
    for mut words in split(script) {
        unwrap(&mut words);
        let called = called(&words);
        if depth > 0 && !called.is_empty() {
            for name in called {
                match name {
                    Called::Script(name) => {
                        if let Some(script) = package.script(&name) {
                            expand(package, script, depth - 1, all);
                        }
                    }
                    Called::Line(line) => expand(package, &line, depth - 1, all),
                }
            }
        } else if !words.is_empty() {
            all.push(words);
        }
    }
}

/// The simple commands of a line of shell, split at its operators, each as its words without quotes.
fn split(line: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            (None, '&' | '|' | ';' | '\n') => {
                words.extend(word.take());
                all.push(std::mem::take(&mut words));
            }
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    all.push(words);
    all.retain(|words| !words.is_empty());
    all
}

/// Removes what stands before the program: variables, and programs that only call another.
fn unwrap(words: &mut Vec<String>) {
    let is_variable = |word: &String| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        })
    };
    loop {
        let first = words.first().map(String::as_str).unwrap_or_default();
        let second = words.get(1).map(String::as_str).unwrap_or_default();
        let passed = match (first, second) {
            _ if words.first().is_some_and(is_variable) => 1,
            ("cross-env" | "cross-env-shell" | "env" | "exec" | "npx" | "bunx" | "pnpx", _) => 1,
            ("pnpm" | "yarn" | "npm" | "bun", "exec" | "dlx" | "x") => 2,
            ("dotenv" | "dotenvx", _) => match words.iter().position(|word| word == "--") {
                Some(end) => end + 1,
                None => return,
            },
            _ => return,
        };
        words.drain(..passed.min(words.len()));
        // Options of the caller, such as `npx --yes`.
        while words.first().is_some_and(|word| word.starts_with('-')) {
            words.remove(0);
        }
    }
}

enum Called {
    Script(String),
    Line(String),
}

/// The scripts that a command of a package manager or a runner of scripts calls.
fn called(words: &[String]) -> Vec<Called> {
    let word = |index: usize| words.get(index).map(String::as_str).unwrap_or_default();
    let script = |index: usize| words.get(index).map(|name| Called::Script(name.clone())).into_iter().collect();
    let plain = |from: usize| words.iter().skip(from).filter(|word| !word.starts_with('-')).cloned();
    match (word(0), word(1)) {
        ("npm" | "pnpm" | "yarn" | "bun", "run" | "run-script") => script(2),
        ("npm" | "pnpm", "start" | "test" | "stop" | "restart") => script(1),
        // Without `run` these call scripts, too; their own verbs are no names of scripts.
        ("pnpm" | "yarn", verb) if !verb.is_empty() && !verb.starts_with('-') => script(1),
        ("node", "--run") => script(2),
        ("run-s" | "run-p" | "npm-run-all" | "npm-run-all2", _) => plain(1).map(Called::Script).collect(),
        ("concurrently", _) => plain(1)
            .map(|line| match line.strip_prefix("npm:") {
                Some(name) => Called::Script(name.to_owned()),
                None => Called::Line(line),
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Programs that serve what is being written, by the verbs with which they do; `""` is without any verb.
const DEVELOPMENT: [(&str, &[&str]); 43] = [
    ("react-scripts", &["start"]),
    ("react-app-rewired", &["start"]),
    ("craco", &["start"]),
    ("astro", &["", "dev", "start", "preview"]),
    ("ng", &["serve", "s", "dev"]),
    ("vite", &["", "dev", "serve", "preview"]),
    ("vitepress", &["", "dev", "serve", "preview"]),
    ("vuepress", &["dev", "serve"]),
    ("docusaurus", &["start", "serve"]),
    ("hexo", &["server", "s"]),
    ("gatsby", &["develop", "serve"]),
    ("parcel", &["", "serve", "watch"]),
    ("webpack", &["serve", "watch", "s"]),
    ("webpack-cli", &["serve", "watch"]),
    ("webpack-dev-server", &[""]),
    ("rspack", &["serve", "dev"]),
    ("rsbuild", &["", "dev", "preview"]),
    ("vue-cli-service", &["serve"]),
    ("next", &["", "dev"]),
    ("nuxt", &["", "dev", "preview", "start"]),
    ("nuxi", &["dev", "preview"]),
    ("remix", &["dev", "watch", "vite:dev"]),
    ("react-router", &["dev"]),
    ("svelte-kit", &["dev", "preview"]),
    ("vinxi", &["dev"]),
    ("qwik", &["dev"]),
    ("preact", &["watch", "serve"]),
    ("ember", &["serve", "server", "s"]),
    ("umi", &["dev"]),
    ("ice", &["start"]),
    ("live-server", &[""]),
    ("browser-sync", &["", "start"]),
    ("lite-server", &[""]),
    ("gulp", &["serve", "watch", "dev"]),
    ("grunt", &["serve", "watch"]),
    ("wrangler", &["dev"]),
    ("netlify", &["dev"]),
    ("vercel", &["dev"]),
    ("firebase", &["serve"]),
    ("storybook", &["dev"]),
    ("start-storybook", &[""]),
    ("expo", &["start"]),
    ("flask", &["run"]),
];

/// Servers for a folder of files.
const FILES: [&str; 5] = ["serve", "http-server", "sirv", "servor", "ws"];

/// Words with which programs of no known name say that they serve what is being written.
const SIGNS: [&str; 9] = ["serve", "dev", "develop", "watch", "--serve", "--watch", "--dev", "--develop", "--hot"];

/// Programs that run others, for which these words mean nothing.
const RUNTIMES: [&str; 15] = [
    "node",
    "deno",
    "bun",
    "tsx",
    "ts-node",
    "python",
    "python3",
    "java",
    "go",
    "./server",
    "pm2",
    "pm2-runtime",
    "sh",
    "bash",
    "nest",
];

fn judge(words: &[String]) -> Start {
    let Some((path, arguments)) = words.split_first() else { return Start::Program };
    // A program of the app's own says nothing by its words.
    let is_own = path.contains('/') && !path.contains("node_modules/");
    let program = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".js");
    let shown = || words.join(" ");
    let verb = arguments.iter().find(|word| !word.starts_with('-')).map(String::as_str).unwrap_or_default();
    let has = |sign: &str| arguments.iter().any(|word| word == sign);
    if FILES.contains(&program) {
        let single_page = has("-s") || has("--single") || arguments.iter().any(|word| word.starts_with("-P"));
        let folder = arguments.iter().rfind(|word| is_folder(word)).cloned();
        return Start::Files { shown: shown(), folder, single_page };
    }
    if matches!(program, "nodemon" | "node-dev" | "supervisor") || (program == "node" && has("--watch")) {
        return match arguments.iter().find(|word| is_program(word)) {
            Some(file) => Start::Watched { shown: shown(), file: file.clone() },
            None => Start::Program,
        };
    }
    if let Some((_, verbs)) = DEVELOPMENT.iter().find(|(name, _)| *name == program) {
        // Vite and Parcel take a folder where others have a verb.
        let verb =
            if matches!(program, "vite" | "parcel") && verb != "build" && !verbs.contains(&verb) { "" } else { verb };
        let watches = has("--watch") || has("-w") || has("--serve");
        return if verbs.contains(&verb) || watches { Start::Development(shown()) } else { Start::Program };
    }
    if matches!(program, "eleventy" | "@11ty/eleventy") && (has("--serve") || has("--watch")) {
        return Start::Development(shown());
    }
    let is_runtime = RUNTIMES.contains(&program) || program.contains('.') || is_own;
    if !is_runtime && SIGNS.iter().any(|sign| has(sign)) {
        return Start::Development(shown());
    }
    Start::Program
}

fn is_folder(word: &str) -> bool {
    !word.starts_with('-')
        && !word.chars().all(|letter| letter.is_ascii_digit())
        && super::relative(word).is_some()
        && !word.contains("://")
        && !word.contains('$')
}

fn is_program(word: &str) -> bool {
    [".js", ".mjs", ".cjs"].iter().any(|end| word.ends_with(end)) && !word.starts_with('-')
}
