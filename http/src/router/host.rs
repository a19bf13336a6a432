//! The app that a request names.

use actix_http::{Request, header};

/// The app in a host such as `hello.localhost:8080`: what is before the base domain, in lower case; `None` for the base
/// domain itself and for foreign hosts. A label of any form counts, so that an address below the base domain never
/// shows the control plane's own pages.
pub fn app_of(host: &str, base_domain: &str) -> Option<String> {
    let name = host.split_once(':').map_or(host, |(name, _port)| name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let dot = name.len().checked_sub(base_domain.len() + 1).filter(|&dot| dot > 0)?;
    let (app, suffix) = (name.get(..dot)?, name.get(dot + 1..)?);
    let below = name.as_bytes().get(dot) == Some(&b'.') && suffix.eq_ignore_ascii_case(base_domain);
    below.then(|| app.to_ascii_lowercase())
}

/// The app and the host as the client wrote it. The authority of an absolute request target overrules the Host header
/// (RFC 9112 §3.2.2), for us and for the app.
pub(super) fn of_request(request: &Request, base_domain: &str) -> Option<(String, String)> {
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_user, host)| host),
        None => request.head().headers.get(header::HOST)?.to_str().ok()?,
    };
    Some((app_of(host, base_domain)?, host.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::app_of;

    #[test]
    fn the_label_before_the_base_domain_is_the_app() {
        for (host, base, app) in [
            ("hello.localhost", "localhost", Some("hello")),
            ("hello.localhost:8080", "localhost", Some("hello")),
            ("HELLO.LocalHost:8080", "localhost", Some("hello")),
            ("hello.localhost.", "localhost", Some("hello")),
            ("my-app.apps.example.org", "apps.example.org", Some("my-app")),
            ("a.b.localhost", "localhost", Some("a.b")),
            ("localhost", "localhost", None),
            ("localhost:8080", "localhost", None),
            (".localhost", "localhost", None),
            ("notlocalhost", "localhost", None),
            ("hello-localhost", "localhost", None),
            ("127.0.0.1:8080", "localhost", None),
            ("[::1]:8080", "localhost", None),
            ("hello.localhost.evil.org", "localhost", None),
            ("ü.localhost", "localhost", Some("ü")),
            ("xüocalhost", "localhost", None),
            ("", "localhost", None),
        ] {
            assert_eq!(app_of(host, base).as_deref(), app, "{host}");
        }
    }
}
