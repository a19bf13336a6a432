//! `callboard static-server`: what a static site runs on. Serves a folder on `$PORT`, and nothing outside it.
//!
//! A file is found and opened at once, beneath the folder, component by component: what is answered is what was judged,
//! whatever is put in its place meanwhile. Names with a leading dot and links that lead out of the folder are refused
//! on the way. actix-files answers conditional and range requests about the open file.

use std::{
    ffi::OsStr,
    fs::File,
    io::Read as _,
    net::Ipv4Addr,
    path::{Component, Path, PathBuf},
};

use actix_files::NamedFile;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::StatusCode, http::header, web};
use callboard_deploy::folder::{Dir, Found, What};
use clap::Args;
use percent_encoding::percent_decode_str;

use crate::error::{Context, Error, Result};

#[derive(Debug, Args)]
pub struct StaticServer {
    /// The folder to serve
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The port to listen on
    #[arg(long, env = "PORT")]
    port: u16,
}

impl StaticServer {
    pub fn run(self) -> Result {
        let root = Dir::trusted(&self.folder).context(|| format!("open {}", self.folder.display()))?;
        actix_rt::System::new().block_on(serve(root, self.port))
    }
}

async fn serve(root: Dir, port: u16) -> Result {
    let root = web::Data::new(root);
    let server = HttpServer::new(move || App::new().app_data(root.clone()).default_service(web::to(answer)))
        .workers(1)
        .worker_max_blocking_threads(4)
        .shutdown_timeout(10)
        .bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|error| Error::failure(format!("could not listen on port {port}: {error}")))?;
    println!("serving static files on port {port}");
    server.run().await.context(|| "serve".to_owned())
}

async fn answer(request: HttpRequest, root: web::Data<Dir>) -> HttpResponse {
    if !matches!(request.method().as_str(), "GET" | "HEAD") {
        return HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, "GET, HEAD")).finish();
    }
    let path = request.path();
    let Some(wanted) = relative(path) else { return not_found(&request, &root) };
    let found = match inside(&root, &wanted) {
        Some(Found { what: What::Folder(_), .. }) if !path.ends_with('/') => {
            return HttpResponse::PermanentRedirect()
                .insert_header((header::LOCATION, local_location(&request)))
                .finish();
        }
        Some(Found { what: What::Folder(_), .. }) => inside(&root, &wanted.join("index.html")),
        found => found.filter(|_| !path.ends_with('/')),
    };
    match found {
        Some(Found { path, what: What::File(opened) }) => file(&request, &root, opened, &path),
        _ => not_found(&request, &root),
    }
}

/// The path with a slash at its end. One leading slash only: `//host/` would lead to another host.
fn local_location(request: &HttpRequest) -> String {
    let path = format!("/{}/", request.path().trim_matches('/'));
    match request.query_string() {
        "" => path,
        query => format!("{path}?{query}"),
    }
}

fn file(request: &HttpRequest, root: &Dir, file: File, path: &Path) -> HttpResponse {
    match NamedFile::from_file(file, path) {
        Ok(file) => file.prefer_utf8(true).disable_content_disposition().into_response(request),
        Err(_) => not_found(request, root),
    }
}

fn not_found(request: &HttpRequest, root: &Dir) -> HttpResponse {
    let page = inside(root, Path::new("404.html")).and_then(|found| match found.what {
        What::File(mut page) => {
            let mut bytes = Vec::new();
            page.read_to_end(&mut bytes).ok().map(|_| bytes)
        }
        What::Folder(_) => None,
    });
    let mut answer = HttpResponse::build(StatusCode::NOT_FOUND);
    match page {
        Some(page) => answer.content_type("text/html; charset=utf-8").body(page),
        None => {
            answer.content_type("text/plain; charset=utf-8").body(format!("There is no {} here.\n", request.path()))
        }
    }
}

/// The path below the folder that a request names; nothing for a path that could lead elsewhere or is hidden.
fn relative(path: &str) -> Option<PathBuf> {
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    if decoded.contains(['\0', '\\']) {
        return None;
    }
    let path = Path::new(decoded.trim_start_matches('/'));
    let plain = |part: Component<'_>| match part {
        Component::Normal(name) => is_shown(name),
        _ => false,
    };
    path.components().all(plain).then(|| path.to_path_buf())
}

/// What a path leads to below the folder, opened; nothing when the way there is hidden or leads out.
fn inside(root: &Dir, wanted: &Path) -> Option<Found> {
    root.follow(wanted, is_shown).ok()
}

/// Whether a name may be part of a path. `.well-known` is hidden like any other: the platform owns it.
fn is_shown(name: &OsStr) -> bool {
    !name.as_encoded_bytes().starts_with(b".")
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use actix_web::test;

    use super::*;

    fn site() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("site");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::create_dir_all(root.join(".git")).unwrap();
        for (name, text) in [
            ("site/index.html", "<h1>home</h1>"),
            ("site/sub/index.html", "sub"),
            ("site/a b.txt", "0123456789"),
            ("site/404.html", "nothing here"),
            ("site/.env", "SECRET=1"),
            ("site/.git/config", "x"),
            ("outside.txt", "outside"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        symlink("../outside.txt", root.join("out.txt")).unwrap();
        symlink("a b.txt", root.join("in.txt")).unwrap();
        symlink(".env", root.join("env.txt")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        folder
    }

    async fn ask(request: test::TestRequest) -> (u16, String) {
        let folder = site();
        let root = web::Data::new(Dir::trusted(&folder.path().join("site")).unwrap());
        let app = test::init_service(App::new().app_data(root).default_service(web::to(answer))).await;
        let response = test::call_service(&app, request.to_request()).await;
        let status = response.status().as_u16();
        (status, String::from_utf8(test::read_body(response).await.to_vec()).unwrap())
    }

    async fn get(path: &str) -> (u16, String) {
        ask(test::TestRequest::get().uri(path)).await
    }

    #[actix_rt::test]
    async fn files_and_indexes_are_served() {
        assert_eq!(get("/").await, (200, "<h1>home</h1>".to_owned()));
        assert_eq!(get("/a%20b.txt").await, (200, "0123456789".to_owned()));
        assert_eq!(get("/in.txt").await, (200, "0123456789".to_owned()));
        assert_eq!(get("/sub/").await, (200, "sub".to_owned()));
        assert_eq!(get("/sub").await.0, 308);
    }

    #[actix_rt::test]
    async fn nothing_hidden_or_outside_is_served() {
        for path in [
            "/.env",
            "/.git/config",
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
    async fn ranges_are_answered_and_writes_are_not() {
        let range = test::TestRequest::get().uri("/a%20b.txt").insert_header(("Range", "bytes=2-4"));
        assert_eq!(ask(range).await, (206, "234".to_owned()));
        assert_eq!(ask(test::TestRequest::post().uri("/")).await.0, 405);
    }

    #[actix_rt::test]
    async fn a_redirect_stays_on_this_host() {
        let request = test::TestRequest::get().uri("//sub?x=1").to_http_request();
        assert_eq!(local_location(&request), "/sub/?x=1");
    }

    #[actix_rt::test]
    async fn a_link_that_comes_and_goes_is_not_followed_out_of_the_folder() {
        let folder = site();
        let path = |inner: &str| folder.path().join(inner);
        fs::create_dir(path("elsewhere")).unwrap();
        fs::write(path("elsewhere/index.html"), "outside").unwrap();
        let app = App::new().app_data(web::Data::new(Dir::trusted(&path("site")).unwrap()));
        let app = test::init_service(app.default_service(web::to(answer))).await;
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
                let response = test::call_service(&app, test::TestRequest::get().uri(asked).to_request()).await;
                found += usize::from(response.status() == StatusCode::OK);
                let body = test::read_body(response).await;
                assert_ne!(body, "outside", "{asked}");
            }
            done.store(true, Ordering::Relaxed);
            exchanger.join().unwrap();
            assert!(found > 0, "it was never there: {asked}");
        }
    }
}
