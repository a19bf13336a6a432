//! What the page after an action tells: a cookie that is shown once.

use std::borrow::Cow;

use actix_web::HttpResponse;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;

use crate::{session::cookies, worker::Request};

/// Characters of a sentence that a cookie carries.
const LONGEST: usize = 600;

/// A sentence about what was just done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Toast {
    /// `done` or `refused`.
    kind: &'static str,
    sentence: Cow<'static, str>,
}

impl Toast {
    pub(super) fn done(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: "done", sentence: sentence.into() }
    }

    pub(super) fn refused(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: "refused", sentence: sentence.into() }
    }

    /// What the action before left.
    pub(super) fn of(request: &Request) -> Option<Self> {
        Self::parse(&cookies::toast(&request.http, request.worker.secure())?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, sentence) = text.split_once('.')?;
        let kind = ["done", "refused"].into_iter().find(|known| *known == kind)?;
        let sentence = percent_decode_str(sentence).decode_utf8().ok()?.into_owned();
        Some(Self { kind, sentence: sentence.into() })
    }

    fn text(&self) -> String {
        let sentence: String = self.sentence.chars().take(LONGEST).collect();
        format!("{}.{}", self.kind, utf8_percent_encode(&sentence, NON_ALPHANUMERIC))
    }

    pub(super) fn put(&self, request: &Request, response: &mut HttpResponse) {
        cookies::set_toast(response, &self.text(), request.worker.secure());
    }

    /// It is shown once.
    pub(super) fn clear(request: &Request, response: &mut HttpResponse) {
        if cookies::toast(&request.http, request.worker.secure()).is_some() {
            cookies::set_toast(response, "", request.worker.secure());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_comes_back_as_it_was() {
        for sentence in ["Saved.", "50 % of \"it\"; = ü\n<b>", ""] {
            let toast = Toast::refused(sentence);
            assert_eq!(Toast::parse(&toast.text()), Some(toast));
        }
        assert_eq!(Toast::parse("other.x"), None);
        assert_eq!(Toast::parse("nothing"), None);
    }
}
