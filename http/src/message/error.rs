//! Why a message can't be read: a sentence in the words of JSON, which names the field.

use std::fmt;

use serde::de::{self, Expected, Unexpected};
use serde_json::Value;

use super::shortened;
use crate::problem::Problem;

/// What does not fit, and where.
#[derive(Debug)]
pub(crate) struct Error {
    sentence: String,
    /// Whether the sentence says where.
    is_located: bool,
}

impl Error {
    /// No field of the message has this name.
    pub(super) fn unknown(path: &Path<'_>, is_text: bool) -> Self {
        let what = if is_text { "parameter" } else { "field" };
        let path = path.to_string();
        Self { sentence: format!("unknown {what} `{}`", shortened(&path)), is_located: true }
    }

    pub(super) fn at(self, path: &Path<'_>) -> Self {
        match path {
            Path::Root => self,
            _ if self.is_located => self,
            _ => Self { sentence: format!("`{path}`: {}", self.sentence), is_located: true },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { sentence: message.to_string(), is_located: false }
    }

    fn invalid_type(got: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::custom(format_args!("invalid type: {}, expected {}", named(got), expected(wanted)))
    }

    fn invalid_value(got: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::custom(format_args!("invalid value: {}, expected {}", named(got), expected(wanted)))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::invalid(error.sentence)
    }
}

/// Where in a message a value stands.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Field(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(shortened(name)),
            Self::Field(above, name) => write!(f, "{above}.{}", shortened(name)),
            Self::Item(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

/// What came, in the words of JSON.
fn named(got: Unexpected<'_>) -> String {
    match got {
        Unexpected::Unit => "null".to_owned(),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        Unexpected::Str(text) => format!("the text {:?}", shortened(text)),
        other => other.to_string(),
    }
}

/// What is wanted, in words for who does not write Rust.
fn expected(wanted: &dyn Expected) -> String {
    let wanted = wanted.to_string();
    let most = match wanted.as_str() {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" => u64::MAX,
        "i8" | "i16" | "i32" | "i64" => return "a whole number".to_owned(),
        "f32" | "f64" => return "a number".to_owned(),
        _ if wanted.starts_with("struct") => return "an object".to_owned(),
        _ => return wanted,
    };
    format!("a whole number from 0 to {most}")
}

/// What kind of value came, as errors name it.
pub(super) fn unexpected(value: &Value) -> String {
    let unexpected = match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Unexpected::Unsigned(number),
            (None, Some(number)) => Unexpected::Signed(number),
            (None, None) => Unexpected::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(_) => Unexpected::Other("string"),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    };
    format!("invalid type: {}", named(unexpected))
}
