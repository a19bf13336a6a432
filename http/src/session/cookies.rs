//! Cookies of the pages' session, readable by no script and no other host, and one by which an account recognizes the
//! browser after the session.

use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite, time::Duration},
};
use callboard_messages::{OrganizationId, Secret, auth::Tokens};

use crate::message::is_storable;

/// The lifetime of a refresh token.
const REFRESH_DAYS: i64 = 7;

/// How long a browser that does not come back is recognized.
const DEVICE_DAYS: i64 = 180;

/// How long a page may take to come that tells what the action before did.
const TOAST_SECONDS: i64 = 60;

/// The names of the cookies.
struct Names {
    access: &'static str,
    refresh: &'static str,
    device: &'static str,
    organization: &'static str,
    toast: &'static str,
}

/// `__Host-` makes browsers require TLS, this host alone and the whole path: an app on a subdomain can't set such a
/// cookie. Without TLS they would refuse it.
const fn names(secure: bool) -> Names {
    if secure {
        Names {
            access: "__Host-callboard_access",
            refresh: "__Host-callboard_refresh",
            device: "__Host-callboard_device",
            organization: "__Host-callboard_organization",
            toast: "__Host-callboard_toast",
        }
    } else {
        Names {
            access: "callboard_access",
            refresh: "callboard_refresh",
            device: "callboard_device",
            organization: "callboard_organization",
            toast: "callboard_toast",
        }
    }
}

/// The decoded value of a cookie; `None` if it can't be decoded.
fn value(http: &HttpRequest, name: &str) -> Option<String> {
    let may_be_one = |value: &String| !value.is_empty() && is_storable(value);
    http.cookie(name).map(|cookie| cookie.value().to_owned()).filter(may_be_one)
}

/// The access and the refresh token.
pub(crate) fn read(http: &HttpRequest, secure: bool) -> (Option<String>, Option<String>) {
    let names = names(secure);
    (value(http, names.access), value(http, names.refresh))
}

/// The device token of the browser.
pub(crate) fn device(http: &HttpRequest, secure: bool) -> Option<Secret> {
    value(http, names(secure).device).map(Secret::new)
}

/// The organization that the browser's pages act for, if it is not the session's own.
pub(crate) fn organization(http: &HttpRequest, secure: bool) -> Option<OrganizationId> {
    value(http, names(secure).organization)?.parse().ok()
}

/// Has the browser's pages act for an organization; for the session's own with `None`.
pub(crate) fn set_organization(response: &mut HttpResponse, organization: Option<OrganizationId>, secure: bool) {
    let (value, lives) = match organization {
        Some(id) => (id.to_string(), Duration::days(DEVICE_DAYS)),
        None => (String::new(), Duration::ZERO),
    };
    add(response, names(secure).organization, &value, lives, secure);
}

/// What the action before tells, for the page after it.
pub(crate) fn toast(http: &HttpRequest, secure: bool) -> Option<String> {
    value(http, names(secure).toast)
}

/// Sets what the next page tells; nothing with an empty text.
pub(crate) fn set_toast(response: &mut HttpResponse, text: &str, secure: bool) {
    let lives = if text.is_empty() { Duration::ZERO } else { Duration::seconds(TOAST_SECONDS) };
    add(response, names(secure).toast, text, lives, secure);
}

/// Sets the cookies of a session.
pub(crate) fn set(response: &mut HttpResponse, tokens: &Tokens, secure: bool) {
    let names = names(secure);
    let access_lives = Duration::seconds(i64::try_from(tokens.expires_in).unwrap_or(0));
    add(response, names.access, tokens.access_token.expose(), access_lives, secure);
    add(response, names.refresh, tokens.refresh_token.expose(), Duration::days(REFRESH_DAYS), secure);
    if let Some(device) = &tokens.device {
        add(response, names.device, device.expose(), Duration::days(DEVICE_DAYS), secure);
    }
}

/// Clears the cookies of the session; the browser stays recognized.
pub(crate) fn clear(response: &mut HttpResponse, secure: bool) {
    let names = names(secure);
    add(response, names.access, "", Duration::ZERO, secure);
    add(response, names.refresh, "", Duration::ZERO, secure);
    set_organization(response, None, secure);
}

fn add(response: &mut HttpResponse, name: &str, value: &str, lives: Duration, secure: bool) {
    let cookie = Cookie::build(name, value)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(secure)
        .max_age(lives)
        .finish();
    if response.add_cookie(&cookie).is_err() {
        tracing::error!("a cookie could not be written");
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_cookie_that_can_t_be_a_token_is_none() {
        let tokens =
            |cookie: &str| read(&TestRequest::default().insert_header(("cookie", cookie)).to_http_request(), false);
        assert_eq!(tokens("callboard_access=a%2Eb; callboard_refresh=c"), (Some("a.b".into()), Some("c".into())));
        assert_eq!(tokens("callboard_access=cb_%00_a; callboard_refresh=%00"), (None, None));
        assert_eq!(tokens("callboard_access="), (None, None));
    }
}
