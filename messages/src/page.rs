//! Cursor pagination: newest first, because ids are time-ordered.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Where a page begins: after the row with this id. Opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Cursor(pub Uuid);

/// The most rows a page can have.
pub const LIMIT_MAXIMUM: u32 = 100;
/// The rows of a page when the caller does not say.
pub const LIMIT_DEFAULT: u32 = 20;

/// Rows to return.
///
/// # Errors
/// A sentence, when the caller asks for none or for more than a page can have.
pub fn page_limit(asked: Option<u32>) -> Result<u32, String> {
    match asked {
        None => Ok(LIMIT_DEFAULT),
        Some(rows @ 1..=LIMIT_MAXIMUM) => Ok(rows),
        Some(rows) => Err(format!("`limit` must be 1 to {LIMIT_MAXIMUM}, not {rows}")),
    }
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    #[schema(max_items = 100)]
    pub items: Vec<T>,
    /// The cursor of the page after this one; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// From up to `limit + 1` rows: the extra row only tells that there is a next page.
    pub fn from_rows(mut rows: Vec<T>, limit: u32, id: impl Fn(&T) -> Uuid) -> Self {
        let limit = limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(|row| Cursor(id(row))) } else { None };
        Self { items: rows, next }
    }
}
