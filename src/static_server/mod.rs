//! `callboard static-server`: what a static site runs on. Serves a folder on `$PORT`, and nothing outside it.
//!
//! A file is found and opened at once, beneath the folder, component by component: what is answered is what was judged,
//! whatever is put in its place meanwhile. Names with a leading dot, `.well-known` apart, and links that lead out of the
//! folder are refused on the way.
//!
//! `/about` is `about.html`, `/blog/` is `blog/index.html`, and what is not there is `404.html`. A site without that page
//! is taken for an app that runs in the browser: where one would go by a link, it answers `index.html`. [`Options`] say
//! otherwise, and `_redirects` and `_headers` in the folder have a say before and after ([`rules`]).

mod answer;
mod caching;
mod representation;
mod rules;
mod site;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use actix_web::{
    App, HttpMessage as _, HttpRequest, HttpResponse, HttpServer,
    http::header::{self, Accept, Quality},
    web,
};
use callboard_deploy::folder::{Dir, What};
use clap::Args;

use self::{
    answer::Wanted,
    site::{Asked, Options, Outcome, Site},
};
use crate::error::{Context, Error, Result};

/// The longest path that is looked for, in bytes: it is compared with every rule of the site.
const PATH_MAXIMUM: usize = 8 * 1024;

#[derive(Debug, Args)]
pub struct StaticServer {
    /// The folder to serve, beneath the current one
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The port to listen on
    #[arg(long, env = "PORT")]
    port: u16,
    #[command(flatten)]
    options: Options,
}

impl StaticServer {
    pub fn run(self) -> Result {
        let root = beneath(Path::new("."), &self.folder).context(|| format!("open {}", self.folder.display()))?;
        let (site, notes) = Site::open(root, self.options);
        notes.iter().for_each(|note| println!("{note}"));
        actix_rt::System::new().block_on(serve(site, self.port))
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

async fn handle(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    if !matches!(request.method().as_str(), "GET" | "HEAD") {
        return HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, "GET, HEAD")).finish();
    }
    if request.path().len() > PATH_MAXIMUM {
        return HttpResponse::UriTooLong()
            .content_type("text/plain; charset=utf-8")
            .body(format!("The path is longer than {PATH_MAXIMUM} bytes, and no page has such an address.\n"));
    }
    let (path, query) = (request.path().to_owned(), request.query_string().to_owned());
    let (wanted, by_link, looked_in) = (Wanted::of(&request), goes_by_link(&request), site.clone());
    let look = move || looked_in.look(&Asked { path: &path, query: &query, by_link, wanted: &wanted });
    let mut answer = match web::block(look).await {
        Ok(Outcome::Representation(status, representation)) => answer::whole_or_part(&request, status, representation),
        // What is a folder now may be a file in the next release.
        Ok(Outcome::Slash(has)) => HttpResponse::PermanentRedirect()
            .insert_header((header::LOCATION, local_location(&request, has)))
            .insert_header((header::CACHE_CONTROL, caching::ASKED_EACH_TIME))
            .finish(),
        Ok(Outcome::Away(status, to)) => HttpResponse::build(status)
            .insert_header((header::LOCATION, to))
            .insert_header((header::CACHE_CONTROL, caching::ASKED_EACH_TIME))
            .finish(),
        Ok(Outcome::Missing) => HttpResponse::NotFound()
            .content_type("text/plain; charset=utf-8")
            .insert_header((header::CACHE_CONTROL, caching::ASKED_EACH_TIME))
            .body(format!("There is no {} here.\n", request.path())),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    };
    if !site.rules.fields.is_empty() {
        site.rules.fields.apply(request.path(), &mut answer);
    }
    answer
}

/// Whether somebody goes there, in a browser, rather than a page asking for a part of itself.
fn goes_by_link(request: &HttpRequest) -> bool {
    let name = request.path().rsplit('/').next().unwrap_or_default();
    let accepts = |accept: Accept| {
        accept.iter().any(|media| media.item.essence_str() == "text/html" && media.quality > Quality::ZERO)
    };
    !name.contains('.') && request.get_header().is_some_and(accepts)
}

/// The path with or without a slash at its end. One leading slash only: `//host/` would lead to another host.
fn local_location(request: &HttpRequest, slash: bool) -> String {
    let path = request.path().trim_matches('/');
    let path = if slash { format!("/{path}/") } else { format!("/{path}") };
    match request.query_string() {
        "" => path,
        query => format!("{path}?{query}"),
    }
}
