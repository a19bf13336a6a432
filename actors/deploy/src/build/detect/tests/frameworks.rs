use super::*;

/// The plan of an app of a framework, by its scripts, its packages and its other files.
fn of(scripts: serde_json::Value, packages: &[&str], files: &[(&str, &str)]) -> Result<Plan, DetectError> {
    let packages: std::collections::BTreeMap<&str, &str> = packages.iter().map(|name| (*name, "1")).collect();
    let package = serde_json::json!({"name": "shop", "scripts": scripts, "devDependencies": packages}).to_string();
    plan(&[&[("package.json", package.as_str())], files].concat())
}

fn built(packages: &[&str], files: &[(&str, &str)]) -> Plan {
    of(serde_json::json!({"build": "build-it", "start": "npm run dev", "dev": "unknown dev"}), packages, files).unwrap()
}

#[test]
fn sites_are_served_from_where_their_framework_puts_them() {
    for (packages, files, folder, options) in [
        (&["vite"][..], &[][..], "dist", single_page()),
        (&["vite"], &[("vite.config.ts", "export default { build: { outDir: 'site' } }")], "site", single_page()),
        (&["vite"], &[("vite.config.ts", "// outDir: 'site'\nexport default {}")], "dist", single_page()),
        (&["vite"], &[("public/404.html", "")], "dist", StaticOptions::default()),
        (&["react-scripts"], &[], "build", single_page()),
        (&["@vue/cli-service"], &[], "dist", single_page()),
        (&["astro"], &[("astro.config.mjs", "export default defineConfig({});")], "dist", StaticOptions::default()),
        (&["astro"], &[("astro.config.mjs", "export default { outDir: './www' }")], "www", StaticOptions::default()),
        (&["gatsby"], &[], "public", StaticOptions::default()),
        (&["@docusaurus/core"], &[], "build", StaticOptions::default()),
        (&["@11ty/eleventy"], &[], "_site", StaticOptions::default()),
        (
            &["@11ty/eleventy"],
            &[(".eleventy.js", "return { dir: { output: 'www' } }")],
            "www",
            StaticOptions::default(),
        ),
        (&["hexo"], &[], "public", StaticOptions::default()),
        (&["parcel"], &[], "dist", StaticOptions::default()),
        (&["next"], &[("next.config.ts", "const c = { output: \"export\" }")], "out", StaticOptions::default()),
        (
            &["@sveltejs/kit", "@sveltejs/adapter-static", "vite"],
            &[("svelte.config.js", "import adapter from '@sveltejs/adapter-static';")],
            "build",
            StaticOptions::default(),
        ),
        (
            &["@sveltejs/kit", "@sveltejs/adapter-static"],
            &[("svelte.config.js", "import a from '@sveltejs/adapter-static'; adapter: a({ fallback: 'index.html' })")],
            "build",
            single_page(),
        ),
        (
            &["@react-router/dev"],
            &[("react-router.config.ts", "export default { ssr: false }")],
            "build/client",
            single_page(),
        ),
    ] {
        let found = built(packages, files);
        assert_eq!(site(&found), (folder.to_owned(), options), "{packages:?} {files:?}");
        assert_eq!(found.publish, Some(folder.into()));
        // Nothing of the release is pruned when it holds the site alone.
        assert!(!commands(&found).iter().any(|command| command.contains("prune")), "{packages:?}");
    }
}

#[test]
fn documents_are_where_their_build_script_says() {
    let scripts = serde_json::json!({"build": "vitepress build docs", "start": "vitepress dev docs"});
    assert_eq!(site(&of(scripts, &["vitepress"], &[]).unwrap()).0, "docs/.vitepress/dist");
    let scripts = serde_json::json!({"build": "vitepress build"});
    assert_eq!(site(&of(scripts, &["vitepress"], &[]).unwrap()).0, ".vitepress/dist");
}

#[test]
fn frameworks_with_a_server_run_it() {
    for (packages, files, runs) in [
        (&["next", "react"][..], &[][..], "next start --port $PORT"),
        (&["nuxt"], &[], "node .output/server/index.mjs"),
        (
            &["@sveltejs/kit", "@sveltejs/adapter-node"],
            &[("svelte.config.js", "import adapter from '@sveltejs/adapter-node';")],
            "node build",
        ),
        (
            &["astro", "@astrojs/node"],
            &[("astro.config.mjs", "import node from '@astrojs/node'; adapter: node({ mode: 'standalone' })")],
            "HOST=127.0.0.1 exec node dist/server/entry.mjs",
        ),
        (&["@remix-run/dev", "@remix-run/serve"], &[], "remix-serve build/server/index.js"),
        (&["@react-router/dev", "@react-router/serve"], &[], "react-router-serve build/server/index.js"),
        (&["@nestjs/core"], &[("src/main.ts", "")], "node dist/main"),
    ] {
        assert_eq!(web(&built(packages, files)), runs, "{packages:?}");
    }
    let scripts = serde_json::json!({"build": "next build", "start": "next start -p 3000"});
    assert_eq!(web(&of(scripts, &["next"], &[]).unwrap()), "next start --port $PORT");
    let scripts = serde_json::json!({"build": "nuxt generate"});
    assert_eq!(site(&of(scripts, &["nuxt"], &[]).unwrap()).0, ".output/public");
}

#[test]
fn nest_is_compiled_at_the_build_and_not_at_each_start() {
    let scripts = serde_json::json!({"build": "nest build", "start": "nest start", "start:prod": "node dist/main"});
    let found = of(scripts, &["@nestjs/core", "@nestjs/cli"], &[("package-lock.json", "{}")]).unwrap();
    assert_eq!(web(&found), "node dist/main");
    assert!(commands(&found).iter().any(|command| command.contains("prune")), "{:?}", commands(&found));
}

#[test]
fn adapters_for_other_platforms_are_refused_with_the_lines_to_add() {
    let scripts = serde_json::json!({"build": "vite build", "dev": "vite dev"});
    let files = [("svelte.config.js", "import adapter from '@sveltejs/adapter-auto';")];
    let error =
        of(scripts.clone(), &["@sveltejs/kit", "@sveltejs/adapter-auto", "vite"], &files).unwrap_err().to_string();
    assert!(error.contains("npm install --save-dev @sveltejs/adapter-node"), "{error}");
    assert!(error.contains("import adapter from '@sveltejs/adapter-node'"), "{error}");
    let files = [("astro.config.mjs", "export default { output: 'server', adapter: vercel() }")];
    let error = of(scripts.clone(), &["astro", "@astrojs/vercel"], &files).unwrap_err().to_string();
    assert!(error.contains("npx astro add node"), "{error}");
    let error = of(scripts, &["@react-router/dev"], &[]).unwrap_err().to_string();
    assert!(error.contains("npm install @react-router/serve"), "{error}");
}

#[test]
fn angular_says_in_its_workspace_where_it_builds() {
    let scripts = serde_json::json!({"build": "ng build", "start": "ng serve"});
    let angular = |options: &str, builder: &str| {
        let text = format!(
            r#"{{"projects":{{"lib":{{"projectType":"library"}},"shop":{{"projectType":"application",
                "architect":{{"build":{{"builder":"@angular-devkit/build-angular:{builder}","options":{options}}}}}}}}}}}"#
        );
        of(scripts.clone(), &["@angular/core"], &[("angular.json", &text)]).unwrap()
    };
    assert_eq!(site(&angular("{}", "application")), ("dist/shop/browser".to_owned(), single_page()));
    assert_eq!(site(&angular(r#"{"outputPath":"out"}"#, "application")).0, "out/browser");
    assert_eq!(site(&angular(r#"{"outputPath":{"base":"out","browser":""}}"#, "application")).0, "out");
    assert_eq!(site(&angular(r#"{"outputPath":"dist/shop"}"#, "browser")).0, "dist/shop");
    let server = angular(
        r#"{"server":"src/main.server.ts","outputMode":"server","ssr":{"entry":"src/server.ts"}}"#,
        "application",
    );
    assert_eq!(web(&server), "node dist/shop/server/server.mjs");
}

#[test]
fn assets_of_another_language_are_built_beside_it() {
    let scripts = serde_json::json!({"build": "vite build", "start": "vite"});
    let files = [("requirements.txt", "flask\ngunicorn\n"), ("app.py", "import flask\napp = flask.Flask(__name__)")];
    let found = of(scripts, &["vite"], &files).unwrap();
    assert_eq!(web(&found), "python3 -m gunicorn app:app --bind 127.0.0.1:$PORT");
    assert_eq!(found.language, Language::Python);
    let built = commands(&found);
    assert!(built.contains(&"npm run build".to_owned()), "{built:?}");
    assert!(built.iter().any(|command| command.starts_with("python3 -m pip install")), "{built:?}");
}
