//! Which git sources are allowed, judged before anything is fetched.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::{FetchError, address::is_public};

/// A repository and what to take of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitSource {
    /// `https://…`.
    pub url: String,
    /// A branch, a tag or a full commit id; default: the repository's default branch.
    pub reference: Option<String>,
}

/// Resolves a host name; tests have their own.
pub type Resolve =
    Arc<dyn Fn(String, u16) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>> + Send + Sync>;

/// The system's resolver.
#[must_use]
pub fn system_resolver() -> Resolve {
    Arc::new(|host, port| Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }))
}

/// A source that may be fetched, with the address pinned for its host.
#[derive(Debug, Clone)]
pub(super) struct Allowed {
    pub(super) url: Url,
    pub(super) reference: Option<String>,
    /// `host:port:address` for curl; none when the host is an address already.
    pub(super) pin: Option<String>,
}

pub(super) async fn allow(source: &GitSource, private: bool, resolve: &Resolve) -> Result<Allowed, FetchError> {
    let url = parse(&source.url, private)?;
    let reference = source.reference.as_deref().map(check_reference).transpose()?.map(str::to_owned);
    let port = url.port_or_known_default().unwrap_or(443);
    let refused = |reason: String| FetchError::Refused { url: shown(&source.url), reason };
    let host = url.host().ok_or_else(|| refused("it names no host".to_owned()))?;
    let check = |address: IpAddr| {
        if private || is_public(address) {
            return Ok(());
        }
        Err(refused(format!(
            "{address} is an address of a private network; sources must be on the public internet \
             (an operator can switch `allow_private_sources` on, for development)"
        )))
    };
    let pin = match host {
        Host::Ipv4(address) => check(address.into()).map(|()| None)?,
        Host::Ipv6(address) => check(address.into()).map(|()| None)?,
        Host::Domain(name) => {
            let found = resolve(name.to_owned(), port).await;
            let addresses = found.map_err(|error| FetchError::Unresolved { host: name.to_owned(), error })?;
            // All of them: which one the client would use is not ours to guess.
            addresses.iter().try_for_each(|address| check(address.ip()))?;
            let preferred = addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first());
            let address = preferred.ok_or_else(|| FetchError::Unresolved {
                host: name.to_owned(),
                error: io::Error::new(io::ErrorKind::NotFound, "it has no address"),
            })?;
            let address = match address.ip() {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            Some(format!("{name}:{port}:{address}"))
        }
    };
    Ok(Allowed { url, reference, pin })
}

fn parse(text: &str, private: bool) -> Result<Url, FetchError> {
    let refused = |reason: &str| FetchError::Refused { url: shown(text), reason: reason.to_owned() };
    if text.is_empty() || text.len() > 2_048 {
        return Err(refused("an address has 1 to 2,048 bytes"));
    }
    if text.starts_with('-') {
        return Err(refused("it begins with `-`, as an option would"));
    }
    // The URL parser would silently drop or change these.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains(['\\', '`', '"', '<', '>']) {
        return Err(refused("it has characters that an address does not have; write them percent-encoded"));
    }
    if text.contains("::") && !text.contains("://") {
        return Err(refused("remote helpers are not allowed; use https://…"));
    }
    let url = Url::parse(text).map_err(|_| refused("it is not an address such as https://github.com/you/app.git"))?;
    match url.scheme() {
        "https" => {}
        "http" if private => {}
        "http" => return Err(refused("http is not encrypted; use https://…")),
        _ => return Err(refused("only https:// is allowed; for other places upload an archive instead")),
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || text.split('/').nth(2).is_some_and(|host| host.contains('@'))
    {
        return Err(refused("it holds a user name or password; only public repositories can be fetched"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused("it has a `?` or `#` part; name a branch or tag by the reference instead"));
    }
    if !private && url.port().is_some() {
        return Err(refused("it names a port; sources are fetched from port 443 only"));
    }
    if url.path().len() < 2 {
        return Err(refused("it names no repository"));
    }
    Ok(url)
}

fn check_reference(reference: &str) -> Result<&str, FetchError> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._/-+@#".contains(letter);
    let good = !reference.is_empty()
        && reference.len() <= 255
        && reference.chars().all(allowed)
        && !reference.starts_with(['-', '+', '/', '.'])
        && !reference.ends_with(['/', '.'])
        && !reference.contains("..")
        && !reference.contains("//")
        && !reference.contains("@{")
        && reference != "@";
    good.then_some(reference).ok_or_else(|| FetchError::BadReference(shown(reference)))
}

/// An address for a log or an error: without what may be a password, and without control characters.
pub(super) fn shown(text: &str) -> String {
    let text: String =
        text.chars().take(200).map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect();
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            let (start, end) = (text.get(..scheme + 3).unwrap_or_default(), text.get(at..).unwrap_or_default());
            format!("{start}…{end}")
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(addresses: &'static [&'static str]) -> Resolve {
        Arc::new(move |_, port| {
            let addresses = addresses.iter().map(|text| SocketAddr::new(text.parse().unwrap(), port)).collect();
            Box::pin(async move { Ok(addresses) })
        })
    }

    async fn allowed(url: &str, addresses: &'static [&'static str]) -> Result<Allowed, FetchError> {
        let source = GitSource { url: url.to_owned(), reference: None };
        allow(&source, false, &resolver(addresses)).await
    }

    #[tokio::test]
    async fn urls_that_are_tricks_are_refused() {
        let tricks = [
            "",
            "-",
            "--upload-pack=touch /tmp/x",
            "--upload-pack=x",
            "-oProxyCommand=x",
            "ext::sh -c id",
            "ext::id",
            "ext::sh%20-c",
            "fd::3",
            "file:///etc",
            "file://localhost/etc",
            "/etc/passwd",
            "./repo",
            "../repo",
            "repo",
            "git@github.com:you/app.git",
            "ssh://git@github.com/you/app.git",
            "git://github.com/you/app.git",
            "ftp://host/x",
            "gopher://host/x",
            "http://github.com/you/app.git",
            "https://",
            "https:///x",
            "https://github.com",
            "https://github.com/",
            "https://user@github.com/a",
            "https://user:pw@github.com/a",
            "https://github.com@127.0.0.1/a",
            "https://@github.com/a",
            "https://:@github.com/a",
            "https://github.com\\@127.0.0.1/a",
            "https://github.com/a b",
            "https://github.com/a\n--upload-pack=x",
            "https://github.com/\ta",
            "https://github.com/a\0",
            "https://github.com:5432/a",
            "https://github.com:22/a",
            "https://github.com:6379/a",
            "https://github.com/a?x=1",
            "https://github.com/a#main",
            "https://github.com/ä",
            "https://gith\u{fc}b.com/a",
            "javascript:alert(1)",
            "data:text/plain,x",
            "transport::https://github.com/a",
            "https::https://github.com/a",
        ];
        for trick in tricks {
            let error = allowed(trick, &["1.1.1.1"]).await.unwrap_err();
            assert!(matches!(error, FetchError::Refused { .. }), "{trick}: {error:?}");
        }
    }

    #[tokio::test]
    async fn private_addresses_are_refused_in_every_form() {
        let forms = [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.1.",
            "0",
            "0.0.0.0",
            "10.1.2.3",
            "192.168.0.1",
            "172.20.1.1",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:ffff:7f00:1]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b::169.254.169.254]",
            "[2002:7f00:1::]",
            "[2002:a9fe:a9fe::]",
            "[fe80::1]",
            "[fd00::1]",
            "[2001:0:1::1]",
            "%31%32%37.0.0.1",
            "①②⑦.⓪.⓪.①",
        ];
        for form in forms {
            let error = allowed(&format!("https://{form}/a"), &["1.1.1.1"]).await.unwrap_err();
            assert!(matches!(error, FetchError::Refused { .. }), "{form}: {error:?}");
        }
    }

    #[tokio::test]
    async fn a_name_with_one_private_address_is_refused() {
        let error = allowed("https://app.example/a", &["1.1.1.1", "127.0.0.1"]).await.unwrap_err();
        assert!(error.to_string().contains("127.0.0.1 is an address of a private network"), "{error}");
        let error = allowed("https://app.example/a", &["::ffff:10.0.0.1"]).await.unwrap_err();
        assert!(matches!(error, FetchError::Refused { .. }));
        assert!(matches!(allowed("https://app.example/a", &[]).await, Err(FetchError::Unresolved { .. })));
    }

    #[tokio::test]
    async fn a_public_name_is_pinned_to_its_address() {
        let source = allowed("https://App.Example/you/app.git", &["2606:50c0::1", "1.1.1.1"]).await.unwrap();
        assert_eq!(source.pin.as_deref(), Some("app.example:443:1.1.1.1"));
        assert_eq!(source.url.as_str(), "https://app.example/you/app.git");
        let source = allowed("https://app.example/a", &["2606:50c0::1"]).await.unwrap();
        assert_eq!(source.pin.as_deref(), Some("app.example:443:[2606:50c0::1]"));
    }

    #[test]
    fn references_are_names_not_options() {
        for good in
            ["main", "v1.2.3", "feature/x_y", "0123456789abcdef0123456789abcdef01234567", "release+1", "fix-#12"]
        {
            assert!(check_reference(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a:b",
            "+a:b",
            "^a",
            "a~1",
            "@{1}",
            "@",
            "a/",
            "/a",
            ".a",
            "a\n",
            "ä",
        ] {
            assert!(check_reference(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(shown("https://me:secret@github.com/a"), "https://…@github.com/a");
    }
}
