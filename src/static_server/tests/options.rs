//! What a site answers by its options, and by the rules that it brings along.

use super::*;

/// A site with these files, and the sentences on its rules.
fn site_of(files: &[(&str, &str)], options: Options) -> (tempfile::TempDir, web::Data<Site>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), files);
    let (site, notes) = Site::open(Dir::trusted(folder.path()).unwrap(), options);
    (folder, web::Data::new(site), notes)
}

const BROWSER: (&str, &str) = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");

/// Status, location and text of what a browser gets.
async fn visit(site: &web::Data<Site>, path: &str) -> (u16, Option<String>, String) {
    let answer = ask_of(site, TestRequest::get().uri(path).insert_header(BROWSER)).await;
    (answer.status, answer.header("location").map(str::to_owned), answer.text().to_owned())
}

fn page(status: u16, text: &str) -> (u16, Option<String>, String) {
    (status, None, text.to_owned())
}

fn moved(status: u16, to: &str) -> (u16, Option<String>, String) {
    (status, Some(to.to_owned()), String::new())
}

const PAGES: [(&str, &str); 6] = [
    ("index.html", "home"),
    ("about.html", "about"),
    ("blog/index.html", "blog"),
    ("404.html", "nothing here"),
    ("de/404.html", "nichts hier"),
    ("app.js", "script"),
];

#[actix_rt::test]
async fn a_single_page_app_is_one_by_option_whatever_pages_it_has() {
    let (_folder, app, _) = site_of(&PAGES, Options { single_page: Some(true), ..Options::default() });
    assert_eq!(visit(&app, "/users/1").await, page(200, "home"));
    assert_eq!(visit(&app, "/missing.js").await, page(404, "nothing here"));
    assert_eq!(ask_of(&app, TestRequest::get().uri("/users/1")).await.status, 404, "no navigation");
    let (_folder, none, _) = site_of(&PAGES[..1], Options { single_page: Some(false), ..Options::default() });
    assert_eq!(visit(&none, "/users/1").await.0, 404);
}

#[actix_rt::test]
async fn the_nearest_page_says_that_nothing_is_there() {
    let (_folder, site, _) = site_of(&PAGES, Options::default());
    assert_eq!(visit(&site, "/none/at/all").await, page(404, "nothing here"));
    assert_eq!(visit(&site, "/de/nichts/hier").await, page(404, "nichts hier"));
    assert_eq!(visit(&site, "/de/").await, page(404, "nichts hier"));
}

#[actix_rt::test]
async fn addresses_of_pages_have_a_slash_at_their_end_or_none_as_the_site_wants() {
    let with = |trailing_slash| site_of(&PAGES, Options { trailing_slash, ..Options::default() });
    let (_folder, always, _) = with(Some(true));
    assert_eq!(visit(&always, "/about?x=1").await, moved(308, "/about/?x=1"));
    for (path, text) in
        [("/about/", "about"), ("/blog/", "blog"), ("/", "home"), ("/app.js", "script"), ("/about.html", "about")]
    {
        assert_eq!(visit(&always, path).await, page(200, text), "{path}");
    }
    assert_eq!(visit(&always, "/blog").await, moved(308, "/blog/"));
    let (_folder, never, _) = with(Some(false));
    assert_eq!(visit(&never, "/blog/?x=1").await, moved(308, "/blog?x=1"));
    assert_eq!(visit(&never, "/about/").await, moved(308, "/about"));
    for (path, text) in [("/about", "about"), ("/blog", "blog"), ("/", "home"), ("/app.js", "script")] {
        assert_eq!(visit(&never, path).await, page(200, text), "{path}");
    }
    let (_folder, plain, _) = site_of(&PAGES, Options { clean_urls: Some(false), ..Options::default() });
    assert_eq!(visit(&plain, "/about").await, page(404, "nothing here"));
    assert_eq!(visit(&plain, "/about.html").await, page(200, "about"));
}

#[actix_rt::test]
async fn redirects_and_fields_of_the_site_hold_and_their_files_are_not_served() {
    let redirects = "/old/* /new/:splat 301\n/about /elsewhere 302\n/app.js /other 302!\n/de/* /de/404.html 404\n\
                     nonsense\n/* /index.html 200\n";
    let fields = "/*\n  X-Frame-Options: DENY\n/app/*\n  Cache-Control: public, max-age=60\n  nonsense\n";
    let files = [&PAGES[..], &[("_redirects", redirects), ("_headers", fields)]].concat();
    let (_folder, site, notes) = site_of(&files, Options::default());
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].starts_with("_redirects, line 5: ") && notes[1].starts_with("_headers, line 5: "), "{notes:?}");
    assert_eq!(visit(&site, "/old/a?b=c").await, moved(301, "/new/a?b=c"));
    assert_eq!(visit(&site, "/about").await, page(200, "about"));
    assert_eq!(visit(&site, "/app.js").await, moved(302, "/other"));
    assert_eq!(visit(&site, "/de/x").await, page(404, "nichts hier"));
    assert_eq!(visit(&site, "/app/users").await, page(200, "home"));
    for hidden in ["/_redirects", "/_headers", "/./_headers", "//_redirects", "/%5fheaders"] {
        assert_eq!(visit(&site, hidden).await, page(200, "home"), "{hidden}");
    }
    let answer = ask_of(&site, TestRequest::get().uri("/app/users")).await;
    assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
    let tag = answer.header("etag").unwrap().to_owned();
    let known = TestRequest::get().uri("/app/users").insert_header(("If-None-Match", tag));
    let known = ask_of(&site, known).await;
    assert_eq!((known.status, known.header("x-frame-options")), (304, Some("DENY")));
    // A rule can't send a visitor to another host by what the visitor's address says.
    assert_eq!(visit(&site, "/old//evil.example/x").await, moved(301, "/new/evil.example/x"));
}

#[actix_rt::test]
async fn a_rule_answers_with_the_file_at_the_address_that_it_names() {
    let files = [
        ("about.html", "page"),
        ("about/index.html", "folder"),
        ("only/index.html", "index"),
        ("_redirects", "/a /about 200\n/b /about/ 200\n/c /only 200\n"),
    ];
    let (_folder, site, _) = site_of(&files, Options::default());
    for (path, text) in [("/a", "page"), ("/about", "page"), ("/b", "folder"), ("/about/", "folder"), ("/c", "index")] {
        assert_eq!(visit(&site, path).await, page(200, text), "{path}");
    }
    let (_folder, plain, _) = site_of(&files, Options { clean_urls: Some(false), ..Options::default() });
    assert_eq!(visit(&plain, "/a").await, page(200, "folder"));
}

#[actix_rt::test]
async fn a_client_that_refuses_pages_gets_no_single_page_app() {
    let (_folder, app, _) = site_of(&PAGES[..1], Options::default());
    let status = async |accept: &'static str| {
        ask_of(&app, TestRequest::get().uri("/users/1").insert_header(("Accept", accept))).await.status
    };
    assert_eq!(status("text/html;q=0, application/json").await, 404);
    assert_eq!(status("text/html;q=0.1, application/json").await, 200);
}

#[actix_rt::test]
async fn a_long_path_is_compared_with_many_rules_at_once_and_a_longer_one_is_refused() {
    let rules: String = (0..2_000).map(|number| format!("/a/:x/{number} /to 301\n")).collect();
    let (_folder, site, _) = site_of(&[("index.html", "home"), ("_redirects", &rules)], Options::default());
    assert_eq!(visit(&site, &format!("/a/{}/1999", "%41".repeat(2_700))).await, moved(301, "/to"));
    let (status, _, text) = visit(&site, &format!("/a/{}", "%41".repeat(21_000))).await;
    assert_eq!(status, 414);
    assert!(text.contains("longer than 8192 bytes"), "{text}");
}
