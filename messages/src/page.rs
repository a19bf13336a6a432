//! Cursor pagination: newest first, because ids are time-ordered.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Where a page begins: after the row with this id. Opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Cursor(pub Uuid);

/// The most rows a page can have.
const LIMIT_MAXIMUM: u32 = 100;
/// The rows of a page when the caller does not say.
const LIMIT_DEFAULT: u32 = 20;

/// How many rows a caller asks for: 1 to 100, 20 unless told. Another number never reaches a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Option<u32>", into = "u32")]
#[schema(minimum = 1, maximum = 100)]
pub struct Limit(u32);

impl Default for Limit {
    fn default() -> Self {
        Self(LIMIT_DEFAULT)
    }
}

impl TryFrom<Option<u32>> for Limit {
    type Error = String;

    fn try_from(asked: Option<u32>) -> Result<Self, String> {
        match asked {
            None => Ok(Self::default()),
            Some(rows @ 1..=LIMIT_MAXIMUM) => Ok(Self(rows)),
            Some(rows) => Err(format!("`limit` must be 1 to {LIMIT_MAXIMUM}, not {rows}")),
        }
    }
}

impl From<Limit> for u32 {
    fn from(limit: Limit) -> Self {
        limit.0
    }
}

impl Limit {
    /// A number of the program's own: one that a page can't have does not compile in a `const`.
    #[must_use]
    pub const fn of(rows: u32) -> Self {
        assert!(rows >= 1 && rows <= LIMIT_MAXIMUM);
        Self(rows)
    }

    /// For `LIMIT`: one row more than is shown, which only tells that there is a next page.
    #[must_use]
    pub fn rows(self) -> i64 {
        i64::from(self.0) + 1
    }
}

impl Cursor {
    /// For `id <`: a page without a cursor begins at the newest, and every id is below that.
    #[must_use]
    pub fn below(cursor: Option<Self>) -> Uuid {
        cursor.map_or(Uuid::max(), |cursor| cursor.0)
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
    /// From the rows that [`Limit::rows`] and [`Cursor::below`] asked for.
    pub fn of(mut rows: Vec<T>, limit: Limit, id: impl Fn(&T) -> Uuid) -> Self {
        let most = limit.0 as usize;
        let more = rows.len() > most;
        rows.truncate(most);
        let next = if more { rows.last().map(|row| Cursor(id(row))) } else { None };
        Self { items: rows, next }
    }

    /// From the pages of several lists, each of which was asked for with this limit and the same cursor. The ids of all of
    /// them grow with time, and no two are the same.
    pub fn merged(pages: Vec<Self>, limit: Limit, id: impl Fn(&T) -> Uuid) -> Self {
        let more = pages.iter().any(|page| page.next.is_some());
        let mut rows: Vec<T> = pages.into_iter().flat_map(|page| page.items).collect();
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(id(row)));
        let mut page = Self::of(rows, limit, &id);
        if more && page.next.is_none() {
            page.next = page.items.last().map(|row| Cursor(id(row)));
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_from_a_number_or_nothing_and_is_never_another() {
        let read = |json: &str| serde_json::from_str::<Limit>(json).map_err(|error| error.to_string());
        for (json, rows) in [("null", 21), ("1", 2), ("100", 101)] {
            assert_eq!(read(json).map(Limit::rows), Ok(rows), "{json}");
        }
        for json in ["0", "101", "-1", "\"2\""] {
            assert!(read(json).is_err(), "{json}");
        }
        assert!(read("0").unwrap_err().contains("`limit` must be 1 to 100, not 0"));
        assert_eq!(serde_json::to_string(&Limit::of(7)).unwrap(), "7");
    }

    #[test]
    fn the_row_too_many_makes_the_cursor_of_the_next_page() {
        let ids: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).rev().collect();
        let page = Page::of(ids.clone(), Limit::of(2), |id| *id);
        assert_eq!((page.items.as_slice(), Cursor::below(page.next)), (&ids[..2], ids[1]));
        assert_eq!(Page::of(ids, Limit::of(3), |id| *id).next, None);
        assert_eq!(Cursor::below(None), Uuid::max());
    }

    #[test]
    fn pages_of_several_lists_are_one_list_that_is_read_to_its_end_without_a_hole() {
        let lists: [Vec<Uuid>; 3] = [0, 1, 2].map(|_| Vec::new());
        let mut lists = lists;
        let mut all: Vec<Uuid> = Vec::new();
        for n in 0..50_usize {
            let id = Uuid::now_v7();
            lists[if n < 20 { 0 } else { n % 2 }].push(id);
            all.push(id);
        }
        all.reverse();
        for limit in [1, 3, 7, 25, 50, 51] {
            let limit = Limit::of(limit);
            let (mut read, mut cursor) = (Vec::new(), None);
            loop {
                let page = |list: &Vec<Uuid>| {
                    let below = list.iter().rev().filter(|id| **id < Cursor::below(cursor)).copied();
                    Page::of(below.take(usize::try_from(limit.rows()).unwrap()).collect(), limit, |id| *id)
                };
                let merged = Page::merged(lists.iter().map(page).collect(), limit, |id| *id);
                assert!(merged.items.len() < usize::try_from(limit.rows()).unwrap(), "more than was asked for");
                read.extend(merged.items);
                cursor = merged.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(read, all, "{limit:?}");
        }
    }
}
