//! The pages' session: two cookies that no script can read and no other host gets.

use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite, time::Duration},
};
use callboard_messages::auth::Tokens;

/// As long as a refresh token lives.
const REFRESH_DAYS: i64 = 7;

/// `__Host-` makes browsers insist on TLS, on this host alone and on the whole path: an app on a subdomain can't plant
/// such a cookie. Without TLS they would refuse it.
const fn names(secure: bool) -> (&'static str, &'static str) {
    if secure {
        ("__Host-callboard_access", "__Host-callboard_refresh")
    } else {
        ("callboard_access", "callboard_refresh")
    }
}

/// The access and the refresh token.
pub(crate) fn read(http: &HttpRequest, secure: bool) -> (Option<String>, Option<String>) {
    let (access, refresh) = names(secure);
    let value = |name| http.cookie(name).map(|cookie| cookie.value().to_owned()).filter(|value| !value.is_empty());
    (value(access), value(refresh))
}

/// Signs the browser in.
pub(crate) fn set(response: &mut HttpResponse, tokens: &Tokens, secure: bool) {
    let (access, refresh) = names(secure);
    let access_lives = Duration::seconds(i64::try_from(tokens.expires_in).unwrap_or(0));
    add(response, access, tokens.access_token.expose(), access_lives, secure);
    add(response, refresh, tokens.refresh_token.expose(), Duration::days(REFRESH_DAYS), secure);
}

/// Signs the browser out.
pub(crate) fn clear(response: &mut HttpResponse, secure: bool) {
    let (access, refresh) = names(secure);
    add(response, access, "", Duration::ZERO, secure);
    add(response, refresh, "", Duration::ZERO, secure);
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
