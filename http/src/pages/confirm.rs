//! The page that asks before something goes, and names what goes. A script shows its form as a dialog.

use actix_web::HttpResponse;
use serde::Serialize;

use super::{form::FormView, request::PageRequest};
use crate::problem::Problem;

/// What is asked.
#[derive(Debug, Serialize)]
pub(super) struct Confirm {
    /// What is about to happen, such as `Delete the app shop?`.
    pub(super) title: String,
    /// What goes, one line each.
    pub(super) goes: Vec<String>,
    /// What stays, or what can be done instead.
    pub(super) note: Option<String>,
    /// The address that does it.
    pub(super) action: String,
    /// What the button says.
    pub(super) button: &'static str,
    /// Hidden fields.
    pub(super) fields: Vec<(&'static str, String)>,
    /// What must be typed first.
    pub(super) typed: Option<String>,
    /// Where to go back to.
    pub(super) back: String,
    pub(super) form: FormView,
}

impl Confirm {
    pub(super) fn of(title: impl Into<String>, action: impl Into<String>, button: &'static str) -> Self {
        Self {
            title: title.into(),
            goes: Vec::new(),
            note: None,
            action: action.into(),
            button,
            fields: Vec::new(),
            typed: None,
            back: "/".to_owned(),
            form: FormView::blank(),
        }
    }

    pub(super) fn goes(mut self, what: impl Into<String>) -> Self {
        self.goes.push(what.into());
        self
    }

    pub(super) fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    pub(super) fn back(self, back: impl Into<String>) -> Self {
        Self { back: back.into(), ..self }
    }

    pub(super) fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Takes effect only when this is typed.
    pub(super) fn typed(self, text: impl Into<String>) -> Self {
        Self { typed: Some(text.into()), ..self }
    }

    pub(super) async fn show(self, request: &PageRequest) -> Result<HttpResponse, Problem> {
        request.render("confirm.html", &self).await
    }
}
