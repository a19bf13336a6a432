//! Styles, scripts and icon: embedded, under addresses that change with their content.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use actix_web::{HttpResponse, http::header};
use bytes::Bytes;
use flate2::Compression;
use sha2::{Digest, Sha256};
use utoipa_swagger_ui::{Config, SwaggerFile};

use super::gzip;
use crate::{problem::Problem, worker::Request};

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

struct Asset {
    name: &'static str,
    /// The name with a hash of the content.
    hashed: String,
    content_type: Cow<'static, str>,
    content: Bytes,
    /// Whether the content is compressed; every browser accepts that.
    gzip: bool,
}

impl Asset {
    fn new(name: &'static str, content_type: Cow<'static, str>, content: Bytes, gzip: bool) -> Self {
        let mut hash = hex::encode(Sha256::digest(&content));
        hash.truncate(12);
        Self { name, hashed: format!("{hash}-{name}"), content_type, content, gzip }
    }

    /// A text of ours, compressed. A module names those before it by their names in the folder, which become their
    /// addresses here: so a browser that has an old one never mixes it with a new one.
    fn ours(name: &'static str, content_type: &'static str, content: &str, before: &[Self]) -> Self {
        let mut content = if content_type == SCRIPT { bare(content) } else { content.to_owned() };
        for other in before {
            content = content.replace(&format!("\"./{}\"", other.name), &format!("\"/assets/{}\"", other.hashed));
        }
        let (content, gzip) = match gzip(content.as_bytes(), Compression::best()) {
            Some(compressed) => (compressed, true),
            None => (content.into_bytes(), false),
        };
        Self::new(name, content_type.into(), Bytes::from(content), gzip)
    }

    /// A file of Swagger UI, if there is one of this name; without those that depend on a configuration.
    fn of_swagger(name: &'static str) -> Option<Self> {
        let file = utoipa_swagger_ui::serve(name, Arc::new(Config::default())).ok().flatten()?;
        let SwaggerFile { bytes, content_type, gzpipped, .. } = file;
        Some(Self::new(name, content_type.into(), Bytes::from(bytes.into_owned()), gzpipped))
    }
}

/// Signs of scripts that need no spaces around them, with those.
const SPACED: [(&str, &str); 3] = [(" => ", "=>"), (" = ", "="), (" === ", "===")];

/// A script without its indentation, the lines that are comments, and the spaces around its commonest signs. No text of
/// ours goes over several lines, or has such a sign.
fn bare(script: &str) -> String {
    let lines = script.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let bare: String = lines.flat_map(|line| [line, "\n"]).collect();
    SPACED.into_iter().fold(bare, |script, (spaced, tight)| script.replace(spaced, tight))
}

/// Ours, each module after those that it imports.
const OURS: &[(&str, &str, &str)] = &[
    ("style.css", STYLE, include_str!("assets/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("docs.js", SCRIPT, include_str!("assets/docs.js")),
    ("dom.js", SCRIPT, include_str!("assets/dom.js")),
    ("times.js", SCRIPT, include_str!("assets/times.js")),
    ("session.js", SCRIPT, include_str!("assets/session.js")),
    ("swap.js", SCRIPT, include_str!("assets/swap.js")),
    ("live.js", SCRIPT, include_str!("assets/live.js")),
    ("log.js", SCRIPT, include_str!("assets/log.js")),
    ("archive.js", SCRIPT, include_str!("assets/archive.js")),
    ("upload.js", SCRIPT, include_str!("assets/upload.js")),
    ("palette.js", SCRIPT, include_str!("assets/palette.js")),
    ("chart.js", SCRIPT, include_str!("assets/chart.js")),
    ("variables.js", SCRIPT, include_str!("assets/variables.js")),
    ("dashboard.js", SCRIPT, include_str!("assets/dashboard.js")),
];

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let mut assets = Vec::new();
    for (name, content_type, content) in OURS {
        let asset = Asset::ours(name, content_type, content, &assets);
        assets.push(asset);
    }
    assets.extend(["swagger-ui.css", "swagger-ui-bundle.js"].into_iter().filter_map(Asset::of_swagger));
    assets
});

/// The address of an asset.
pub(super) fn address(name: &str) -> String {
    let found = ASSETS.iter().find(|asset| asset.name == name);
    found.map_or_else(String::new, |asset| format!("/assets/{}", asset.hashed))
}

pub(crate) async fn asset(request: Request) -> Result<HttpResponse, Problem> {
    let fields = request.fields()?;
    let wanted = fields.first().map(|(_, name)| name.as_ref()).unwrap_or_default();
    let asset = ASSETS.iter().find(|asset| asset.hashed == wanted).ok_or_else(Problem::not_found)?;
    let mut response = HttpResponse::Ok();
    response.content_type(asset.content_type.as_ref());
    response.insert_header((header::CACHE_CONTROL, "public, max-age=31536000, immutable"));
    if asset.gzip {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    Ok(response.body(asset.content.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all pages of the dashboard together load of our own scripts, in bytes, uncompressed.
    const SCRIPTS: usize = 25_000;

    #[test]
    fn the_scripts_stay_small_and_import_each_other_by_their_addresses() {
        let modules = OURS.iter().filter(|(name, content_type, _)| *content_type == SCRIPT && *name != "docs.js");
        let size: usize = modules.map(|(_, _, content)| bare(content).len()).sum();
        assert!(size < SCRIPTS, "{size} bytes of scripts");
        for (name, _, content) in OURS.iter().filter(|(_, content_type, _)| *content_type == SCRIPT) {
            for text in content.lines().flat_map(|line| line.split('"').skip(1).step_by(2)) {
                assert!(!SPACED.iter().any(|(spaced, _)| text.contains(spaced)), "{name} has a sign in {text:?}");
            }
        }
        for (index, (name, _, content)) in OURS.iter().enumerate() {
            for (other, ..) in OURS.iter().skip(index) {
                assert!(!content.contains(&format!("\"./{other}\"")), "{name} imports {other}, which comes later");
            }
        }
    }
}
