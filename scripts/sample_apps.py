"""The apps of `scripts/apps`: how the tools' own generators make them, and what is right for each.

What is written here instead of made is the smallest app of its kind, for generators that fetch their templates from
elsewhere than a package registry."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Make:
    line: str
    # Whether it runs in the app's folder, and not in the one above.
    inside: bool = False


@dataclass
class App:
    name: str
    make: list = field(default_factory=list)
    files: dict = field(default_factory=dict)
    folder: str = "app"
    path: str = "/"
    # A part of the page.
    shows: str = ""
    # A part of the sentence, where refusing it is right.
    refused: str = None
    options: tuple = ()


def tools(folder, patience):
    """Installs the generators that registries have; a sentence when that fails."""
    commands = [
        ["python3", "-m", "venv", str(folder)],
        [f"{folder}/bin/pip", "install", "--quiet", "django", "poetry", "uv", "pipenv"],
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "pnpm@9", "yarn@1"],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=patience, check=False)
        if done.returncode != 0:
            return f"{' '.join(command)} failed: {done.stderr.decode(errors='replace').strip()[-500:]}"
    return None


SERVER = 'require("http").createServer((q, r) => r.end("hello from node")).listen(process.env.PORT)\n'
FLASK = 'from flask import Flask\n\napp = Flask(__name__)\n\n\n@app.get("/")\ndef home():\n    return "hello from flask"\n'
FASTAPI = ('from fastapi import FastAPI\n\napp = FastAPI()\n\n\n@app.get("/")\ndef home():\n'
           '    return {"hello": "fastapi"}\n')
PAGE = "<!doctype html><title>page</title><h1>hello from a page</h1>\n"


def package(**content):
    """A package.json."""
    import json
    return json.dumps({"name": "app", "private": True, **content}, indent=2) + "\n"


def lock(tool):
    """The command by which a package manager writes its lock file and installs."""
    return Make({"npm": "npm install --package-lock-only --no-audit --no-fund", "pnpm": "pnpm install --lockfile-only",
                 "yarn": "yarn install --silent --ignore-scripts"}[tool], inside=True)


def vite(template, title):
    return App(f"create-vite {template}", [Make(f"npm create --yes vite@latest app -- --template {template} --no-interactive")],
               path="/deep/link", shows=title)


def workspace(tool, **root):
    """A workspace with an app that needs a package of it."""
    reference = "*" if tool != "pnpm" else "workspace:*"
    files = {"package.json": package(workspaces=["apps/*", "packages/*"], **root),
             "apps/web/package.json": package(name="web", scripts={"start": "node server.js"},
                                              dependencies={"greet": reference}).replace('"name": "app",', ""),
             "apps/web/server.js": SERVER.replace('"hello from node"', 'require("greet")'),
             "packages/greet/package.json": package(version="1.0.0", main="index.js").replace('"app"', '"greet"'),
             "packages/greet/index.js": 'module.exports = "hello from a workspace"\n',
             "callboard.toml": 'root = "apps/web"\n'}
    files["apps/web/package.json"] = files["apps/web/package.json"].replace('"app"', '"web"')
    if tool == "pnpm":
        files["pnpm-workspace.yaml"] = "packages:\n  - apps/*\n  - packages/*\n"
    return App(f"{tool} workspace", [lock(tool)], files, shows="hello from a workspace")


RUST = '''use std::{io::{Read, Write}, net::TcpListener};

fn main() {
    let listener = TcpListener::bind(("127.0.0.1", std::env::var("PORT").unwrap().parse().unwrap())).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\\r\\nContent-Length: 15\\r\\nConnection: close\\r\\n\\r\\nhello from rust");
    }
}
'''
GO = '''package main

import ("fmt"; "net/http"; "os")

func main() {
\thttp.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello from go") })
\thttp.ListenAndServe(":"+os.Getenv("PORT"), nil)
}
'''
NEXT = {"app/layout.js": "export default function Layout({ children }) { return <html><body>{children}</body></html> }\n",
        "app/page.js": "export default function Page() { return <h1>hello from next</h1> }\n"}
ROUTER = {
    "app/root.tsx": 'import { Outlet, Scripts } from "react-router";\nexport default function App() {\n  return <html><body>'
                    "<Outlet /><Scripts /></body></html>;\n}\n",
    "app/routes.ts": 'import { index } from "@react-router/dev/routes";\nexport default [index("home.tsx")];\n',
    "app/home.tsx": "export default function Home() { return <h1>hello from react router</h1>; }\n",
    "vite.config.ts": 'import { reactRouter } from "@react-router/dev/vite";\nexport default { plugins: [reactRouter()] };\n'}


def router(serve):
    needs = {"react": "^19", "react-dom": "^19", "react-router": "7.9.4", "isbot": "^5", "@react-router/node": "7.9.4"}
    if serve:
        needs["@react-router/serve"] = "7.9.4"
    scripts = {"build": "react-router build", "dev": "react-router dev"}
    return {**ROUTER, "package.json": package(type="module", scripts=scripts, dependencies=needs,
                                              devDependencies={"@react-router/dev": "7.9.4", "vite": "^7", "typescript": "^5"})}


def missing(program):
    """What is right where a program is not there for the user of builds: a refusal that names it."""
    path = shutil.which(program)
    # A node that runs as root builds as another user, who may not enter root's home.
    hidden = path and os.geteuid() == 0 and any(not parent.stat().st_mode & 0o001 for parent in Path(path).parents)
    return None if path and not hidden else "is not installed on this node"


def older_node(major, sentence):
    """What is right where Node.js is older than a generator's apps ask for: a refusal that says so."""
    done = subprocess.run(["node", "--version"], capture_output=True, check=False)
    version = done.stdout.decode().strip().lstrip("v").split(".")[0]
    return sentence if version.isdigit() and int(version) < major else None


APPS = [
    # Node.js: generators.
    vite("react-ts", "<div id=\"root\">"),
    vite("vue", "<div id=\"app\">"),
    vite("svelte", "<div id=\"app\">"),
    vite("vanilla", "<div id=\"app\">"),
    App("create-vue", [Make("npm create --yes vue@latest app -- --default")], path="/deep", shows="<div id=\"app\">",
        refused=older_node(22, "asks for Node.js ^22")),
    App("create-next-app", [Make("npx --yes create-next-app@latest app --yes --empty --skip-install --disable-git")],
        shows="<html"),
    App("nest new", [Make("npx --yes @nestjs/cli new app --skip-git --skip-install --package-manager npm")],
        shows="Hello World!"),
    App("ng new", [Make("npx --yes @angular/cli@19 new app --defaults --skip-git --skip-install")], path="/deep",
        shows="<app-root"),
    App("sv create (adapter-node)",
        [Make("npx --yes sv create app --template minimal --types ts --no-add-ons --no-install"),
         Make("sed -i s/adapter-auto/adapter-node/ svelte.config.js vite.config.ts package.json 2>/dev/null; "
              "npm pkg set devDependencies.@sveltejs/adapter-node=^5", inside=True)], shows="Welcome to SvelteKit"),
    App("sv create", [Make("npx --yes sv create app --template minimal --types ts --no-add-ons --no-install")],
        refused="adapter-auto"),
    App("create-docusaurus", [Make("npx --yes create-docusaurus@latest app classic --javascript --skip-install")],
        shows="Docusaurus"),
    App("express-generator", [Make("npx --yes express-generator --no-view app")], shows="Express"),
    App("npm init", [Make("mkdir -p app && cd app && npm init --yes")], {"index.js": SERVER}, shows="hello from node"),
    # Node.js: written, because their generators fetch templates.
    App("next (standard)", [lock("npm")],
        {**NEXT, "package.json": package(scripts={"build": "next build", "start": "next start"},
                                         dependencies={"next": "^15", "react": "^19", "react-dom": "^19"})},
        shows="hello from next"),
    App("next (export)", [lock("npm")],
        {**NEXT, "next.config.mjs": "export default { output: 'export' }\n",
         "package.json": package(scripts={"build": "next build", "start": "next start"},
                                 dependencies={"next": "^15", "react": "^19", "react-dom": "^19"})},
        shows="hello from next"),
    App("astro", files={"src/pages/index.astro": "---\n---\n<h1>hello from astro</h1>\n",
                        "package.json": package(type="module", scripts={"start": "astro dev", "build": "astro build"},
                                                dependencies={"astro": "^5"})}, shows="hello from astro"),
    App("astro (node)", files={
        "src/pages/index.astro": "---\n---\n<h1>hello from astro</h1>\n",
        "astro.config.mjs": "import node from '@astrojs/node'\nexport default { output: 'server', adapter: "
                            "node({ mode: 'standalone' }) }\n",
        "package.json": package(type="module", scripts={"start": "astro dev", "build": "astro build"},
                                dependencies={"astro": "^5", "@astrojs/node": "^9"})}, shows="hello from astro"),
    App("nuxt", files={"app.vue": "<template><h1>hello from nuxt</h1></template>\n",
                       "nuxt.config.ts": "export default defineNuxtConfig({ telemetry: false, compatibilityDate: '2025-01-01' })\n",
                       "package.json": package(type="module", scripts={"build": "nuxt build", "dev": "nuxt dev"},
                                               dependencies={"nuxt": "^3"})}, shows="hello from nuxt"),
    App("react router", files=router(True), shows="hello from react router"),
    App("react router (no server)", files=router(False), refused="@react-router/serve"),
    App("eleventy", files={"index.md": "# hello from eleventy\n",
                           "package.json": package(scripts={"start": "eleventy --serve", "build": "eleventy"},
                                                   devDependencies={"@11ty/eleventy": "^3"})},
        shows="hello from eleventy"),
    App("vitepress", files={"docs/index.md": "# hello from vitepress\n",
                            "package.json": package(scripts={"build": "vitepress build docs", "start": "vitepress dev docs"},
                                                    devDependencies={"vitepress": "^1"})}, shows="hello from vitepress"),
    App("parcel", files={"src/index.html": PAGE, "package.json": package(
        source="src/index.html", scripts={"start": "parcel", "build": "parcel build"},
        devDependencies={"parcel": "^2"})}, shows="hello from a page"),
    App("webpack", files={"src/index.js": "console.log(1)\n", "webpack.config.js":
                          "const H = require('html-webpack-plugin')\nmodule.exports = { mode: 'production', plugins: [new H()] }\n",
                          "package.json": package(scripts={"start": "webpack serve --open", "build": "webpack"}, devDependencies={
                              "webpack": "^5", "webpack-cli": "^6", "webpack-dev-server": "^5", "html-webpack-plugin": "^5"})},
        shows="<script"),
    App("tsx", [lock("npm")], {"src/index.ts": SERVER.replace('require("http")', '(await import("node:http"))'),
                               "package.json": package(type="module", scripts={"start": "tsx src/index.ts"},
                                                       devDependencies={"tsx": "^4"})}, shows="hello from node"),
    App("ts with build", [lock("npm")], {
        "src/index.ts": 'import { createServer } from "node:http"\ncreateServer((q, r) => r.end("hello from ts"))'
                        ".listen(process.env.PORT)\n",
        "tsconfig.json": '{"compilerOptions": {"outDir": "dist", "module": "nodenext", "types": ["node"], "rootDir": "src"}}\n',
        "package.json": package(scripts={"start": "node dist/index.js", "build": "tsc"},
                                devDependencies={"typescript": "^5", "@types/node": "^20"})}, shows="hello from ts"),
    App("pnpm", [lock("pnpm")], {"server.js": SERVER, "package.json": package(
        packageManager="pnpm@9.15.0", scripts={"start": "node server.js"}, dependencies={"ms": "2.1.3"})},
        shows="hello from node"),
    App("yarn 1", [lock("yarn")], {"server.js": SERVER, "package.json": package(
        scripts={"start": "node server.js"}, dependencies={"ms": "2.1.3"})}, shows="hello from node"),
    App("yarn 4", [Make("npx --yes @yarnpkg/cli-dist@4.9.1 install --mode=update-lockfile", inside=True)],
        {"server.js": SERVER, "yarn.lock": "", ".yarnrc.yml": "nodeLinker: node-modules\n", "package.json": package(
            packageManager="yarn@4.9.1", scripts={"start": "node server.js"}, dependencies={"ms": "2.1.3"})},
        shows="hello from node"),
    App("bun", files={"bun.lock": '{"lockfileVersion": 1, "workspaces": {"": {"name": "app"}}, "packages": {}}\n',
                      "index.ts": 'Bun.serve({ port: process.env.PORT, fetch: () => new Response("hello from bun") })\n',
                      "package.json": package(scripts={"start": "bun run index.ts", "build": "bun build index.ts --target=bun "
                                                       "--outdir=dist"})}, shows="hello from bun"),
    workspace("npm"), workspace("pnpm"), workspace("yarn"),
    App("two lock files", files={"server.js": SERVER, "package-lock.json": "{}", "yarn.lock": "", "package.json": package(
        scripts={"start": "node server.js"}, dependencies={"ms": "2.1.3"})}, refused="are both there"),
    App("node 4 asked", files={"server.js": SERVER, ".nvmrc": "4\n", "package.json": package(
        scripts={"start": "node server.js"})}, refused="`.nvmrc` asks for Node.js 4"),
    # Python.
    App("flask", files={"app.py": FLASK, "requirements.txt": "flask\ngunicorn\n"}, shows="hello from flask"),
    App("flask (no server)", files={"app.py": FLASK, "requirements.txt": "flask\n"}, refused="add the line `gunicorn`"),
    App("fastapi", files={"main.py": FASTAPI, "requirements.txt": "fastapi[standard]\n"}, shows="fastapi"),
    App("fastapi (no server)", files={"main.py": FASTAPI, "requirements.txt": "fastapi\n"}, refused="add the line `uvicorn`"),
    App("django-admin startproject",
        [Make("mkdir -p app && django-admin startproject shop app && printf 'django\\ngunicorn\\n' > app/requirements.txt")],
        shows="The install worked successfully"),
    App("django-admin (no requirements)", [Make("mkdir -p app && django-admin startproject shop app")], refused="gunicorn"),
    App("streamlit", files={"streamlit_app.py": 'import streamlit as st\n\nst.title("hello")\n',
                            "requirements.txt": "streamlit\n"}, shows="Streamlit"),
    App("uv init", [Make("uv init app --no-readme --vcs none"), Make("uv add fastapi uvicorn", inside=True)],
        {"main.py": FASTAPI}, shows="fastapi"),
    App("uv init (as it is)", [Make("uv init app --vcs none && rm -f app/.python-version")], refused="PORT"),
    App("poetry new", [Make("poetry new app && rm -rf app/tests && cp web.py app/"), Make("poetry add flask gunicorn", inside=True)],
        {"../web.py": FLASK}, shows="hello from flask"),
    App("poetry (no lock)", files={"app.py": FLASK, "pyproject.toml":
                                   "[tool.poetry]\nname = 'app'\nversion = '0.1.0'\ndescription = ''\nauthors = []\npackage-mode = "
                                   "false\n[tool.poetry.dependencies]\npython = '>=3.9'\nflask = '^3'\ngunicorn = '*'\n"},
        shows="hello from flask"),
    App("pipenv", [Make("pipenv install flask gunicorn", inside=True)], {"app.py": FLASK}, shows="hello from flask"),
    App("pipenv (no lock)", files={"app.py": FLASK, "Pipfile": "[packages]\nflask = '*'\ngunicorn = '*'\n"},
        shows="hello from flask"),
    App("pyproject alone", files={"main.py": FASTAPI, "pyproject.toml":
                                  "[project]\nname = 'app'\nversion = '0.1.0'\ndependencies = ['fastapi', 'uvicorn']\n"},
        shows="fastapi"),
    App("setup.cfg", files={"main.py": FLASK, "setup.cfg": "[metadata]\nname = app\nversion = 0.1\n[options]\npy_modules =\n"
                            "install_requires =\n  flask\n  gunicorn\n", "setup.py": "import setuptools\nsetuptools.setup()\n"},
        shows="hello from flask"),
    # Other languages.
    App("cargo new", [Make("cargo new --vcs none --quiet app"),
                      Make("cp ../main.rs src/main.rs", inside=True)], {"../main.rs": RUST}, shows="hello from rust",
        refused=missing("cargo")),
    App("go mod init", [Make("mkdir -p app")], {"main.go": GO, "go.mod": "module example.com/app\n\ngo 1.19\n"},
        shows="hello from go", refused=missing("go")),
    App("sinatra", files={"Gemfile": "source 'https://rubygems.org'\ngem 'sinatra'\n", "app.rb": "require 'sinatra'\n"},
        refused=missing("ruby")),
    App("composer", files={"composer.json": "{}\n", "index.php": "<?php echo 'hello';\n"},
        refused="is not installed on this node" if not shutil.which("php") else "php -S"),
    App("deno", files={"deno.json": "{}\n", "main.ts": "export default { fetch() { return new Response('hello') } }\n"},
        shows="hello", refused=missing("deno")),
    # Files.
    App("static", files={"index.html": PAGE}, shows="hello from a page"),
    App("static in public", files={"public/index.html": PAGE, "README.md": "x"}, shows="hello from a page"),
    App("generator of its own", files={"page.html": PAGE, "package.json": package(scripts={
        "start": "ssg --serve", "build": "mkdir -p _site && cp page.html _site/index.html"})}, shows="hello from a page"),
    App("Dockerfile alone", files={"Dockerfile": "FROM scratch\n"}, refused="add a Procfile"),
    App("nothing known", files={"notes.txt": "x\n"}, refused="nothing in the source tells"),
    App("callboard.toml with mistakes", files={"callboard.toml": "biuld = 1\nstart = 2\n", "index.html": PAGE},
        refused="line 1: `biuld` is no setting"),
]
