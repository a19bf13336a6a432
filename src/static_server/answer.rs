//! Answers with a file: whole, a part of it, or the news that it has not changed (RFC 9110, sections 13 and 14).

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    body::SizedStream,
    http::{
        Method, StatusCode,
        header::{
            self, AcceptEncoding, ContentRange, ContentRangeSpec, Encoding, EntityTag, IfMatch, IfNoneMatch, IfRange,
            Range,
        },
    },
    web::{self, Bytes},
};
use futures_util::{Stream, stream};

use super::representation::{Body, Representation};

/// How much of a file is read at a time.
const PIECE: u64 = 64 * 1024;

/// What a request wants of a file.
#[derive(Debug, Clone)]
pub struct Wanted {
    encodings: Option<AcceptEncoding>,
    /// A part of the file as it is: parts of what is compressed are of no use to anybody.
    part: bool,
}

impl Wanted {
    pub fn of(request: &HttpRequest) -> Self {
        Self { encodings: request.get_header(), part: request.headers().contains_key(header::RANGE) }
    }

    /// The same of a file that stands in for another one: all of it.
    pub fn whole(&self) -> Self {
        Self { part: false, ..self.clone() }
    }

    /// Whether a file may be answered in this encoding.
    pub fn accepts(&self, encoding: &str) -> bool {
        let Ok(encoding) = encoding.parse::<Encoding>() else { return false };
        let best = |accepted: &AcceptEncoding| accepted.negotiate([&encoding, &Encoding::identity()].into_iter());
        !self.part && self.encodings.as_ref().and_then(best) == Some(encoding)
    }
}

/// Answers a request with what it may get of a file.
pub fn whole_or_part(request: &HttpRequest, status: StatusCode, file: Representation) -> HttpResponse {
    // The conditions are about what was asked for, and the page that says that it is not there is something else.
    let conditional = status == StatusCode::OK;
    if conditional && !may_be_this(request, file.tag.as_ref()) {
        return with_head(StatusCode::PRECONDITION_FAILED, &file).finish();
    }
    if conditional && is_known(request, file.tag.as_ref()) {
        return with_head(StatusCode::NOT_MODIFIED, &file).finish();
    }
    let part = if conditional { part(request, &file) } else { Part::Whole };
    let (from, length, mut answer) = match part {
        Part::Whole => (0, file.length, with_head(status, &file)),
        Part::Bytes(from, to) => {
            let spec = ContentRangeSpec::Bytes { range: Some((from, to)), instance_length: Some(file.length) };
            let mut answer = with_head(StatusCode::PARTIAL_CONTENT, &file);
            answer.insert_header(ContentRange(spec));
            (from, to - from + 1, answer)
        }
        Part::None => {
            let spec = ContentRangeSpec::Bytes { range: None, instance_length: Some(file.length) };
            return with_head(StatusCode::RANGE_NOT_SATISFIABLE, &file).insert_header(ContentRange(spec)).finish();
        }
    };
    answer.content_type(file.content_type);
    if let Some(encoding) = file.encoding {
        answer.insert_header((header::CONTENT_ENCODING, encoding));
    }
    match file.body {
        Body::Bytes(bytes) => {
            let (from, to) = (usize::try_from(from), usize::try_from(from.saturating_add(length)));
            let range = from.unwrap_or(usize::MAX)..to.unwrap_or(usize::MAX);
            match range.start <= range.end && range.end <= bytes.len() {
                true => answer.body(bytes.slice(range)),
                false => HttpResponse::InternalServerError().finish(),
            }
        }
        Body::File(file) => answer.body(SizedStream::new(length, Box::pin(pieces(file, from, length)))),
    }
}

/// The fields that the news of a file have as well as the file.
fn with_head(status: StatusCode, file: &Representation) -> actix_web::HttpResponseBuilder {
    let mut answer = HttpResponse::build(status);
    answer.insert_header((header::CACHE_CONTROL, file.cache_control));
    if let Some(tag) = &file.tag {
        answer.insert_header(header::ETag(tag.clone()));
    }
    if file.varies {
        answer.insert_header((header::VARY, "Accept-Encoding"));
    }
    if file.encoding.is_none() {
        answer.insert_header((header::ACCEPT_RANGES, "bytes"));
    }
    answer
}

/// `If-Match`.
fn may_be_this(request: &HttpRequest, tag: Option<&EntityTag>) -> bool {
    match request.get_header::<IfMatch>() {
        Some(IfMatch::Items(tags)) => tag.is_some_and(|tag| tags.iter().any(|known| known.strong_eq(tag))),
        Some(IfMatch::Any) | None => true,
    }
}

/// `If-None-Match`.
fn is_known(request: &HttpRequest, tag: Option<&EntityTag>) -> bool {
    match request.get_header::<IfNoneMatch>() {
        Some(IfNoneMatch::Any) => true,
        Some(IfNoneMatch::Items(tags)) => tag.is_some_and(|tag| tags.iter().any(|known| known.weak_eq(tag))),
        None => false,
    }
}

enum Part {
    Whole,
    /// From and to, both of them in it.
    Bytes(u64, u64),
    /// There is no such part.
    None,
}

/// `Range`, unless `If-Range` names another file. Several parts at once are answered with the whole.
fn part(request: &HttpRequest, file: &Representation) -> Part {
    let same = match request.headers().contains_key(header::IF_RANGE).then(|| request.get_header::<IfRange>()) {
        None => true,
        Some(Some(IfRange::EntityTag(known))) => file.tag.as_ref().is_some_and(|tag| known.strong_eq(tag)),
        // A file has no date.
        Some(Some(IfRange::Date(_)) | None) => false,
    };
    if request.method() != Method::GET || !same || file.encoding.is_some() {
        return Part::Whole;
    }
    match request.get_header::<Range>() {
        Some(Range::Bytes(ranges)) => match ranges.as_slice() {
            [range] => range.to_satisfiable_range(file.length).map_or(Part::None, |(from, to)| Part::Bytes(from, to)),
            _ => Part::Whole,
        },
        _ => Part::Whole,
    }
}

/// So many bytes of a file from here on, piece by piece.
fn pieces(file: Arc<File>, from: u64, length: u64) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((from, length), move |(at, left)| piece(file.clone(), at, left))
}

async fn piece(file: Arc<File>, at: u64, left: u64) -> io::Result<Option<(Bytes, (u64, u64))>> {
    if left == 0 {
        return Ok(None);
    }
    let length = left.min(PIECE);
    let read = web::block(move || -> io::Result<Bytes> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes.into())
    });
    let bytes = read.await.map_err(io::Error::other)??;
    Ok(Some((bytes, (at + length, left - length))))
}
