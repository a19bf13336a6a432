//! Forms: read from a request, and shown again with what is wrong in them.

use std::collections::{BTreeMap, HashMap};

use actix_web::http::header;
use callboard_messages::OrganizationId;
use serde::Serialize;
use url::form_urlencoded;
use uuid::Uuid;

use crate::{
    message,
    problem::Problem,
    session::{self, origin},
    worker::Request,
};

/// What a form may hold. Fields are counted apart from bytes: a field can be two bytes long, and costs much more than
/// that to keep and to show again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    pub(crate) bytes: usize,
    pub(crate) fields: usize,
}

/// A form of a few short fields.
pub(super) const SHORT: Most = Most { bytes: 16 * 1024, fields: 64 };
/// The hidden field that is the same however often a form is sent.
const ATTEMPT: &str = "attempt";
/// The hidden field that names the organization for which the page was shown.
const ORGANIZATION: &str = "organization";

/// The fields of a form, in the order in which they were sent.
#[derive(Debug, Default, Clone)]
pub(crate) struct Form {
    pairs: Vec<(String, String)>,
    /// Where the first field of each name is.
    places: HashMap<String, usize>,
}

impl Form {
    /// Reads a form that one of our own pages sent.
    pub(super) async fn read(request: &mut Request, most: Most) -> Result<Self, Problem> {
        if !origin::is_own(&request.http, &request.worker) {
            return Err(session::foreign_page());
        }
        let content_type = request.http.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !content_type.is_some_and(|value| value.starts_with("application/x-www-form-urlencoded")) {
            return Err(message::unsupported("application/x-www-form-urlencoded"));
        }
        let settings = &request.worker.shared.settings;
        let body = message::read_body(&request.http, &mut request.payload, most.bytes, settings).await?;
        Self::parse(&body, most.fields)
    }

    /// From its text, which may hold at most `most` fields.
    pub(super) fn parse(body: &[u8], most: usize) -> Result<Self, Problem> {
        let pairs: Vec<_> = form_urlencoded::parse(body).into_owned().take(most + 1).collect();
        if pairs.len() > most {
            return Err(Problem::invalid(format!("the form has more than {most} fields")));
        }
        Self::of(pairs)
    }

    /// From fields that were read otherwise.
    pub(super) fn of(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        if !pairs.iter().all(|(name, value)| message::is_storable(name) && message::is_storable(value)) {
            return Err(Problem::invalid(message::UNSTORABLE_SENTENCE));
        }
        let mut places = HashMap::with_capacity(pairs.len());
        for (place, (name, _)) in pairs.iter().enumerate() {
            places.entry(name.clone()).or_insert(place);
        }
        Ok(Self { pairs, places })
    }

    /// A field's text; empty when it was not sent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.places.get(name).and_then(|place| self.pairs.get(*place)).map_or("", |(_, value)| value)
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

    /// The organization for which the page was shown, if the form names it.
    pub(super) fn organization(&self) -> Option<OrganizationId> {
        self.text(ORGANIZATION).parse().ok()
    }

    /// The form as it was filled in, to be shown again with a refusal. A detail that begins with a field's name in back
    /// quotes is shown at that field, any other at `field`, or above the form.
    pub(crate) fn refused(&self, problem: &Problem, field: Option<&str>) -> FormView {
        let named = problem.detail.strip_prefix('`').and_then(|rest| rest.split_once("`: "));
        let named = named.filter(|(name, _)| self.places.contains_key(*name));
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
        let form = Form::parse(b"name=shop&memory=x", 2).unwrap();
        let named = form.refused(&Problem::invalid("`memory`: a whole number"), Some("name"));
        assert_eq!(named.errors.get("memory").map(String::as_str), Some("a whole number"));
        let blamed = form.refused(&Problem::invalid("the name is taken"), Some("name"));
        assert_eq!(blamed.errors.get("name").map(String::as_str), Some("the name is taken"));
        let whole = form.refused(&Problem::invalid("`other`: nothing of ours"), None);
        assert_eq!((whole.error.as_deref(), whole.errors.len()), (Some("`other`: nothing of ours"), 0));
        assert_eq!(whole.values.get("name").map(String::as_str), Some("shop"));
    }

    #[test]
    fn a_form_of_countless_fields_is_refused_before_they_are_kept() {
        let refused = Form::parse("a&".repeat(500_000).as_bytes(), 64).unwrap_err();
        assert_eq!(refused.detail, "the form has more than 64 fields");
        let form = Form::parse(b"a=1&a=2&b=3", 3).unwrap();
        assert_eq!((form.text("a"), form.text("b"), form.text("c")), ("1", "3", ""), "the first of a name counts");
    }

    #[test]
    fn what_is_only_white_space_was_not_given() {
        let form = Form::parse(b"a=+&b=+x+&n=7&m=seven", 4).unwrap();
        assert_eq!((form.given("a"), form.given("b"), form.given("c")), (None, Some("x".to_owned()), None));
        assert_eq!(form.number::<u32>("n", "a number").unwrap(), Some(7));
        assert_eq!(form.number::<u32>("m", "a number").unwrap_err().detail, "`m`: a number");
    }
}
