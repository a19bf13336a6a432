use super::*;

const QUIET: &str = "--no-audit --no-fund --no-update-notifier";

fn quiet(command: &str) -> String {
    format!("{command} {QUIET}")
}

#[test]
fn node_apps_install_build_and_start() {
    let package = r#"{"scripts":{"build":"tsc","start":"node dist/server.js"},"dependencies":{"a":"1"},"devDependencies":{"b":"1"}}"#;
    let found = plan(&[("package.json", package), ("package-lock.json", "{}")]).unwrap();
    let expected = [quiet("npm ci --include=dev"), "npm run build".to_owned(), quiet("npm prune --omit=dev")];
    assert_eq!(commands(&found), expected);
    assert_eq!(web(&found), "node dist/server.js");
    assert_eq!(found.publish, None);
    let package = r#"{"dependencies":{"a":"1"},"main":"app.js"}"#;
    let found = plan(&[("package.json", package), ("app.js", "")]).unwrap();
    assert_eq!(commands(&found), [quiet("npm install --omit=dev")]);
    assert_eq!(web(&found), "node app.js");
}

#[test]
fn node_apps_start_by_script_main_or_name() {
    let start = |package: &str| web(&plan(&[("package.json", package), ("server.js", ""), ("m.js", "")]).unwrap());
    assert_eq!(start("{}"), "node server.js");
    assert_eq!(start(r#"{"main":"m.js"}"#), "node m.js");
    assert_eq!(start(r#"{"main":"gone.js"}"#), "node server.js");
    assert_eq!(start(r#"{"main":"--eval=1"}"#), "node server.js");
    assert_eq!(start(r#"{"scripts":{"start":"next start"}}"#), "npm start");
    assert_eq!(start(r#"{"scripts":{"start":"node a.js && node b.js"}}"#), "npm start");
    assert_eq!(start(r#"{"scripts":{"start":"node a.js","prestart":"x"}}"#), "npm start");
    assert_eq!(start(r#"{"scripts":{"start":"node ./bin/www"}}"#), "node ./bin/www");
    let error = refusal(&[("package.json", r#"{"scripts":{"build":"x"}}"#)]);
    assert!(error.contains("add a `start` script") && error.contains("callboard.toml"), "{error}");
}

#[test]
fn the_lock_file_chooses_the_package_manager() {
    let package = r#"{"dependencies":{"a":"1"},"scripts":{"start":"node s.js","build":"x"}}"#;
    let of = |lock: &str, text: &str, tools: &Tools| {
        commands(&plan_by(&[("package.json", package), (lock, text)], tools).unwrap())
    };
    let none = usual();
    assert_eq!(
        of("pnpm-lock.yaml", "lockfileVersion: '9.0'\n", &none),
        [
            quiet("npm install --global --prefix .callboard/tools pnpm@9"),
            "pnpm install --frozen-lockfile".to_owned(),
            "pnpm run build".to_owned(),
            "rm -rf .callboard/tools".to_owned(),
        ]
    );
    assert_eq!(
        of("yarn.lock", "# yarn lockfile v1\n", &none)[..2],
        [
            quiet("npm install --global --prefix .callboard/tools yarn@1"),
            "yarn install --frozen-lockfile --non-interactive".to_owned()
        ]
    );
    assert_eq!(
        of("yarn.lock", "__metadata:\n  version: 8\n", &none)[..2],
        [
            quiet("npm install --global --prefix .callboard/tools @yarnpkg/cli-dist@4"),
            "yarn install --immutable".to_owned()
        ]
    );
    assert_eq!(of("bun.lock", "{}", &none)[1], "bun install --frozen-lockfile");
    // What the node has is used when it reads the lock file.
    let has = with(&[(Tool::Pnpm, "10.1.0"), (Tool::Yarn, "1.22.22"), (Tool::Bun, "1.2.0")]);
    assert_eq!(of("pnpm-lock.yaml", "lockfileVersion: '9.0'\n", &has)[0], "pnpm install --frozen-lockfile");
    assert_eq!(of("pnpm-lock.yaml", "lockfileVersion: 5.4\n", &has).len(), 4);
    assert_eq!(of("yarn.lock", "# yarn lockfile v1\n", &has)[0], "yarn install --frozen-lockfile --non-interactive");
    assert_eq!(of("yarn.lock", "__metadata:\n  version: 8\n", &has).len(), 4);
    assert_eq!(of("bun.lock", "{}", &has)[0], "bun install --frozen-lockfile");
}

#[test]
fn yarn_of_today_links_packages_as_node_expects() {
    let package = r#"{"dependencies":{"a":"1"},"packageManager":"yarn@4.5.0","scripts":{"start":"node s.js"}}"#;
    let found = plan(&[("package.json", package), ("yarn.lock", "__metadata:\n  version: 8\n")]).unwrap();
    assert_eq!(found.environment.variables["YARN_NODE_LINKER"], "node-modules");
    let steps = commands(&found);
    assert!(steps[0].contains("corepack enable --install-directory .callboard/tools/bin yarn"), "{steps:?}");
    assert!(
        steps[0].contains(&quiet("npm install --global --prefix .callboard/tools @yarnpkg/cli-dist@4.5.0")),
        "{steps:?}"
    );
    assert_eq!(steps[1..], ["yarn install --immutable", "rm -rf .callboard/tools"]);
    assert_eq!(found.environment.path[0], Path::new(".callboard/tools/bin"));
}

#[test]
fn the_named_package_manager_is_brought_by_corepack_or_npm() {
    let package =
        r#"{"dependencies":{"a":"1"},"packageManager":"pnpm@9.15.0+sha512.abc","scripts":{"start":"node s.js"}}"#;
    let files =
        [("package.json", package), ("pnpm-lock.yaml", "lockfileVersion: '9.0'\n"), ("package-lock.json", "{}")];
    let found = plan(&files).unwrap();
    assert!(commands(&found)[0].contains("corepack enable"), "{:?}", commands(&found));
    assert!(says(&found, "package-lock.json is not used"));
    let found = plan_by(&files, &Tools::given(&[(Tool::Node, "25.0.0"), (Tool::Npm, "11.0.0")])).unwrap();
    assert_eq!(commands(&found)[0], quiet("npm install --global --prefix .callboard/tools pnpm@9.15.0"));
    let found = plan_by(&files, &with(&[(Tool::Pnpm, "9.1.0")])).unwrap();
    assert_eq!(commands(&found)[0], "pnpm install --frozen-lockfile --prod");
    let error = refusal(&[("package.json", r#"{"packageManager":"cargo@1","dependencies":{"a":"1"}}"#)]);
    assert!(error.contains("`packageManager` names `cargo`"), "{error}");
    let error = refusal(&[("package.json", r#"{"packageManager":"pnpm@9;x","dependencies":{"a":"1"}}"#)]);
    assert!(error.contains("`9;x`, which is no version"), "{error}");
}

#[test]
fn a_start_script_that_calls_its_package_manager_keeps_it() {
    let package =
        r#"{"dependencies":{"a":"1"},"packageManager":"pnpm@9.15.0","scripts":{"start":"pnpm run x","x":"node s"}}"#;
    let found = plan(&[("package.json", package)]).unwrap();
    assert_eq!(commands(&found)[0], quiet("npm install --global --prefix .callboard/tools pnpm@9.15.0"));
    assert!(!commands(&found).iter().any(|command| command.starts_with("rm ")));
}

#[test]
fn two_lock_files_without_a_named_package_manager_are_refused() {
    let error = refusal(&[
        ("package.json", r#"{"dependencies":{"a":"1"},"scripts":{"start":"node s.js"}}"#),
        ("package-lock.json", "{}"),
        ("yarn.lock", ""),
    ]);
    assert!(error.contains("package-lock.json and yarn.lock are both there"), "{error}");
    assert!(error.contains("packageManager"), "{error}");
}

#[test]
fn what_runs_keeps_the_tools_that_it_needs() {
    let with_start = |start: &str| {
        let package = format!(
            r#"{{"scripts":{{"build":"x","start":"{start}","serve:x":"tsx a.ts"}},"dependencies":{{"a":"1"}},
                "devDependencies":{{"tsx":"4","ts-node":"10","nx":"20","@nestjs/cli":"10"}}}}"#
        );
        plan(&[("package.json", &package), ("package-lock.json", "{}")]).unwrap()
    };
    for start in [
        "tsx src/index.ts",
        "node --import tsx a.ts",
        "node -r ts-node/register a.ts",
        "nx run app:x",
        "npm run serve:x",
        "NODE_ENV=x tsx a",
    ] {
        let found = with_start(start);
        assert!(says(&found, "stay in the release"), "{start}: {:?}", found.reasons);
        assert!(!commands(&found).iter().any(|command| command.contains("prune")), "{start}");
    }
    assert!(commands(&with_start("node a.js")).iter().any(|command| command.contains("prune")));
    // Without a build they are installed all the same.
    let package = r#"{"scripts":{"start":"ts-node a.ts"},"devDependencies":{"ts-node":"10"}}"#;
    assert_eq!(commands(&plan(&[("package.json", package)]).unwrap()), [quiet("npm install --include=dev")]);
}

#[test]
fn tools_that_run_at_the_installation_are_installed_for_it() {
    let package = r#"{"scripts":{"start":"node a.js","prepare":"husky"},"devDependencies":{"husky":"9"}}"#;
    let found = plan(&[("package.json", package), ("package-lock.json", "{}")]).unwrap();
    assert_eq!(commands(&found), [quiet("npm ci --include=dev"), quiet("npm prune --omit=dev")]);
}

#[test]
fn servers_for_developers_never_go_public() {
    for start in [
        "react-scripts start",
        "astro dev",
        "astro",
        "ng serve",
        "vite",
        "vite --port 3000",
        "vite preview",
        "docusaurus start",
        "eleventy --serve",
        "npx @11ty/eleventy --serve --quiet",
        "next dev -p 3000",
        "nuxt dev",
        "gatsby develop",
        "parcel src/index.html",
        "webpack serve --open",
        "webpack-dev-server --hot",
        "vue-cli-service serve",
        "remix vite:dev",
        "react-router dev",
        "hexo server",
        "cross-env BROWSER=none react-scripts start",
        "npm run dev",
        "run-p watch dev",
        "concurrently 'node api.js' 'vite'",
        "unknown-tool --serve",
        "unknown-tool dev",
    ] {
        let package = serde_json::json!({
            "scripts": { "start": start, "build": "make-site", "dev": "vite --host", "watch": "tsc --watch" },
        });
        let found = plan(&[("package.json", &package.to_string())]).unwrap();
        assert_eq!(site(&found).0, "dist", "{start}");
        assert!(says(&found, "never goes public"), "{start}: {:?}", found.reasons);
    }
    let error = refusal(&[("package.json", r#"{"scripts":{"start":"vite"}}"#)]);
    assert!(error.contains("no `build` script"), "{error}");
}

#[test]
fn programs_that_are_no_servers_for_developers_run() {
    for start in [
        "node server.js dev",
        "node serve",
        "./bin/run serve",
        "vite build",
        "npm run prod",
        "next start",
        "pm2-runtime serve",
        "tsx src/serve.ts",
        "nest start",
    ] {
        let package = serde_json::json!({"scripts": {"start": start, "prod": "node dist/x.js"}});
        let found = plan(&[("package.json", &package.to_string())]).unwrap();
        assert!(matches!(found.processes["web"], Command::Exec(_)), "{start}: {:?}", found.processes);
    }
}

#[test]
fn servers_of_files_are_ours() {
    let start = |start: &str, build: &str| {
        let package =
            serde_json::json!({"scripts": {"start": start, "build": build}, "devDependencies": {"vite": "5"}});
        site(&plan(&[("package.json", &package.to_string())]).unwrap())
    };
    assert_eq!(start("serve -s build", "x"), ("build".to_owned(), single_page()));
    assert_eq!(start("npx http-server public -p 8080", "x"), ("public".to_owned(), StaticOptions::default()));
    assert_eq!(start("serve -l $PORT", "vite build"), ("dist".to_owned(), single_page()));
}

#[test]
fn a_watcher_is_replaced_by_its_program() {
    let package = r#"{"scripts":{"start":"nodemon --ext js server.js"},"devDependencies":{"nodemon":"3"}}"#;
    let found = plan(&[("package.json", package), ("server.js", "")]).unwrap();
    assert_eq!(web(&found), "node server.js");
    let package = r#"{"scripts":{"start":"node --watch server.js"}}"#;
    assert_eq!(web(&plan(&[("package.json", package)]).unwrap()), "node server.js");
}

#[test]
fn a_package_of_a_workspace_is_built_with_the_lock_file_of_its_root() {
    let files = [
        ("package.json", r#"{"private":true,"workspaces":["apps/*","packages/*"]}"#),
        ("package-lock.json", "{}"),
        ("apps/web/package.json", r#"{"name":"web","scripts":{"build":"vite build"},"devDependencies":{"vite":"5"}}"#),
        ("apps/api/package.json", r#"{"name":"api","scripts":{"build":"tsc","start":"node dist/main.js"}}"#),
        ("packages/ui/package.json", r#"{"name":"ui"}"#),
    ];
    let folder = app(&files);
    let of = |root: &str| {
        let config = BuildConfig { root: Some(root.into()), ..BuildConfig::default() };
        detect(folder.path(), &config, &usual()).unwrap()
    };
    let api = of("apps/api");
    assert_eq!(api.root, Path::new(""));
    let expected =
        [quiet("npm ci --include=dev"), "npm run build (in apps/api)".to_owned(), quiet("npm prune --omit=dev")];
    assert_eq!(commands(&api), expected);
    assert_eq!(web(&api), "node dist/main.js (in apps/api)");
    assert_eq!(api.environment.path, [Path::new("apps/api/node_modules/.bin"), Path::new("node_modules/.bin")]);
    let web = of("apps/web");
    assert_eq!(
        (site(&web), web.publish.unwrap()),
        (("apps/web/dist".to_owned(), single_page()), "apps/web/dist".into())
    );
    assert!(web.publish_alternatives.contains(&PathBuf::from("apps/web/build")));
    // The root itself says which packages there are.
    let error = detect(folder.path(), &BuildConfig::default(), &usual()).unwrap_err().to_string();
    assert!(error.contains("apps/api, apps/web, packages/ui"), "{error}");
    // A folder that is no member has its own dependencies.
    fs::create_dir(folder.path().join("tools")).unwrap();
    fs::write(folder.path().join("tools/package.json"), r#"{"scripts":{"start":"node x"}}"#).unwrap();
    assert_eq!(of("tools").root, Path::new("tools"));
}

#[test]
fn workspaces_of_pnpm_and_turbo_build_what_a_package_depends_on() {
    let member = ("apps/web/package.json", r#"{"scripts":{"build":"x","start":"node s.js"}}"#);
    let root = |yaml: &str, package: &str, turbo: &[(&str, &str)]| {
        let mut files = vec![
            member,
            ("package.json", package),
            ("pnpm-workspace.yaml", yaml),
            ("pnpm-lock.yaml", "lockfileVersion: '9.0'\n"),
        ];
        files.extend(turbo);
        let config = BuildConfig { root: Some("apps/web".into()), ..BuildConfig::default() };
        commands(&detect(app(&files).path(), &config, &with(&[(Tool::Pnpm, "9.0.0")])).unwrap())
    };
    for yaml in [
        "packages:\n  - 'apps/*'\n  - \"packages/**\"\n",
        "packages: [apps/*]\n",
        "# x\npackages:\n- apps/web # y\nonlyBuilt: []\n",
    ] {
        assert_eq!(root(yaml, "{}", &[])[1], "pnpm --filter {./apps/web}... run build", "{yaml}");
    }
    let turbo = root("packages: [apps/*]", r#"{"devDependencies":{"turbo":"2"}}"#, &[("turbo.json", "{}")]);
    assert_eq!(turbo[1], "node_modules/.bin/turbo run build --filter={./apps/web}...");
}

#[test]
fn what_a_build_keeps_depends_on_tools_and_locks() {
    let package = r#"{"scripts":{"build":"next build","start":"next start"},"dependencies":{"next":"15"}}"#;
    let key = |lock: &str, tools: &Tools| {
        plan_by(&[("package.json", package), ("package-lock.json", lock)], tools).unwrap().cache
    };
    let cache = key("{}", &usual());
    assert_eq!(cache.folders, [Path::new("node_modules/.cache"), Path::new(".next/cache")]);
    assert!(cache.key.contains("Node.js 20.20.2") && cache.key.contains("npm 10.9.0"), "{}", cache.key);
    assert_ne!(cache.key, key("{ }", &usual()).key);
    assert_ne!(cache.key, key("{}", &Tools::given(&[(Tool::Node, "22.0.0"), (Tool::Npm, "10.9.0")])).key);
    assert_eq!(cache, key("{}", &usual()));
}

#[test]
fn a_node_app_without_node_is_refused_before_its_build() {
    let none = Tools::given(&[]);
    let error = plan_by(&[("package.json", r#"{"scripts":{"start":"node x"}}"#)], &none).unwrap_err().to_string();
    assert_eq!(error, "`package.json`: Node.js is not installed on this node; `apt-get install nodejs npm`");
    let node = Tools::given(&[(Tool::Node, "20.0.0")]);
    let package = r#"{"scripts":{"start":"node x"},"dependencies":{"a":"1"}}"#;
    let files = [("package.json", package), ("package-lock.json", "{}")];
    let error = plan_by(&files, &node).unwrap_err().to_string();
    assert_eq!(error, "`package-lock.json`: npm is not installed on this node; `apt-get install npm`");
}

#[test]
fn a_workspace_of_any_number_of_patterns_is_judged_at_once() {
    let of = |patterns: &[String]| {
        let package = serde_json::json!({ "workspaces": patterns }).to_string();
        refusal(&[("package.json", &package), ("a/package.json", "{}"), ("b/c/package.json", "{}")])
    };
    let same = of(&vec!["*".to_owned(); 200_000]);
    assert!(same.ends_with("callboard.toml, of: a"), "{same}");
    let many = of(&(0..100_000).map(|number| format!("{number}*")).collect::<Vec<_>>());
    assert!(many.contains("has 100000 patterns") && many.contains("at most 100"), "{many}");
    let deep = of(&["*/".repeat(100_000), "**/c".to_owned()]);
    assert!(deep.ends_with("callboard.toml, of: b/c"), "{deep}");
}

#[test]
fn a_link_that_leads_up_makes_no_packages_of_a_workspace() {
    let folder = app(&[("package.json", r#"{"workspaces":["**/**/**"]}"#), ("p0/package.json", "{}")]);
    std::os::unix::fs::symlink("..", folder.path().join("p0/up")).unwrap();
    let error = detect(folder.path(), &BuildConfig::default(), &usual()).unwrap_err().to_string();
    assert!(error.ends_with("callboard.toml, of: p0"), "{error}");
}
