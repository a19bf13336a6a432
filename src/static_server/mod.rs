//! `callboard static-server`: what a static site runs on. Serves a folder on `$PORT`, and nothing outside it.
//!
//! A file is found and opened at once, beneath the folder, component by component: what is answered is what was judged,
//! whatever is put in its place meanwhile. Names with a leading dot, `.well-known` apart, and links that lead out of the
//! folder are refused on the way.
//!
//! `/about` is `about.html`, `/blog/` is `blog/index.html`, and what is not there is `404.html`. A site without that page
//! is taken for an app that runs in the browser: where one would go by a link, it answers `index.html`.

mod answer;
mod caching;
mod representation;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsStr,
    fs::File,
    io,
    net::Ipv4Addr,
    path::{Component, Path, PathBuf},
};

use actix_web::{
    App, HttpMessage as _, HttpRequest, HttpResponse, HttpServer,
    http::{
        StatusCode,
        header::{self, Accept},
    },
    web,
};
use callboard_deploy::folder::{Dir, Found, What};
use clap::Args;
use percent_encoding::percent_decode_str;

use self::{
    answer::Wanted,
    representation::{Representation, Representations},
};
use crate::error::{Context, Error, Result};

/// What belongs to the site though its name begins with a dot.
const WELL_KNOWN: &str = ".well-known";

#[derive(Debug, Args)]
pub struct StaticServer {
    /// The folder to serve, beneath the current one
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The port to listen on
    #[arg(long, env = "PORT")]
    port: u16,
}

impl StaticServer {
    pub fn run(self) -> Result {
        let root = beneath(Path::new("."), &self.folder).context(|| format!("open {}", self.folder.display()))?;
        actix_rt::System::new().block_on(serve(Site::new(root), self.port))
    }
}

/// The folder that a path leads to. Only what is above `release` is the node's own: builds and apps may have put links
/// into it, which lead nowhere but into it.
fn beneath(release: &Path, folder: &Path) -> io::Result<Dir> {
    match Dir::trusted(release)?.follow(folder, |_| true)?.what {
        What::Folder(dir) => Ok(dir),
        What::File(_) => Err(io::ErrorKind::NotADirectory.into()),
    }
}

async fn serve(site: Site, port: u16) -> Result {
    let site = web::Data::new(site);
    let server = HttpServer::new(move || App::new().app_data(site.clone()).default_service(web::to(handle)))
        .workers(1)
        .worker_max_blocking_threads(4)
        .shutdown_timeout(10)
        .bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|error| Error::failure(format!("could not listen on port {port}: {error}")))?;
    println!("serving static files on port {port}");
    server.run().await.context(|| "serve".to_owned())
}

/// A folder that is served.
struct Site {
    root: Dir,
    representations: Representations,
}

/// What a path leads to.
enum Outcome {
    Representation(StatusCode, Representation),
    /// It is a folder, and its address has a slash at its end.
    Folder,
    Missing,
}

async fn handle(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    if !matches!(request.method().as_str(), "GET" | "HEAD") {
        return HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, "GET, HEAD")).finish();
    }
    let (path, wanted, goes) = (request.path().to_owned(), Wanted::of(&request), goes_by_link(&request));
    match web::block(move || site.look(&path, &wanted, goes)).await {
        Ok(Outcome::Representation(status, representation)) => answer::whole_or_part(&request, status, representation),
        // What is a folder now may be a file in the next release.
        Ok(Outcome::Folder) => HttpResponse::PermanentRedirect()
            .insert_header((header::LOCATION, local_location(&request)))
            .insert_header((header::CACHE_CONTROL, caching::ASKED_EACH_TIME))
            .finish(),
        Ok(Outcome::Missing) => HttpResponse::NotFound()
            .content_type("text/plain; charset=utf-8")
            .insert_header((header::CACHE_CONTROL, caching::ASKED_EACH_TIME))
            .body(format!("There is no {} here.\n", request.path())),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

impl Site {
    fn new(root: Dir) -> Self {
        Self { root, representations: Representations::default() }
    }

    /// Blocks.
    fn look(&self, path: &str, wanted: &Wanted, goes_by_link: bool) -> Outcome {
        let found = relative(path).and_then(|below| match path.ends_with('/') {
            true => self.file(&below.join("index.html"), wanted).map(Some),
            false => {
                let page = || self.file(&with_suffix(&below, ".html")?, wanted);
                let folder = || self.opened(&below.join("index.html")).map(|_| None);
                self.file(&below, wanted).or_else(page).map(Some).or_else(folder)
            }
        });
        if let Some(found) = found {
            return found.map_or(Outcome::Folder, |found| Outcome::Representation(StatusCode::OK, found));
        }
        // A part of it, or the news that it has not changed, is no answer to who asked for something else.
        let wanted = wanted.whole();
        if let Some(page) = self.file(Path::new("404.html"), &wanted) {
            return Outcome::Representation(StatusCode::NOT_FOUND, page);
        }
        let page = goes_by_link.then(|| self.file(Path::new("index.html"), &wanted)).flatten();
        page.map_or(Outcome::Missing, |page| Outcome::Representation(StatusCode::OK, page))
    }

    fn file(&self, path: &Path, wanted: &Wanted) -> Option<Representation> {
        let (path, file) = self.opened(path)?;
        let beside = |suffix: &str| self.opened(&with_suffix(&path, suffix)?).map(|(_, file)| file);
        self.representations.of(&path, file, wanted, beside)
    }

    /// The file that a path leads to, and where it is; nothing when the way there is hidden or leads out.
    fn opened(&self, path: &Path) -> Option<(PathBuf, File)> {
        match self.root.follow(path, is_shown).ok()? {
            Found { path, what: What::File(file) } => Some((path, file)),
            Found { what: What::Folder(_), .. } => None,
        }
    }
}

/// Whether somebody goes there, in a browser, rather than a page asking for a part of itself.
fn goes_by_link(request: &HttpRequest) -> bool {
    let name = request.path().rsplit('/').next().unwrap_or_default();
    let accepts = |accept: Accept| accept.iter().any(|media| media.item.essence_str() == "text/html");
    !name.contains('.') && request.get_header().is_some_and(accepts)
}

/// The path with a slash at its end. One leading slash only: `//host/` would lead to another host.
fn local_location(request: &HttpRequest) -> String {
    let path = format!("/{}/", request.path().trim_matches('/'));
    match request.query_string() {
        "" => path,
        query => format!("{path}?{query}"),
    }
}

/// The path below the folder that a request names; nothing for a path that could lead elsewhere or is hidden.
fn relative(path: &str) -> Option<PathBuf> {
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    if decoded.contains(['\0', '\\']) {
        return None;
    }
    let path = Path::new(decoded.trim_start_matches('/'));
    let plain = |(depth, part): (usize, Component<'_>)| match part {
        Component::Normal(name) => !is_hidden(name) || (depth == 0 && name == WELL_KNOWN),
        _ => false,
    };
    path.components().enumerate().all(plain).then(|| path.to_path_buf())
}

fn with_suffix(path: &Path, suffix: &str) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_owned();
    name.push(suffix);
    Some(path.with_file_name(name))
}

/// Whether a name may be part of the way to a file.
fn is_shown(name: &OsStr) -> bool {
    !is_hidden(name) || name == WELL_KNOWN
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}
