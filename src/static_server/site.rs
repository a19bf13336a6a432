//! A folder that is served: what each path of it leads to.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Component, Path, PathBuf},
};

use actix_web::http::StatusCode;
use callboard_deploy::folder::{Dir, Found, What};
use percent_encoding::percent_decode_str;

use super::{
    answer::Wanted,
    representation::{Representation, Representations},
    rules::{self, Directed, Rules},
};

/// What belongs to the site though its name begins with a dot.
const WELL_KNOWN: &str = ".well-known";
/// The page for what is not there.
const NOT_FOUND: &str = "404.html";
/// The page of a folder, and of an app that runs in the browser.
const INDEX: &str = "index.html";

/// How a site answers. What is `None` its files decide.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Options {
    /// Whether a navigation to a page that is not there gets index.html; if there is no 404.html when not set
    #[arg(long, action = clap::ArgAction::Set)]
    pub single_page: Option<bool>,
    /// Whether /about is about.html; it is when not set
    #[arg(long, action = clap::ArgAction::Set)]
    pub clean_urls: Option<bool>,
    /// Whether pages are at addresses with a slash at their end, or without; folders with, files without when not set
    #[arg(long, action = clap::ArgAction::Set)]
    pub trailing_slash: Option<bool>,
}

/// A folder that is served.
pub struct Site {
    root: Dir,
    options: Options,
    pub rules: Rules,
    representations: Representations,
}

/// What a path leads to.
pub enum Outcome {
    Representation(StatusCode, Representation),
    /// Its address has a slash at its end, or has none.
    Slash(bool),
    /// A rule of the site leads there.
    Away(StatusCode, String),
    Missing,
}

/// A request, as far as it decides what is answered.
pub struct Asked<'a> {
    pub path: &'a str,
    pub query: &'a str,
    /// Whether somebody goes there, in a browser, rather than a page asking for a part of itself.
    pub by_link: bool,
    pub wanted: &'a Wanted,
}

/// What is at a path.
enum At {
    File(PathBuf, File),
    Slash(bool),
}

impl Site {
    /// A site, and sentences on what of its rules can't be used. Blocks.
    pub fn open(root: Dir, options: Options) -> (Self, Vec<String>) {
        let (rules, notes) = Rules::read(|path| opened(&root, path).map(|(_, file)| file));
        (Self { root, options, rules, representations: Representations::default() }, notes)
    }

    /// Blocks.
    pub fn look(&self, asked: &Asked<'_>) -> Outcome {
        let directed = self.rules.redirects.direct(asked.path, asked.query, || self.at(asked.path).is_some());
        match directed {
            Some(Directed::Away(status, to)) => return Outcome::Away(status, to),
            Some(Directed::Rewritten(status, to)) => {
                // What stands in for something else is answered whole.
                let whole = asked.wanted.whole();
                let wanted = if status == StatusCode::OK { asked.wanted } else { &whole };
                let to = to.split(['?', '#']).next().unwrap_or_default();
                return match self.rewritten(to).and_then(|(path, file)| self.represented(&path, file, wanted)) {
                    Some(page) => Outcome::Representation(status, page),
                    None => self.missing(asked),
                };
            }
            None => {}
        }
        match self.at(asked.path) {
            Some(At::Slash(has)) => Outcome::Slash(has),
            Some(At::File(path, file)) => match self.represented(&path, file, asked.wanted) {
                Some(page) => Outcome::Representation(StatusCode::OK, page),
                None => self.missing(asked),
            },
            None => self.missing(asked),
        }
    }

    /// What is answered where nothing is: the app itself, or the nearest page that says so.
    fn missing(&self, asked: &Asked<'_>) -> Outcome {
        // A part of it, or the news that it has not changed, is no answer to who asked for something else.
        let wanted = asked.wanted.whole();
        let app = || {
            let (path, file) = self.opened(Path::new(INDEX)).filter(|_| asked.by_link)?;
            self.represented(&path, file, &wanted).map(|page| Outcome::Representation(StatusCode::OK, page))
        };
        let page = || {
            let below = relative(asked.path).unwrap_or_else(|| PathBuf::from(INDEX));
            let folders = below.ancestors().skip(usize::from(!asked.path.ends_with('/')));
            let found = folders.into_iter().find_map(|folder| self.opened(&folder.join(NOT_FOUND)));
            let (path, file) = found.or_else(|| self.opened(Path::new(NOT_FOUND)))?;
            self.represented(&path, file, &wanted).map(|page| Outcome::Representation(StatusCode::NOT_FOUND, page))
        };
        let found = match self.options.single_page {
            Some(true) => app().or_else(page),
            Some(false) => page(),
            None => page().or_else(app),
        };
        found.unwrap_or(Outcome::Missing)
    }

    /// What is at a path, by the site's files alone.
    fn at(&self, path: &str) -> Option<At> {
        let below = relative(path)?;
        let file = |(path, file)| At::File(path, file);
        let page = || self.page(&below);
        let index = || self.opened(&below.join(INDEX));
        let is_root = below.as_os_str().is_empty();
        match (path.ends_with('/'), self.options.trailing_slash) {
            (true, Some(false)) if !is_root => index().or_else(page).map(|_| At::Slash(false)),
            (true, Some(true)) => index().or_else(page).map(file),
            (true, _) => index().map(file),
            (false, Some(true)) => {
                self.opened(&below).map(file).or_else(|| index().or_else(page).map(|_| At::Slash(true)))
            }
            (false, Some(false)) => self.opened(&below).or_else(page).or_else(index).map(file),
            (false, None) => self.opened(&below).or_else(page).map(file).or_else(|| index().map(|_| At::Slash(true))),
        }
    }

    /// The file that a rule means by a path: the one at this address, or else at the same with or without a slash at its
    /// end.
    fn rewritten(&self, path: &str) -> Option<(PathBuf, File)> {
        let below = relative(path)?;
        let page = || self.page(&below);
        let index = || self.opened(&below.join(INDEX));
        let file = self.opened(&below);
        match path.ends_with('/') || self.options.trailing_slash == Some(true) {
            true => file.or_else(index).or_else(page),
            false => file.or_else(page).or_else(index),
        }
    }

    /// The page that a path without a suffix means, unless the site wants none.
    fn page(&self, below: &Path) -> Option<(PathBuf, File)> {
        match self.options.clean_urls {
            Some(false) => None,
            _ => self.opened(&with_suffix(below, ".html")?),
        }
    }

    fn represented(&self, path: &Path, file: File, wanted: &Wanted) -> Option<Representation> {
        let beside = |suffix: &str| self.opened(&with_suffix(path, suffix)?).map(|(_, file)| file);
        self.representations.of(path, file, wanted, beside)
    }

    /// The file that a path leads to, and where it is; nothing when the way there is hidden or leads out, and for the files
    /// of rules.
    fn opened(&self, path: &Path) -> Option<(PathBuf, File)> {
        opened(&self.root, path).filter(|(path, _)| !rules::is_rules(path))
    }
}

fn opened(root: &Dir, path: &Path) -> Option<(PathBuf, File)> {
    match root.follow(path, is_shown).ok()? {
        Found { path, what: What::File(file) } => Some((path, file)),
        Found { what: What::Folder(_), .. } => None,
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
