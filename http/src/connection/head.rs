//! The head of a request, judged when it is whole and before anything acts on it.
//!
//! Only an unambiguous head is handed on, and a refusal names its reason: a client that gets a bare 400 can't mend
//! anything, and two programs that read the same bytes differently are how requests are smuggled.

use std::mem::MaybeUninit;

use actix_http::{StatusCode, Uri};

use super::{framing::Framing, refusal::Refusal};

/// Most headers; actix-http has the same limit.
const HEADERS: usize = 96;
/// Largest head, in bytes; actix-http has the same limit.
pub(super) const LARGEST: usize = 128 * 1024;

/// The judgement on a head.
pub(super) enum Judgement {
    /// It is not whole yet.
    Partial,
    Whole(Head),
    Refused(Refusal),
}

/// A head that may be handed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its bytes.
    pub(super) length: usize,
    pub(super) framing: Framing,
    /// The client speaks HTTP/1.1, so it understands interim responses.
    pub(super) is_modern: bool,
}

/// Progress of judging a head that arrives in pieces, so that many small pieces cost no more than one.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// There is no empty line before this offset.
    searched: usize,
    /// At this length it is parsed, complete or not, so that a malformed head is refused early.
    parse_at: usize,
}

impl Progress {
    /// Judges the bytes received so far, which may include what follows the head.
    pub(super) fn judge(&mut self, bytes: &[u8]) -> Judgement {
        if bytes.first() == Some(&b'\n') || bytes.starts_with(b"\r\n\r") || bytes.starts_with(b"\r\n\n") {
            return Judgement::Refused(Refusal::bad("the request begins with empty lines"));
        }
        let may_be_whole = bytes.get(self.searched..).is_some_and(has_empty_line);
        if !may_be_whole && bytes.len() < self.parse_at {
            self.searched = bytes.len().saturating_sub(2);
            return Judgement::Partial;
        }
        match judge(bytes) {
            Judgement::Partial if bytes.len() >= LARGEST => Judgement::Refused(Refusal::too_large()),
            Judgement::Partial => {
                self.searched = bytes.len().saturating_sub(2);
                self.parse_at = bytes.len() * 2;
                Judgement::Partial
            }
            judgement => judgement,
        }
    }
}

fn has_empty_line(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|three| matches!(three, [b'\n', b'\r', b'\n'] | [b'\n', b'\n', _] | [_, b'\n', b'\n']))
}

fn judge(bytes: &[u8]) -> Judgement {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Judgement::Partial,
        Err(error) => return Judgement::Refused(why_malformed(error, bytes).answering(bytes)),
    };
    let head = bytes.get(..length).unwrap_or(bytes);
    match check(&request, head) {
        Ok(framing) => Judgement::Whole(Head { length, framing, is_modern: request.version == Some(1) }),
        Err(refusal) => Judgement::Refused(refusal.answering(bytes)),
    }
}

/// The framing of an unambiguous head.
fn check(request: &httparse::Request<'_, '_>, head: &[u8]) -> Result<Framing, Refusal> {
    let lines = head.split_inclusive(|byte| *byte == b'\n');
    if !lines.into_iter().all(|line| line.ends_with(b"\r\n")) {
        return Err(Refusal::bad("a line of the request's head ends with a bare line feed; each ends with CRLF"));
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    check_target(target)?;
    let is_modern = request.version == Some(1);
    let (mut host, mut length, mut is_chunked, mut is_websocket) = (None, None, false, false);
    for header in request.headers.iter() {
        let (name, value) = (header.name, header.value);
        if name.eq_ignore_ascii_case("host") {
            check_host(value)?;
            if host.replace(value).is_some() {
                return Err(Refusal::bad("there are two Host headers"));
            }
        } else if name.eq_ignore_ascii_case("content-length") {
            if length.replace(content_length(value)?).is_some() {
                return Err(Refusal::bad("there are two Content-Length headers"));
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if std::mem::replace(&mut is_chunked, true) || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::bad("the only Transfer-Encoding that is taken is chunked, once"));
            }
        } else if name.eq_ignore_ascii_case("upgrade") {
            is_websocket |= value.eq_ignore_ascii_case(b"websocket");
        }
    }
    if host.is_none() && is_modern {
        return Err(Refusal::bad("an HTTP/1.1 request needs a Host header"));
    }
    if is_chunked && length.is_some() {
        return Err(Refusal::bad("a body has either a Content-Length or a Transfer-Encoding, not both"));
    }
    if is_chunked && !is_modern {
        return Err(Refusal::bad("HTTP/1.0 has no Transfer-Encoding"));
    }
    if length.is_none() && method == "POST" && !is_modern {
        return Err(Refusal::new(StatusCode::LENGTH_REQUIRED, "a POST of HTTP/1.0 needs a Content-Length"));
    }
    // In actix-http's order of precedence.
    Ok(match length {
        _ if is_chunked => Framing::CHUNKED,
        _ if is_websocket || method == "CONNECT" => Framing::Stream,
        None | Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
    })
}

fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    let digits = Some(value).filter(|value| !value.is_empty() && value.iter().all(u8::is_ascii_digit));
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    number.ok_or_else(|| Refusal::bad("the Content-Length is not one number"))
}

/// Refuses a target that actix-http can't parse: it would answer without a reason.
fn check_target(target: &str) -> Result<(), Refusal> {
    if let Some(refusal) = forbidden_in_target(target.as_bytes()) {
        return Err(refusal);
    }
    if target.len() > usize::from(u16::MAX) - 1 {
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "the request target is longer than 65,534 bytes"));
    }
    if target.starts_with('/') {
        return Ok(());
    }
    let uri: Uri = target.parse().map_err(|_| {
        Refusal::bad("the request target is neither a path that begins with / nor an address such as http://host/path")
    })?;
    match uri.authority() {
        Some(authority) => check_host(authority.as_str().as_bytes()),
        None => Ok(()),
    }
}

/// The first byte that a URL may hold only percent-encoded.
fn forbidden_in_target(target: &[u8]) -> Option<Refusal> {
    let mut in_query = false;
    for (at, byte) in target.iter().enumerate() {
        let is_allowed = match byte {
            b'?' => {
                in_query = true;
                true
            }
            b'<' | b'>' | 0..=b' ' | 0x7f.. => false,
            b'`' => in_query,
            b'"' => !in_query,
            _ => true,
        };
        if !is_allowed {
            let place = at + 1;
            let reason =
                format!("byte {place} of the request target, 0x{byte:02X}, must be percent-encoded: write %{byte:02X}");
            return Some(Refusal::bad(reason));
        }
    }
    None
}

/// Accepts only `host` or `host:port`: the router and an app could read anything else as different hosts.
fn check_host(value: &[u8]) -> Result<(), Refusal> {
    let is_host = match value.strip_prefix(b"[") {
        Some(rest) => {
            let end = rest.iter().position(|byte| *byte == b']').unwrap_or(0);
            let (address, port) = rest.split_at(end);
            let is_address = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            !address.is_empty() && address.iter().all(is_address) && port.strip_prefix(b"]").is_some_and(is_port)
        }
        None => {
            let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
            let (name, port) = value.split_at(end);
            let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
            name.iter().all(is_plain) && is_port(port)
        }
    };
    if is_host {
        return Ok(());
    }
    Err(Refusal::bad(
        "the host is not a name or an address, with a port or without; other alphabets are written as xn--…",
    ))
}

/// Nothing, or a colon and digits.
fn is_port(text: &[u8]) -> bool {
    match text.strip_prefix(b":") {
        Some(digits) => digits.iter().all(u8::is_ascii_digit),
        None => text.is_empty(),
    }
}

/// What is wrong with a malformed head.
fn why_malformed(error: httparse::Error, bytes: &[u8]) -> Refusal {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            Refusal::new(status, format!("the request has more than {HEADERS} headers"))
        }
        Error::HeaderName => {
            Refusal::bad("a header is malformed: each is one line, with a name, a colon right behind it, and a value")
        }
        Error::HeaderValue => Refusal::bad("the value of a header holds a byte that no header may hold"),
        Error::NewLine => Refusal::bad("a line of the request's head does not end with CRLF"),
        Error::Status | Error::Token | Error::Version => why_no_request_line(bytes),
    }
}

fn why_no_request_line(bytes: &[u8]) -> Refusal {
    if bytes.first() == Some(&0x16) {
        return Refusal::bad(
            "this port speaks HTTP without TLS: use http://, or the address of the proxy that adds TLS",
        );
    }
    let line = bytes.trim_ascii_start().split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    match words.as_slice() {
        [_, target, version] if version.starts_with(b"HTTP/") => match forbidden_in_target(target) {
            Some(refusal) => refusal,
            None if matches!(*version, b"HTTP/1.1" | b"HTTP/1.0") => Refusal::bad("the request's method is no method"),
            None => Refusal::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "this port speaks HTTP/1.1 and HTTP/1.0"),
        },
        [_, target @ .., version] if target.len() > 1 && version.starts_with(b"HTTP/") => {
            Refusal::bad("there is a space in the request target, where it must be percent-encoded: write %20")
        }
        _ => Refusal::bad("the request does not begin with a line such as: GET /path HTTP/1.1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Judgement {
        Progress::default().judge(text.as_bytes())
    }

    fn framing(text: &str) -> Framing {
        match judged(text) {
            Judgement::Whole(head) => head.framing,
            Judgement::Partial => panic!("partial: {text:?}"),
            Judgement::Refused(refusal) => panic!("{refusal:?}: {text:?}"),
        }
    }

    fn refusal(text: &[u8]) -> (u16, String) {
        match Progress::default().judge(text) {
            Judgement::Refused(refusal) => (refusal.status.as_u16(), refusal.reason.into_owned()),
            _ => panic!("not refused: {:?}", String::from_utf8_lossy(text)),
        }
    }

    #[test]
    fn the_framing_is_what_the_head_says() {
        let get = |fields: &str| format!("GET /a?b=c HTTP/1.1\r\nHost: a.localhost:8080\r\n{fields}\r\n");
        assert_eq!(framing(&get("")), Framing::None);
        assert_eq!(framing(&get("Content-Length: 0\r\n")), Framing::None);
        assert_eq!(framing(&get("content-length: 7\r\n")), Framing::Length(7));
        assert_eq!(framing(&get("Transfer-Encoding: Chunked\r\n")), Framing::CHUNKED);
        assert_eq!(framing(&get("Connection: upgrade\r\nUpgrade: WebSocket\r\n")), Framing::Stream);
        assert_eq!(framing("CONNECT a.localhost:80 HTTP/1.1\r\nHost: a.localhost:80\r\n\r\n"), Framing::Stream);
        assert_eq!(framing("GET http://a.localhost/x HTTP/1.0\r\n\r\n"), Framing::None);
        assert_eq!(framing("\r\nOPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), Framing::None);
    }

    #[test]
    fn a_head_in_pieces_is_whole_with_its_last_byte_and_not_before() {
        let text = "GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n";
        let mut progress = Progress::default();
        for end in 1..text.len() {
            assert!(matches!(progress.judge(&text.as_bytes()[..end]), Judgement::Partial), "{end}");
        }
        let Judgement::Whole(head) = progress.judge(format!("{text}GET").as_bytes()) else { panic!("not whole") };
        assert_eq!(head.length, text.len());
    }

    #[test]
    fn every_refusal_says_why() {
        let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
        let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").into_bytes();
        let host = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
        let many: String = (0..=HEADERS).map(|number| format!("X-{number}: 1\r\n")).collect();
        for (text, status, reason) in [
            (get("/caf\u{e9}"), 400, "byte 5 of the request target, 0xC3, must be percent-encoded: write %C3"),
            (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 400, "0xFF"),
            (get("/a b"), 400, "write %20"),
            (get("/<x>"), 400, "write %3C"),
            (get("/?\""), 400, "write %22"),
            (get("a/b"), 400, "begins with /"),
            (get("http://user@localhost/"), 400, "the host is not a name"),
            (get(&format!("/{}", "a".repeat(70_000))), 414, "longer than"),
            (b"GET / HTTP/2.0\r\n\r\n".to_vec(), 505, "HTTP/1.1"),
            (b"hello\r\n\r\n".to_vec(), 400, "GET /path HTTP/1.1"),
            (b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), 400, "without TLS"),
            (host("hello.localhost/path"), 400, "the host is not"),
            (host("hello.localhost?x"), 400, "the host is not"),
            (host("user@hello.localhost"), 400, "the host is not"),
            (host("a b"), 400, "the host is not"),
            (host("\u{fc}.localhost"), 400, "xn--"),
            (host("localhost:80a"), 400, "the host is not"),
            (host("[::1]x"), 400, "the host is not"),
            (b"GET / HTTP/1.1\r\nHost: localhost\nX: 1\r\n\r\n".to_vec(), 400, "bare line feed"),
            (b"GET / HTTP/1.1\nHost: localhost\n\n".to_vec(), 400, "bare line feed"),
            (b"\r\n\r\nGET / HTTP/1.1\r\n".to_vec(), 400, "empty lines"),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400, "needs a Host"),
            (with("Host: localhost\r\n"), 400, "two Host"),
            (with("Content-Length: 4\r\nContent-Length: 4\r\n"), 400, "two Content-Length"),
            (with("Content-Length: +4\r\n"), 400, "not one number"),
            (with("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"), 400, "not both"),
            (with("Transfer-Encoding: gzip, chunked\r\n"), 400, "chunked, once"),
            (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400, "chunked, once"),
            (with("X-Fold: a\r\n b\r\n"), 400, "one line"),
            (with("X-Nul: \0\r\n"), 400, "no header may hold"),
            (with(&many), 431, "more than 96"),
            (b"POST / HTTP/1.0\r\n\r\n".to_vec(), 411, "Content-Length"),
            (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), 400, "HTTP/1.0"),
            (with(&format!("X-Large: {}", "a".repeat(LARGEST))), 431, "larger than"),
        ] {
            let text_shown = String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned();
            let (answered, said) = refusal(&text);
            assert!(answered == status && said.contains(reason), "{text_shown:?}: {answered} {said}");
        }
    }
}
