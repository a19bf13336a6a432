//! Forms: read from a request, and shown again with what is wrong in them.

use std::collections::BTreeMap;

use actix_web::http::header;
use serde::Serialize;
use url::form_urlencoded;
use uuid::Uuid;

use crate::{
    message,
    problem::Problem,
    session::{self, origin},
    worker::Request,
};

/// Largest form of a few short fields, in bytes.
pub(super) const SHORT: usize = 16 * 1024;
/// The hidden field that is the same however often a form is sent.
const ATTEMPT: &str = "attempt";

/// The fields of a form, in the order in which they were sent.
#[derive(Debug, Default, Clone)]
pub(crate) struct Form {
    pairs: Vec<(String, String)>,
}

impl Form {
    /// Reads a form that one of our own pages sent.
    pub(super) async fn read(request: &mut Request, limit: usize) -> Result<Self, Problem> {
        if !origin::is_own(&request.http, &request.worker) {
            return Err(session::foreign_page());
        }
        let content_type = request.http.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !content_type.is_some_and(|value| value.starts_with("application/x-www-form-urlencoded")) {
            return Err(message::unsupported("application/x-www-form-urlencoded"));
        }
        let settings = &request.worker.shared.settings;
        let body = message::read_body(&request.http, &mut request.payload, limit, settings).await?;
        Self::parse(&body)
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        Self::of(form_urlencoded::parse(body).into_owned().collect())
    }

    /// From fields that were read otherwise.
    pub(super) fn of(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        if pairs.iter().all(|(name, value)| message::is_storable(name) && message::is_storable(value)) {
            return Ok(Self { pairs });
        }
        Err(Problem::invalid(message::UNSTORABLE_SENTENCE))
    }

    /// A field's text; empty when it was not sent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.pairs.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// A field's text without the white space around it, if there is any.
    pub(crate) fn given(&self, name: &str) -> Option<String> {
        let text = self.text(name).trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A number, if one was given.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str, sentence: &str) -> Result<Option<T>, Problem> {
        let parse = |text: String| text.parse().map_err(|_| Problem::invalid(format!("`{name}`: {sentence}")));
        self.given(name).map(parse).transpose()
    }

    /// Whether a box is ticked.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }

    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.pairs
    }

    /// What makes this form the same one when it is sent again.
    pub(crate) fn attempt(&self) -> Option<Uuid> {
        self.text(ATTEMPT).parse().ok()
    }

    /// The form as it was filled in, to be shown again with a refusal. A detail that begins with a field's name in back
    /// quotes is shown at that field, any other at `field`, or above the form.
    pub(crate) fn refused(&self, problem: &Problem, field: Option<&str>) -> FormView {
        let named = problem.detail.strip_prefix('`').and_then(|rest| rest.split_once("`: "));
        let named = named.filter(|(name, _)| self.pairs.iter().any(|(known, _)| known == name));
        let (field, sentence) = match (named, field) {
            (Some((name, sentence)), _) => (Some(name), sentence),
            (None, field) => (field, problem.detail.as_ref()),
        };
        let mut view = FormView { values: self.pairs.iter().cloned().collect(), ..FormView::blank() };
        // A refusal had no effect, so that the next try may be another.
        match field {
            Some(field) => drop(view.errors.insert(field.to_owned(), sentence.to_owned())),
            None => view.error = Some(sentence.to_owned()),
        }
        view
    }
}

/// A form as a template shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FormView {
    /// Text by field.
    pub(crate) values: BTreeMap<String, String>,
    /// What is wrong with a field.
    pub(crate) errors: BTreeMap<String, String>,
    /// What is wrong with all of it.
    pub(crate) error: Option<String>,
    pub(crate) attempt: Uuid,
}

impl FormView {
    pub(crate) fn blank() -> Self {
        Self { values: BTreeMap::new(), errors: BTreeMap::new(), error: None, attempt: Uuid::now_v7() }
    }

    /// With these texts in its fields.
    pub(crate) fn filled<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let values = pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { values, ..Self::blank() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_shown_at_the_field_that_it_names() {
        let form = Form::parse(b"name=shop&memory=x").unwrap();
        let named = form.refused(&Problem::invalid("`memory`: a whole number"), Some("name"));
        assert_eq!(named.errors.get("memory").map(String::as_str), Some("a whole number"));
        let blamed = form.refused(&Problem::invalid("the name is taken"), Some("name"));
        assert_eq!(blamed.errors.get("name").map(String::as_str), Some("the name is taken"));
        let whole = form.refused(&Problem::invalid("`other`: nothing of ours"), None);
        assert_eq!((whole.error.as_deref(), whole.errors.len()), (Some("`other`: nothing of ours"), 0));
        assert_eq!(whole.values.get("name").map(String::as_str), Some("shop"));
    }

    #[test]
    fn what_is_only_white_space_was_not_given() {
        let form = Form::parse(b"a=+&b=+x+&n=7&m=seven").unwrap();
        assert_eq!((form.given("a"), form.given("b"), form.given("c")), (None, Some("x".to_owned()), None));
        assert_eq!(form.number::<u32>("n", "a number").unwrap(), Some(7));
        assert_eq!(form.number::<u32>("m", "a number").unwrap_err().detail, "`m`: a number");
    }
}
