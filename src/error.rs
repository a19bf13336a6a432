//! What a verb ends in when it fails: a sentence, a hint, and the exit status that scripts read.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use crate::output::{Output, complain};

/// The exit statuses of the binary. They are part of its interface: `docs/cli.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It was tried and it failed, or it was refused.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// No credentials, or none that are valid.
    NotSignedIn = 3,
    /// No node answers.
    Unreachable = 4,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

impl Status {
    /// The kind of failure where the node has not named one.
    const fn code(self) -> &'static str {
        match self {
            Self::Failure => "failed",
            Self::Usage => "usage",
            Self::NotSignedIn => "unauthenticated",
            Self::Unreachable => "unreachable",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A failure as the user reads it.
#[derive(Debug)]
pub struct Error {
    /// For scripts.
    pub status: Status,
    /// What is wrong, without a full stop. Empty when all has been said already.
    pub sentence: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The kind of failure, as the node names it; default: from the status.
    pub code: Option<String>,
    /// By this the node's log names the request.
    pub request_id: Option<String>,
    /// What a failed verb has to show all the same. With `--json` the failure is written into it.
    pub document: Option<Box<Value>>,
}

/// The outcome of a verb.
pub type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    /// A failure of this kind.
    pub fn new(status: Status, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into(), hint: None, code: None, request_id: None, document: None }
    }

    /// It was tried and it failed.
    pub fn failure(sentence: impl Into<String>) -> Self {
        Self::new(Status::Failure, sentence)
    }

    /// The command line or the configuration is wrong.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::new(Status::Usage, sentence)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what there is to show all the same.
    #[must_use]
    pub fn showing(mut self, document: &impl Serialize) -> Self {
        self.document = serde_json::to_value(document).ok().map(Box::new);
        self
    }

    /// What `--json` prints: an object has the member `error`; any other document says what is wrong itself.
    pub fn as_json(&self) -> Value {
        let error = json!({
            "message": self.sentence,
            "code": self.code.as_deref().unwrap_or(self.status.code()),
            "hint": self.hint,
            "request_id": self.request_id,
        });
        match self.document.as_deref() {
            Some(Value::Object(fields)) => {
                let mut fields = fields.clone();
                fields.insert("error".to_owned(), error);
                Value::Object(fields)
            }
            Some(document) => document.clone(),
            None => json!({ "error": error }),
        }
    }

    /// Says it on standard error, and with `--json` as one line on standard output too: a stream ends with it.
    pub fn report(&self, json: bool) -> ExitCode {
        if !self.sentence.is_empty() {
            complain(&format!("error: {}", self.sentence));
        }
        if let Some(hint) = &self.hint {
            complain(&format!("hint: {hint}"));
        }
        if json {
            Output::new(json).json_line(&self.as_json());
        }
        ExitCode::from(self.status as u8)
    }
}

/// Turns a failure of the operating system into a sentence: `could not <what>: <cause>`.
pub trait Context<T> {
    /// Says what was tried.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::failure(format!("could not {}: {error}", what())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_written_into_what_there_is_to_show() {
        let error = Error::failure("it failed").hint("mend it");
        assert_eq!(error.as_json()["error"]["message"], "it failed");
        assert_eq!(error.as_json()["error"]["code"], "failed");
        let with_fields = Error::failure("it failed").showing(&json!({ "id": 1, "error": "it failed" })).as_json();
        assert_eq!((&with_fields["id"], &with_fields["error"]["message"]), (&json!(1), &json!("it failed")));
        assert_eq!(Error::failure("see above").showing(&json!([1])).as_json(), json!([1]));
    }
}
