//! A site as its visitors find it.

mod options;

use std::{
    fs,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, symlink},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use actix_web::{
    http::{StatusCode, header::HeaderMap},
    test::{self, TestRequest},
};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use super::*;

/// A page of some length, which compresses well.
const SCRIPT: &str = "console.log('a line of a script');\n";

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// A folder with a site in `site`.
fn site() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("site");
    let files = [
        ("site/index.html", "<h1>home</h1>"),
        ("site/about.html", "about"),
        ("site/sub/index.html", "sub"),
        ("site/empty/file.txt", ""),
        ("site/a b.txt", "0123456789"),
        ("site/404.html", "nothing here"),
        ("site/script.js", &SCRIPT.repeat(100)),
        ("site/assets/index-DhX8sd92.css", "a{}"),
        ("site/.well-known/security.txt", "Contact: mailto:a@example.com"),
        ("site/.well-known/.env", "SECRET=1"),
        ("site/sub/.well-known/x", "x"),
        ("site/.env", "SECRET=1"),
        ("site/.git/config", "x"),
        ("outside.txt", "outside"),
    ];
    write(folder.path(), &files);
    symlink("../outside.txt", root.join("out.txt")).unwrap();
    symlink("a b.txt", root.join("in.txt")).unwrap();
    symlink(".env", root.join("env.txt")).unwrap();
    nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    folder
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

async fn ask_in(folder: &Path, request: TestRequest) -> Answer {
    let site = web::Data::new(Site::open(Dir::trusted(&folder.join("site")).unwrap(), Options::default()).0);
    ask_of(&site, request).await
}

async fn ask_of(site: &web::Data<Site>, request: TestRequest) -> Answer {
    let app = test::init_service(App::new().app_data(site.clone()).default_service(web::to(handle))).await;
    let response = test::call_service(&app, request.to_request()).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: test::read_body(response).await.to_vec() }
}

async fn ask(request: TestRequest) -> Answer {
    ask_in(site().path(), request).await
}

async fn get(path: &str) -> (u16, String) {
    let answer = ask(TestRequest::get().uri(path)).await;
    (answer.status, answer.text().to_owned())
}

fn script() -> TestRequest {
    TestRequest::get().uri("/script.js")
}

#[actix_rt::test]
async fn the_folder_itself_is_looked_for_in_the_release_only() {
    let folder = site();
    let release = folder.path().join("release");
    write(folder.path(), &[("release/build/public/index.html", "built"), ("release/file", "x")]);
    let links = [("build/public", "inside"), ("../site", "outside"), ("build", "up"), ("up/../../site", "through")];
    for (target, link) in links {
        symlink(target, release.join(link)).unwrap();
    }
    symlink(folder.path().join("site"), release.join("absolute")).unwrap();
    for found in ["build/public", "./build/public", "inside", "up/public"] {
        let site = web::Data::new(Site::open(beneath(&release, Path::new(found)).unwrap(), Options::default()).0);
        assert_eq!(ask_of(&site, TestRequest::get().uri("/")).await.text(), "built", "{found}");
    }
    assert!(beneath(&release, Path::new(".")).is_ok());
    let above = folder.path().join("site");
    for refused in ["outside", "absolute", "through", "../site", "file", "none", above.to_str().unwrap()] {
        assert!(beneath(&release, Path::new(refused)).is_err(), "{refused}");
    }
}

#[actix_rt::test]
async fn files_and_indexes_are_served() {
    assert_eq!(get("/").await, (200, "<h1>home</h1>".to_owned()));
    assert_eq!(get("/a%20b.txt").await, (200, "0123456789".to_owned()));
    assert_eq!(get("/in.txt").await, (200, "0123456789".to_owned()));
    assert_eq!(get("/sub/").await, (200, "sub".to_owned()));
    assert_eq!(get("/.well-known/security.txt").await.0, 200);
}

#[actix_rt::test]
async fn addresses_need_no_suffix_and_folders_end_with_a_slash() {
    assert_eq!(get("/about").await, (200, "about".to_owned()));
    let redirected = ask(TestRequest::get().uri("/sub?x=1")).await;
    assert_eq!((redirected.status, redirected.header("location")), (308, Some("/sub/?x=1")));
    // A folder without a page is nothing to see.
    for path in ["/nope", "/empty", "/empty/", "/about/"] {
        assert_eq!(get(path).await, (404, "nothing here".to_owned()), "{path}");
    }
}

#[actix_rt::test]
async fn nothing_hidden_or_outside_is_served() {
    for path in [
        "/.env",
        "/.git/config",
        "/.well-known/.env",
        "/sub/.well-known/x",
        "/.well-known/../.env",
        "/env.txt",
        "/out.txt",
        "/../outside.txt",
        "/%2e%2e/outside.txt",
        "/..%2foutside.txt",
        "/sub/..%5c..%5coutside.txt",
        "/a%00",
        "/none",
        "/in.txt/",
        "/pipe",
    ] {
        assert_eq!(get(path).await, (404, "nothing here".to_owned()), "{path}");
    }
}

#[actix_rt::test]
async fn a_redirect_stays_on_this_host() {
    let request = TestRequest::get().uri("//sub?x=1").to_http_request();
    assert_eq!(local_location(&request, true), "/sub/?x=1");
}

#[actix_rt::test]
async fn a_site_without_a_page_for_what_is_missing_runs_in_the_browser() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("site/index.html", "app")]);
    let of = async |path: &str, accept: &'static str| {
        let request = TestRequest::get().uri(path).insert_header(("Accept", accept));
        let answer = ask_in(folder.path(), request).await;
        (answer.status, answer.text().to_owned())
    };
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    assert_eq!(of("/", "*/*").await, (200, "app".to_owned()));
    assert_eq!(of("/users/1", browser).await, (200, "app".to_owned()));
    for (path, accept) in [("/missing.js", browser), ("/users/1", "*/*"), ("/api/users", "application/json")] {
        assert_eq!(of(path, accept).await.0, 404, "{path}");
    }
}

#[actix_rt::test]
async fn a_tag_is_of_the_content_alone() {
    let (one, other) = (site(), site());
    let tag = async |folder: &Path| ask_in(folder, script()).await.header("etag").unwrap().to_owned();
    let first = tag(one.path()).await;
    assert_eq!(first, tag(other.path()).await);
    assert!(first.starts_with('"'), "{first}");

    // A file that changes and keeps its size and its time has another tag, also for who remembers the first.
    let site = web::Data::new(Site::open(Dir::trusted(&one.path().join("site")).unwrap(), Options::default()).0);
    let path = one.path().join("site/script.js");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(ask_of(&site, script()).await.header("etag"), Some(first.as_str()));
    let changed = || {
        let metadata = fs::metadata(&path).unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let before = changed();
    // The clock of the file system may not have moved since.
    while changed() == before {
        fs::write(&path, SCRIPT.repeat(100).replace("line", "LINE")).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    }
    let changed = ask_of(&site, script()).await;
    assert_ne!(changed.header("etag"), Some(first.as_str()));
    assert!(changed.text().contains("LINE"));
}

#[actix_rt::test]
async fn what_has_not_changed_is_not_sent_again() {
    let folder = site();
    let whole = ask_in(folder.path(), script()).await;
    assert_eq!((whole.status, whole.header("last-modified")), (200, None), "all files of a release have one time");
    let tag = whole.header("etag").unwrap();
    for (name, value, status) in [
        ("If-None-Match", tag.to_owned(), 304),
        ("If-None-Match", format!("\"other\", W/{tag}"), 304),
        ("If-None-Match", "*".to_owned(), 304),
        ("If-None-Match", "\"other\"".to_owned(), 200),
        ("If-Match", tag.to_owned(), 200),
        ("If-Match", format!("W/{tag}"), 412),
        ("If-Match", "\"other\"".to_owned(), 412),
        ("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT".to_owned(), 200),
    ] {
        let answer = ask_in(folder.path(), script().insert_header((name, value.clone()))).await;
        assert_eq!(answer.status, status, "{name}: {value}");
        assert_eq!(answer.header("etag"), Some(tag), "{name}: {value}");
        assert_eq!(answer.body.is_empty(), status != 200, "{name}: {value}");
    }
    // The page for what is missing is no answer to a condition.
    let missing = TestRequest::get().uri("/none").insert_header(("If-None-Match", "*"));
    assert_eq!(ask_in(folder.path(), missing).await.status, 404);
}

#[actix_rt::test]
async fn ranges_are_answered_and_writes_are_not() {
    let folder = site();
    let tag = ask_in(folder.path(), script()).await.header("etag").unwrap().to_owned();
    let of = async |range: &str, condition: Option<String>| {
        let mut request = script().insert_header(("Range", range)).insert_header(("Accept-Encoding", "gzip"));
        if let Some(condition) = condition {
            request = request.insert_header(("If-Range", condition));
        }
        ask_in(folder.path(), request).await
    };
    let part = of("bytes=8-10", None).await;
    assert_eq!((part.status, part.text(), part.header("content-range")), (206, "log", Some("bytes 8-10/3500")));
    assert_eq!((part.header("content-encoding"), part.header("etag")), (None, Some(tag.as_str())));
    assert_eq!(of("bytes=-3", None).await.text(), ");\n");
    assert_eq!(of("bytes=8-10", Some(tag.clone())).await.status, 206);
    for condition in [format!("W/{tag}"), "\"other\"".to_owned(), "Fri, 01 Jan 2100 00:00:00 GMT".to_owned()] {
        let whole = of("bytes=8-10", Some(condition.clone())).await;
        assert_eq!((whole.status, whole.body.len()), (200, 3500), "{condition}");
    }
    let none = of("bytes=5000-", None).await;
    assert_eq!((none.status, none.header("content-range")), (416, Some("bytes */3500")));
    assert_eq!(of("bytes=0-1,5-6", None).await.status, 200);
    assert_eq!(ask(TestRequest::post().uri("/")).await.status, 405);
}

#[actix_rt::test]
async fn text_is_compressed_for_who_takes_it() {
    let folder = site();
    let of = async |path: &str, encodings: &'static str| {
        let request = TestRequest::get().uri(path).insert_header(("Accept-Encoding", encodings));
        ask_in(folder.path(), request).await
    };
    let plain = ask_in(folder.path(), script()).await;
    let compressed = of("/script.js", "gzip, deflate").await;
    assert_eq!(compressed.header("content-encoding"), Some("gzip"));
    assert!(compressed.body.len() < plain.body.len() / 10);
    let mut text = String::new();
    GzDecoder::new(&compressed.body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, plain.text());
    let brotli = of("/script.js", "gzip, deflate, br").await;
    assert_eq!((brotli.header("content-encoding"), brotli.header("etag")), (Some("br"), compressed.header("etag")));
    let mut text = Vec::new();
    brotli::BrotliDecompress(&mut &brotli.body[..], &mut text).unwrap();
    assert!(text == plain.body && brotli.body.len() < compressed.body.len());
    // A weak tag: the same content, and other bytes.
    let tag = compressed.header("etag").unwrap();
    assert_eq!(tag, format!("W/{}", plain.header("etag").unwrap()));
    for answer in [&plain, &compressed, &of("/script.js", "gzip;q=0").await] {
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
    }
    assert_eq!(of("/script.js", "gzip;q=0").await.body, plain.body);
    let known = script().insert_header(("Accept-Encoding", "gzip")).insert_header(("If-None-Match", tag.to_owned()));
    let known = ask_in(folder.path(), known).await;
    assert_eq!((known.status, known.header("vary"), known.header("etag")), (304, Some("Accept-Encoding"), Some(tag)));
    // What is small is left as it is.
    assert_eq!(of("/about", "gzip").await.header("content-encoding"), None);
}

#[actix_rt::test]
async fn what_was_compressed_beforehand_is_used() {
    let folder = site();
    let root = folder.path().join("site");
    let text = SCRIPT.repeat(100);
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    fs::write(root.join("script.js.gz"), gzip(&text)).unwrap();
    let of = async |encodings: &'static str| {
        ask_in(folder.path(), script().insert_header(("Accept-Encoding", encodings))).await
    };
    let answer = of("gzip").await;
    assert_eq!((answer.header("content-encoding"), &answer.body), (Some("gzip"), &gzip(&text)));
    assert!(answer.header("etag").unwrap().starts_with('"'));
    // That of something else is not.
    fs::write(root.join("script.js.gz"), gzip("something else")).unwrap();
    assert_ne!(of("gzip").await.body, gzip("something else"));
    fs::write(root.join("script.js.br"), "as brotli has it").unwrap();
    let answer = of("gzip, br").await;
    assert_eq!((answer.header("content-encoding"), answer.text()), (Some("br"), "as brotli has it"));
    assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(of("identity").await.text(), text);
}

#[actix_rt::test]
async fn who_has_a_file_knows_how_long_it_is_good_for() {
    for (path, cache_control) in [
        ("/", "no-cache"),
        ("/about", "no-cache"),
        ("/none", "no-cache"),
        ("/sub", "no-cache"),
        ("/assets/index-DhX8sd92.css", "public, max-age=31536000, immutable"),
        ("/script.js", "public, max-age=300"),
    ] {
        assert_eq!(ask(TestRequest::get().uri(path)).await.header("cache-control"), Some(cache_control), "{path}");
    }
}

#[actix_rt::test]
async fn large_files_are_sent_as_they_are_read() {
    let folder = site();
    let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(folder.path().join("site/large.bin"), &bytes).unwrap();
    let large = || TestRequest::get().uri("/large.bin").insert_header(("Accept-Encoding", "gzip"));
    let whole = ask_in(folder.path(), large()).await;
    assert!(whole.body == bytes && whole.header("content-encoding").is_none() && whole.header("vary").is_none());
    let part = ask_in(folder.path(), large().insert_header(("Range", "bytes=100000-299999"))).await;
    assert!(part.body == bytes[100_000..300_000]);
}

#[actix_rt::test]
async fn a_link_that_comes_and_goes_is_not_followed_out_of_the_folder() {
    let folder = site();
    let path = |inner: &str| folder.path().join(inner);
    fs::create_dir(path("elsewhere")).unwrap();
    fs::write(path("elsewhere/index.html"), "outside").unwrap();
    let site = web::Data::new(Site::open(Dir::trusted(&path("site")).unwrap(), Options::default()).0);
    let app = test::init_service(App::new().app_data(site).default_service(web::to(handle))).await;
    for (asked, place, target) in
        [("/a%20b.txt", "site/a b.txt", "outside.txt"), ("/sub/index.html", "site/sub", "elsewhere")]
    {
        let (place, away, link) = (path(place), path("away"), path("link"));
        symlink(path(target), &link).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let exchanger = std::thread::spawn({
            let done = done.clone();
            move || {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(&place, &away).unwrap();
                    fs::rename(&link, &place).unwrap();
                    fs::rename(&place, &link).unwrap();
                    fs::rename(&away, &place).unwrap();
                }
                fs::remove_file(&link).unwrap();
            }
        });
        let mut found = 0;
        for _ in 0..3_000 {
            let response = test::call_service(&app, TestRequest::get().uri(asked).to_request()).await;
            found += usize::from(response.status() == StatusCode::OK);
            let body = test::read_body(response).await;
            assert_ne!(body, "outside", "{asked}");
        }
        done.store(true, Ordering::Relaxed);
        exchanger.join().unwrap();
        assert!(found > 0, "it was never there: {asked}");
    }
}
