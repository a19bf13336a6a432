//! Checks that a request comes from one of our own pages.

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderMap},
};
use url::Url;

use crate::{settings::GatewaySettings, worker::Worker};

/// For requests with cookies that change state: the browser must say that the page is ours.
pub(crate) fn is_own(http: &HttpRequest, worker: &Worker) -> bool {
    is_same_origin(http.headers(), &worker.shared.settings)
}

/// For WebSockets, which browsers open across origins without asking: our own page, an origin that CORS allows, or no
/// browser.
pub(crate) fn may_connect(http: &HttpRequest, worker: &Worker) -> bool {
    let headers = http.headers();
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let settings = &worker.shared.settings;
    let allowed = origin.to_str().is_ok_and(|origin| settings.cors_origins.iter().any(|known| known == origin));
    allowed || origin_is_host(headers, settings)
}

/// By `Sec-Fetch-Site` where the browser sends it, which no page can forge. `same-site` is not ours: the apps are.
fn is_same_origin(headers: &HeaderMap, settings: &GatewaySettings) -> bool {
    match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => origin_is_host(headers, settings),
    }
}

fn origin_is_host(headers: &HeaderMap, settings: &GatewaySettings) -> bool {
    let Some(origin) = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()) else { return false };
    let Ok(origin) = Url::parse(origin) else { return false };
    let is_public = |public: &Url| public.origin() == origin.origin() && origin.origin().is_tuple();
    if settings.public_url.as_ref().is_some_and(is_public) {
        return true;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own = host.and_then(|host| Url::parse(&format!("{}://{host}", origin.scheme())).ok());
    matches!(origin.scheme(), "http" | "https") && own.is_some_and(|own| own.origin() == origin.origin())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn own(pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost:8080"));
        for (name, value) in pairs {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        is_same_origin(&headers, &GatewaySettings::default())
    }

    #[test]
    fn only_our_own_pages_are_of_our_origin() {
        assert!(own(&[("sec-fetch-site", "same-origin")]));
        assert!(own(&[("origin", "http://localhost:8080")]));
        assert!(!own(&[]));
        for site in ["same-site", "cross-site", "none"] {
            assert!(!own(&[("sec-fetch-site", site), ("origin", "http://localhost:8080")]), "{site}");
        }
        for origin in
            ["null", "http://evil.localhost:8080", "http://localhost:8081", "http://localhost", "file://localhost:8080"]
        {
            assert!(!own(&[("origin", origin)]), "{origin}");
        }
    }
}
