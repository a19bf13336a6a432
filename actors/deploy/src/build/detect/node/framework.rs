//! The frameworks of Node.js: what their builds make, and how that is served.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{App, package::Package, script};

/// How the result of a build is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Served {
    /// By this command; `$PORT` is put in by a shell.
    Program { command: Run, reason: String },
    /// As files.
    Site { folder: PathBuf, alternatives: Vec<PathBuf>, single_page: bool, reason: String },
    /// Not as it is; the sentence says what to add.
    Refused(String),
}

/// A command of a framework.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Run {
    Exec(Vec<String>),
    Shell(String),
}

/// A framework that a dependency tells.
#[derive(Debug)]
pub(super) struct Framework {
    pub(super) name: &'static str,
    packages: &'static [&'static str],
    /// What is kept for the next build.
    pub(super) cache: &'static [&'static str],
    served: fn(&App, &Package) -> Served,
}

impl Framework {
    /// How what it has built is served.
    pub(super) fn served(&self, app: &App, package: &Package) -> Served {
        (self.served)(app, package)
    }
}

/// In this order: a framework comes before the tools that it is made of.
const FRAMEWORKS: [Framework; 21] = [
    framework("Next.js", &["next"], &[".next/cache"], next),
    framework("Nuxt", &["nuxt", "nuxt3", "nuxt-edge"], &[".nuxt/cache"], nuxt),
    framework("SvelteKit", &["@sveltejs/kit"], &[], sveltekit),
    framework("Astro", &["astro"], &["node_modules/.astro"], astro),
    framework("Remix", &["@remix-run/dev"], &[], remix),
    framework("React Router", &["@react-router/dev"], &[], react_router),
    framework("SolidStart", &["@solidjs/start"], &[], |_, _| nitro("SolidStart")),
    framework("TanStack Start", &["@tanstack/react-start", "@tanstack/solid-start"], &[], |_, _| {
        nitro("TanStack Start")
    }),
    framework("NestJS", &["@nestjs/core"], &[], nest),
    framework("Angular", &["@angular/core"], &[".angular/cache"], angular),
    framework("Gatsby", &["gatsby"], &[".cache", "public"], |_, _| pages("Gatsby", "public")),
    framework("Docusaurus", &["@docusaurus/core"], &[".docusaurus"], |_, _| pages("Docusaurus", "build")),
    framework("Eleventy", &["@11ty/eleventy"], &[], eleventy),
    framework("Hexo", &["hexo"], &[], |_, _| pages("Hexo", "public")),
    framework("VitePress", &["vitepress"], &[], |_, package| documents(package, "vitepress", "VitePress")),
    framework("VuePress", &["vuepress"], &[], |_, package| documents(package, "vuepress", "VuePress")),
    framework("Vue CLI", &["@vue/cli-service"], &[], |app, _| single_page(app, "Vue CLI", "dist")),
    framework("Create React App", &["react-scripts", "@craco/craco", "react-app-rewired"], &[], |app, _| {
        single_page(app, "Create React App", "build")
    }),
    framework("Preact CLI", &["preact-cli"], &[], |app, _| single_page(app, "Preact CLI", "build")),
    framework("Parcel", &["parcel", "parcel-bundler"], &[".parcel-cache"], |_, _| pages("Parcel", "dist")),
    framework("Vite", &["vite", "rolldown-vite"], &["node_modules/.vite"], vite),
];

const fn framework(
    name: &'static str,
    packages: &'static [&'static str],
    cache: &'static [&'static str],
    served: fn(&App, &Package) -> Served,
) -> Framework {
    Framework { name, packages, cache, served }
}

/// The framework of a package.
pub(super) fn of(package: &Package) -> Option<&'static Framework> {
    FRAMEWORKS.iter().find(|framework| framework.packages.iter().any(|name| package.needs(name)))
}

/// Folders into which builds of unknown tools put a site.
pub(super) const FOLDERS: [&str; 6] = ["dist", "build", "out", "_site", ".output/public", "public"];

fn program(argv: &[&str], reason: impl Into<String>) -> Served {
    let argv = argv.iter().map(|&word| word.to_owned()).collect();
    Served::Program { command: Run::Exec(argv), reason: reason.into() }
}

fn shell(line: &str, reason: impl Into<String>) -> Served {
    Served::Program { command: Run::Shell(line.to_owned()), reason: reason.into() }
}

/// Pages of their own, each a file.
fn pages(name: &str, folder: &str) -> Served {
    site(name, folder, false)
}

fn site(name: &str, folder: &str, single_page: bool) -> Served {
    let alternatives = FOLDERS.iter().filter(|other| **other != folder && **other != "public").map(PathBuf::from);
    let reason = if single_page {
        format!("{name} makes a single-page app in {folder}/")
    } else {
        format!("{name} makes a static site in {folder}/")
    };
    Served::Site { folder: PathBuf::from(folder), alternatives: alternatives.collect(), single_page, reason }
}

/// One page that makes all others in the browser, unless the app brings a page for what is not there.
fn single_page(app: &App, name: &str, folder: &str) -> Served {
    site(name, folder, !app.has("public/404.html") && !app.has("404.html"))
}

/// What Nitro builds, on which several frameworks stand.
fn nitro(name: &str) -> Served {
    program(&["node", ".output/server/index.mjs"], format!("{name} builds a server: node .output/server/index.mjs"))
}

/// The text of the first of a tool's configuration files, without its comments.
fn configuration(app: &App, stem: &str) -> Option<(String, String)> {
    ["js", "ts", "mjs", "mts", "cjs"].iter().find_map(|end| {
        let name = format!("{stem}.{end}");
        Some((name.clone(), without_comments(&app.glance(&name)?)))
    })
}

fn without_comments(text: &str) -> String {
    let mut all = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("/*") {
        all.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    all.push_str(rest);
    let lines = all.lines().map(|line| match line.trim_start().starts_with("//") {
        true => "",
        false => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The text in quotes that a configuration gives a key: `outDir: 'public'`.
fn setting(text: &str, key: &str) -> Option<String> {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(key) {
        rest = after;
        let is_word = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
        if is_word(before.chars().next_back()) || is_word(after.chars().next()) {
            continue;
        }
        let value = after.trim_start_matches(['\'', '"']).trim_start();
        let Some(value) = value.strip_prefix(':').or_else(|| value.strip_prefix('=')) else { continue };
        let value = value.trim_start();
        let Some(quote) = value.chars().next().filter(|letter| matches!(letter, '\'' | '"' | '`')) else { continue };
        return value.get(1..)?.split(quote).next().map(str::to_owned);
    }
    None
}

/// The folder that a setting names, if it is one of the app.
fn folder(text: &str, key: &str) -> Option<String> {
    let folder = super::relative(&setting(text, key)?)?;
    (!folder.as_os_str().is_empty()).then(|| folder.display().to_string())
}

/// Whether a configuration gives a key this word.
fn says(text: &str, key: &str, value: &str) -> bool {
    let tight: String = text.split_whitespace().collect();
    tight.contains(&format!("{key}:{value}"))
}

fn next(app: &App, package: &Package) -> Served {
    let configuration = configuration(app, "next.config").map(|(_, text)| text).unwrap_or_default();
    let exports = |package: &Package| {
        let build = package.script("build").unwrap_or_default();
        script::commands(package, build).iter().any(|words| words.iter().any(|word| word == "export"))
    };
    if setting(&configuration, "output").as_deref() == Some("export") || exports(package) {
        let folder = folder(&configuration, "distDir").filter(|folder| folder != ".next");
        return pages("Next.js with `output: 'export'`", &folder.unwrap_or_else(|| "out".to_owned()));
    }
    shell("next start --port $PORT", "Next.js is served by `next start`")
}

fn nuxt(app: &App, package: &Package) -> Served {
    let configuration = configuration(app, "nuxt.config").map(|(_, text)| text).unwrap_or_default();
    let build = package.script("build").unwrap_or_default();
    let generates = script::commands(package, build).iter().any(|words| words.iter().any(|word| word == "generate"));
    let is_static = setting(&configuration, "preset").is_some_and(|preset| preset.contains("static"));
    if generates || is_static {
        return site("Nuxt", ".output/public", says(&configuration, "ssr", "false"));
    }
    nitro("Nuxt")
}

fn sveltekit(app: &App, package: &Package) -> Served {
    let (file, configuration) = configuration(app, "svelte.config").unwrap_or_default();
    let uses = |adapter: &str| {
        let name = format!("@sveltejs/adapter-{adapter}");
        package.needs(&name) && (configuration.is_empty() || configuration.contains(&name))
    };
    if uses("node") {
        let out = folder(&configuration, "out").unwrap_or_else(|| "build".to_owned());
        return program(&["node", &out], format!("SvelteKit's adapter-node builds a server: node {out}"));
    }
    if uses("static") {
        let folder = folder(&configuration, "pages").unwrap_or_else(|| "build".to_owned());
        // A fallback page is one for all addresses that have none of their own.
        let fallback = setting(&configuration, "fallback");
        return site("SvelteKit's adapter-static", &folder, fallback.as_deref() == Some("index.html"));
    }
    let file = if file.is_empty() { "svelte.config.js".to_owned() } else { file };
    let which = ["auto", "vercel", "netlify", "cloudflare"].iter().find(|adapter| uses(adapter)).unwrap_or(&"auto");
    Served::Refused(format!(
        "{file} builds with adapter-{which}, which is for other platforms; run `npm install --save-dev \
         @sveltejs/adapter-node` and write `import adapter from '@sveltejs/adapter-node'` in {file} (or adapter-static \
         for a site without a server)"
    ))
}

fn astro(app: &App, package: &Package) -> Served {
    let configuration = configuration(app, "astro.config").map(|(_, text)| text).unwrap_or_default();
    let out = folder(&configuration, "outDir").unwrap_or_else(|| "dist".to_owned());
    let renders = setting(&configuration, "output").is_some_and(|output| output == "server" || output == "hybrid");
    if package.needs("@astrojs/node") && configuration.contains("@astrojs/node") {
        if setting(&configuration, "mode").as_deref() == Some("middleware") {
            return Served::Refused(
                "astro.config builds with the node adapter in the mode `middleware`, which is no server; write \
                 `mode: 'standalone'`, or set a start command"
                    .to_owned(),
            );
        }
        let entry = format!("{out}/server/entry.mjs");
        let line = format!("HOST=127.0.0.1 exec node {entry}");
        return shell(&line, format!("Astro's node adapter builds a server: node {entry}"));
    }
    if renders {
        return Served::Refused(
            "astro.config renders on the server with an adapter for another platform; run `npx astro add node`, which \
             writes `adapter: node({ mode: 'standalone' })`"
                .to_owned(),
        );
    }
    pages("Astro", &out)
}

fn remix(app: &App, package: &Package) -> Served {
    let configuration = configuration(app, "vite.config").map(|(_, text)| text).unwrap_or_default();
    if says(&configuration, "ssr", "false") {
        return site("Remix", "build/client", true);
    }
    if package.needs("@remix-run/serve") {
        let entry = if app.has("remix.config.js") { "build/index.js" } else { "build/server/index.js" };
        return program(&["remix-serve", entry], "Remix is served by remix-serve");
    }
    Served::Refused(
        "package.json builds a Remix app and does not say what serves it; run `npm install @remix-run/serve`, or add a \
         `start` script"
            .to_owned(),
    )
}

fn react_router(app: &App, package: &Package) -> Served {
    let configuration = configuration(app, "react-router.config").map(|(_, text)| text).unwrap_or_default();
    if says(&configuration, "ssr", "false") {
        return site("React Router", "build/client", true);
    }
    if package.needs("@react-router/serve") {
        return program(
            &["react-router-serve", "build/server/index.js"],
            "React Router is served by react-router-serve",
        );
    }
    Served::Refused(
        "package.json builds a React Router app and does not say what serves it; run `npm install \
         @react-router/serve`, or add a `start` script"
            .to_owned(),
    )
}

fn nest(app: &App, package: &Package) -> Served {
    let production = package.script("start:prod").unwrap_or_default();
    if let [words] = script::commands(package, production).as_slice()
        && let [node, arguments @ ..] = words.as_slice()
        && node == "node"
        && !arguments.is_empty()
    {
        // Without an ending Node.js finds the file as well.
        return Served::Program {
            command: Run::Exec(words.clone()),
            reason: format!("NestJS is built first and runs as `{}`", words.join(" ")),
        };
    }
    let source = if app.has("src/main.ts") || !app.has("main.ts") { "dist/main" } else { "dist/src/main" };
    program(&["node", source], format!("NestJS is built first and runs as `node {source}`"))
}

fn angular(app: &App, package: &Package) -> Served {
    let text = app.glance("angular.json").unwrap_or_default();
    let workspace: Value = serde_json::from_str(&text).unwrap_or_default();
    let projects = workspace.get("projects").and_then(Value::as_object);
    let named = workspace.get("defaultProject").and_then(Value::as_str);
    let is_app = |project: &&Value| project.get("projectType").and_then(Value::as_str) != Some("library");
    let first = projects.and_then(|all| all.iter().find(|(_, project)| is_app(project)));
    let chosen = named.and_then(|name| Some((name, projects?.get(name)?)));
    let chosen = chosen.or_else(|| first.map(|(name, project)| (name.as_str(), project)));
    let name = chosen.map(|(name, _)| name).or_else(|| package.name()).unwrap_or("app").to_owned();
    let build = chosen
        .and_then(|(_, project)| project.get("architect").or_else(|| project.get("targets"))?.get("build").cloned());
    let option = |key: &str| build.as_ref()?.get("options")?.get(key).cloned();
    let builder = build.as_ref().and_then(|build| build.get("builder")?.as_str()).unwrap_or_default();
    let output = option("outputPath");
    let base = output.as_ref().and_then(|path| path.as_str().or_else(|| path.get("base")?.as_str()));
    let base = base.map_or_else(|| format!("dist/{name}"), |base| base.trim_end_matches('/').to_owned());
    let browser = output.as_ref().and_then(|path| path.get("browser")?.as_str()).unwrap_or("browser").to_owned();
    let renders = option("server").is_some() || option("ssr").is_some_and(|ssr| ssr != Value::Bool(false));
    if renders && !builder.contains(":browser") && option("outputMode").is_none_or(|mode| mode != "static") {
        let entry = format!("{base}/server/server.mjs");
        return program(&["node", &entry], format!("Angular builds a server: node {entry}"));
    }
    let folder =
        if builder.contains(":browser") || browser.is_empty() { base.clone() } else { format!("{base}/{browser}") };
    match single_page(app, "Angular", &folder) {
        Served::Site { folder, single_page, reason, .. } => {
            Served::Site { folder, alternatives: vec![PathBuf::from(base), PathBuf::from("dist")], single_page, reason }
        }
        other => other,
    }
}

fn eleventy(app: &App, package: &Package) -> Served {
    let build = package.script("build").unwrap_or_default();
    let argument = script::commands(package, build)
        .into_iter()
        .flatten()
        .find_map(|word| word.strip_prefix("--output=").map(str::to_owned));
    let file = [".eleventy.js", "eleventy.config.js", "eleventy.config.mjs", "eleventy.config.cjs"];
    let configured = file.iter().find_map(|name| folder(&without_comments(&app.glance(name)?), "output"));
    pages("Eleventy", &argument.or(configured).unwrap_or_else(|| "_site".to_owned()))
}

/// Documents in a folder that the build script names: `vitepress build docs`.
fn documents(package: &Package, tool: &str, name: &str) -> Served {
    let scripts = ["build", "docs:build"].iter().find_map(|name| package.script(name)).unwrap_or_default();
    let words =
        script::commands(package, scripts).into_iter().find(|words| words.first().is_some_and(|word| word == tool));
    let inside = words.and_then(|words| words.iter().skip(2).find(|word| !word.starts_with('-')).cloned());
    let folder = Path::new(inside.as_deref().unwrap_or("")).join(format!(".{tool}/dist"));
    match pages(name, &folder.display().to_string()) {
        Served::Site { folder, single_page, reason, .. } => {
            let alternatives = vec![PathBuf::from(format!("docs/.{tool}/dist"))];
            Served::Site { folder, alternatives, single_page, reason }
        }
        other => other,
    }
}

fn vite(app: &App, package: &Package) -> Served {
    let configuration = configuration(app, "vite.config").map(|(_, text)| text).unwrap_or_default();
    let build = package.script("build").unwrap_or_default();
    let words: Vec<String> = script::commands(package, build).into_iter().flatten().collect();
    let option = words.iter().position(|word| word == "--outDir").and_then(|at| words.get(at + 1)).cloned();
    let folder = option.or_else(|| folder(&configuration, "outDir")).unwrap_or_else(|| "dist".to_owned());
    single_page(app, "Vite", &folder)
}
