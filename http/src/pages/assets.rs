//! Styles, scripts and icon: embedded, under addresses that change with their content.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use actix_web::{HttpResponse, http::header};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use utoipa_swagger_ui::{Config, SwaggerFile};

use crate::{problem::Problem, worker::Request};

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

    fn ours(name: &'static str, content_type: &'static str, content: &'static str) -> Self {
        Self::new(name, content_type.into(), Bytes::from_static(content.as_bytes()), false)
    }

    /// A file of Swagger UI, if there is one of this name; without those that depend on a configuration.
    fn of_swagger(name: &'static str) -> Option<Self> {
        let file = utoipa_swagger_ui::serve(name, Arc::new(Config::default())).ok().flatten()?;
        let SwaggerFile { bytes, content_type, gzpipped, .. } = file;
        Some(Self::new(name, content_type.into(), Bytes::from(bytes.into_owned()), gzpipped))
    }
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let mut assets = vec![
        Asset::ours("frame.css", "text/css; charset=utf-8", include_str!("assets/frame.css")),
        Asset::ours("style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
        Asset::ours("home.js", "text/javascript; charset=utf-8", include_str!("assets/home.js")),
        Asset::ours("docs.js", "text/javascript; charset=utf-8", include_str!("assets/docs.js")),
        Asset::ours("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ];
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
