//! Static sites as visitors see them: deployed, and asked for through the router.

use std::io::Read;

use flate2::read::GzDecoder;
use reqwest::{Method, Response};
use serde_json::json;

use crate::harness::{App, Node, answered, http};

/// What a browser says that goes to a page.
const BROWSER: (&str, &str) = ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");

/// A bundler that needs nothing from elsewhere: it copies the page.
const BUNDLER: &str = "#!/usr/bin/env node\nconst fs = require('fs');\nfs.mkdirSync('dist');\n\
                       fs.writeFileSync('dist/index.html', fs.readFileSync('index.html'));\n";

async fn ask(app: &App<'_>, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = http().build().unwrap().request(method, format!("http://127.0.0.1:{}{path}", app.port()));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.header("Host", format!("{}.localhost", app.name)).send().await.unwrap()
}

/// Status and text of a page.
async fn page(app: &App<'_>, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let answer = ask(app, Method::GET, path, headers).await;
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_site_is_served_by_its_addresses_and_nothing_that_is_known_is_sent_again() {
    let node = Node::start().await;
    let script = "console.log('a line of a script');\n".repeat(100);
    let files = [
        ("index.html", "home"),
        ("about.html", "about"),
        ("blog/index.html", "blog"),
        ("404.html", "nope"),
        ("script.js", script.as_str()),
        (".well-known/security.txt", "Contact: mailto:a@example.com"),
        (".hidden/page.html", "hidden"),
    ];
    let site = App::new(&node, "clean", &files);
    site.deploy().await;
    for (path, status, text) in [
        ("/", 200, "home"),
        ("/about", 200, "about"),
        ("/about.html", 200, "about"),
        ("/blog/", 200, "blog"),
        ("/.well-known/security.txt", 200, "Contact: mailto:a@example.com"),
        ("/nope", 404, "nope"),
        ("/.hidden/page.html", 404, "nope"),
        ("/..%2f..%2fetc/hostname", 404, "nope"),
    ] {
        assert_eq!(page(&site, path, &[BROWSER]).await, (status, text.to_owned()), "{path}");
    }
    let folder = ask(&site, Method::GET, "/blog?x=1", &[BROWSER]).await;
    assert_eq!((folder.status().as_u16(), header(&folder, "location")), (308, Some("/blog/?x=1")));

    let whole = ask(&site, Method::GET, "/script.js", &[]).await;
    let tag = header(&whole, "etag").unwrap().to_owned();
    assert_eq!(header(&whole, "content-encoding"), None);
    assert_eq!(header(&whole, "cache-control"), Some("public, max-age=300"));
    assert_eq!(whole.text().await.unwrap(), script);
    let head = ask(&site, Method::HEAD, "/script.js", &[]).await;
    assert_eq!((head.status().as_u16(), header(&head, "etag")), (200, Some(tag.as_str())));
    assert_eq!(header(&head, "content-length"), Some(script.len().to_string().as_str()));
    assert!(head.bytes().await.unwrap().is_empty());

    let compressed = ask(&site, Method::GET, "/script.js", &[("Accept-Encoding", "gzip, deflate")]).await;
    let weak = header(&compressed, "etag").unwrap().to_owned();
    assert_eq!((header(&compressed, "content-encoding"), weak.as_str()), (Some("gzip"), format!("W/{tag}").as_str()));
    assert_eq!(header(&compressed, "vary"), Some("Accept-Encoding"));
    let mut text = String::new();
    GzDecoder::new(&compressed.bytes().await.unwrap()[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, script);

    // Another release of the same content is no other content, on whatever inodes it is.
    site.write("about.html", "about us");
    site.deploy().await;
    for known in [&tag, &weak] {
        let again = ask(&site, Method::GET, "/script.js", &[("If-None-Match", known)]).await;
        assert_eq!((again.status().as_u16(), header(&again, "etag")), (304, Some(tag.as_str())));
        assert!(again.bytes().await.unwrap().is_empty());
    }
    site.write("script.js", &script.replace("line", "LINE"));
    site.deploy().await;
    let (status, text) = page(&site, "/script.js", &[("If-None-Match", &tag)]).await;
    assert!(status == 200 && text.contains("LINE"), "{status} {text}");
    node.finish().await;
}

#[tokio::test]
async fn a_site_of_one_page_and_one_that_is_built_run_in_the_browser() {
    let node = Node::start().await;
    let one = App::new(&node, "good2", &[("index.html", "two")]);
    one.deploy().await;
    let package = json!({
        "private": true,
        "scripts": { "build": "vite build" },
        "devDependencies": { "vite": "file:./bundler" },
    });
    let bundler = json!({ "name": "vite", "version": "5.4.0", "bin": "vite.js" });
    // What only the build needs is there for it, though NODE_ENV is production.
    let built = App::new(
        &node,
        "nodeenv",
        &[
            ("index.html", "<!doctype html><div id=app></div>"),
            ("package.json", &package.to_string()),
            ("bundler/package.json", &bundler.to_string()),
            ("bundler/vite.js", BUNDLER),
        ],
    );
    built.deploy().await;
    for (site, text) in [(&one, "two"), (&built, "<!doctype html><div id=app></div>")] {
        for path in ["/", "/users/1"] {
            assert_eq!(page(site, path, &[BROWSER]).await, (200, text.to_owned()), "{path} of {}", site.name);
        }
        for (path, accept) in [("/missing.js", BROWSER), ("/package.json", BROWSER), ("/users/1", ("Accept", "*/*"))] {
            assert_eq!(page(site, path, &[accept]).await.0, 404, "{path} of {}", site.name);
        }
    }
    node.finish().await;
}

#[tokio::test]
async fn a_sites_own_rules_hold_and_what_of_them_does_not_is_told_in_its_log() {
    let node = Node::start().await;
    let redirects = "/old/* /new/:splat 301\nnonsense\n/app/* /index.html 200\n";
    let headers = "/*\n  X-Frame-Options: DENY\n  Content-Length: 3\n";
    let files = [
        ("public/index.html", "home"),
        ("public/404.html", "nope"),
        ("public/_redirects", redirects),
        ("public/_headers", headers),
        ("notes/secret.md", "not of the site"),
    ];
    let site = App::new(&node, "ruled", &files);
    let deployed = site.deploy().await;
    let moved = ask(&site, Method::GET, "/old/a/b?c=d", &[BROWSER]).await;
    assert_eq!((moved.status().as_u16(), header(&moved, "location")), (301, Some("/new/a/b?c=d")));
    let app = ask(&site, Method::GET, "/app/users/1", &[]).await;
    assert_eq!((app.status().as_u16(), header(&app, "x-frame-options")), (200, Some("DENY")));
    assert_eq!(app.text().await.unwrap(), "home");
    for path in ["/_redirects", "/_headers", "/notes/secret.md", "/nothing"] {
        assert_eq!(page(&site, path, &[BROWSER]).await, (404, "nope".to_owned()), "{path}");
    }
    answered("the app's log tells which lines are wrong", || async {
        let log = node.operator().look(&format!("/projects/{}/logs", deployed["project_id"].as_str().unwrap())).await?;
        let text = log.to_string();
        Ok((text.contains("_redirects, line 2: ") && text.contains("_headers, line 3: ")).then_some(()))
    })
    .await;
    node.finish().await;
}

#[tokio::test]
async fn the_folder_that_a_build_makes_is_looked_for_when_it_has_ended() {
    let node = Node::start().await;
    let package = |build: &str| {
        json!({ "private": true, "scripts": { "build": build }, "devDependencies": { "vite": "file:./bundler" } })
            .to_string()
    };
    let bundler = json!({ "name": "vite", "version": "5.4.0", "bin": "vite.js" }).to_string();
    let files = [("index.html", "page"), ("bundler/package.json", bundler.as_str()), ("bundler/vite.js", BUNDLER)];
    let site = App::new(&node, "lost", &files);
    for (build, says) in [
        ("mkdir -p made && cp index.html made/", "`made` has an index.html"),
        ("ln -s /etc dist", "leads out of the app"),
        ("mkdir dist", "left nothing in `dist`"),
    ] {
        site.write("package.json", &package(build));
        let ran = node.cli(&["deploy", site.folder.to_str().unwrap(), "--app", "lost"]).await;
        assert!(!ran.success() && ran.err.contains(says) && ran.err.contains("callboard.toml"), "{build}: {ran:?}");
    }
    node.finish().await;
}
