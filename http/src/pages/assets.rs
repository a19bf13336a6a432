//! Style, script and icon: in the program, under addresses that change with their content.

use std::sync::LazyLock;

use actix_web::{HttpResponse, http::header};
use sha2::{Digest, Sha256};

use crate::{problem::Problem, worker::Request};

struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const ASSETS: [Asset; 3] = [
    Asset { name: "style.css", content_type: "text/css; charset=utf-8", text: include_str!("assets/style.css") },
    Asset { name: "home.js", content_type: "text/javascript; charset=utf-8", text: include_str!("assets/home.js") },
    Asset { name: "icon.svg", content_type: "image/svg+xml", text: include_str!("assets/icon.svg") },
];

/// Name with hash, and asset.
static NAMED: LazyLock<Vec<(String, &'static Asset)>> = LazyLock::new(|| {
    let named = |asset: &'static Asset| {
        let hash: String = Sha256::digest(asset.text).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        (format!("{hash}-{}", asset.name), asset)
    };
    ASSETS.iter().map(named).collect()
});

/// Where an asset is.
pub(super) fn address(name: &str) -> String {
    let found = NAMED.iter().find(|(_, asset)| asset.name == name);
    found.map_or_else(String::new, |(hashed, _)| format!("/assets/{hashed}"))
}

pub(crate) async fn asset(request: Request) -> Result<HttpResponse, Problem> {
    let fields = request.fields()?;
    let wanted = fields.first().map(|(_, name)| name.as_ref()).unwrap_or_default();
    let (_, asset) = NAMED.iter().find(|(name, _)| name == wanted).ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok()
        .content_type(asset.content_type)
        .insert_header((header::CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .body(asset.text))
}
