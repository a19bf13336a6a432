//! The names of tables, under the schema of their domain.
//!
//! A connection serves every domain of a thread, so each statement names the schema itself. A `search_path` would have
//! to be set at each change of domain: one more round trip, a new plan, and lost behind a pooler in transaction mode.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

/// The statements of a domain with its schema's name, each rewritten once.
#[derive(Debug)]
pub(super) struct Names {
    schema: String,
    /// By address and length of the statement's text in the program.
    qualified: RwLock<HashMap<(usize, usize), Arc<str>>>,
}

impl Names {
    pub(super) fn of(schema: String) -> Self {
        Self { schema, qualified: RwLock::default() }
    }

    /// `sql` with the schema before each of its tables.
    pub(super) fn qualify(&self, sql: &'static str) -> Arc<str> {
        let key = (sql.as_ptr().addr(), sql.len());
        if let Some(known) = self.qualified.read().get(&key) {
            return known.clone();
        }
        let qualified = Arc::<str>::from(qualify(sql, &quoted(&self.schema)));
        self.qualified.write().entry(key).or_insert(qualified).clone()
    }
}

/// An identifier in quotes.
pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A keyword, or a name without quotes.
    Word,
    /// A name in quotes.
    Quoted,
    /// Punctuation, one character.
    Mark,
    /// Copied as it is: a string, a number, a parameter, a comment, white space.
    Other,
}

#[derive(Debug, Clone, Copy)]
struct Token<'s> {
    kind: Kind,
    text: &'s str,
}

impl Token<'_> {
    fn is(&self, word: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Mark) && self.text.eq_ignore_ascii_case(word)
    }

    fn is_any(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(word))
    }
}

/// Words that end the list of tables of a FROM.
const AFTER_TABLES: [&str; 10] =
    ["WHERE", "GROUP", "ORDER", "LIMIT", "HAVING", "UNION", "RETURNING", "OFFSET", "FOR", "SET"];

/// Words in the position of a table's name where there is none: EXPLAIN ANALYZE SELECT.
const AFTER_NO_TABLE: [&str; 6] = ["SELECT", "SET", "INSERT", "UPDATE", "DELETE", "WITH"];

/// Functions that have a FROM among their arguments which names no table.
const FROM_INSIDE: [&str; 4] = ["EXTRACT", "SUBSTRING", "TRIM", "OVERLAY"];

fn qualify(sql: &str, schema: &str) -> String {
    let tokens = tokens(sql);
    let meant: Vec<Token<'_>> = tokens.iter().copied().filter(|token| token.kind != Kind::Other).collect();
    let with = with_names(&meant);
    let at = |index: usize| meant.get(index).copied().unwrap_or(Token { kind: Kind::Other, text: "" });
    let mut qualified = String::with_capacity(sql.len() + 4 * schema.len());
    // Of each open parenthesis: the token before it, and whether it holds a list of tables.
    let mut open = vec![(at(usize::MAX), false)];
    let mut expected = false;
    let mut index = 0;
    for token in tokens {
        if token.kind == Kind::Other {
            qualified.push_str(token.text);
            continue;
        }
        let before = if index == 0 { at(usize::MAX) } else { at(index - 1) };
        let next = at(index + 1);
        let (around, mut lists) = open.last().copied().unwrap_or((before, false));
        let is_name = expected && matches!(token.kind, Kind::Word | Kind::Quoted);
        if is_name && !token.is_any(&["ONLY", "LATERAL"]) {
            let is_function = next.is("(") && !before.is("INTO");
            let name = token.text.trim_matches('"');
            let is_elsewhere = next.is(".") || name.starts_with("pg_") || with.contains(&name);
            if !is_function && !is_elsewhere && !token.is_any(&AFTER_NO_TABLE) {
                qualified.push_str(schema);
                qualified.push('.');
            }
        }
        qualified.push_str(token.text);
        expected = match token.text {
            "," => lists,
            "(" => false,
            _ if is_name && token.is_any(&["ONLY", "LATERAL"]) => true,
            _ if token.is("FROM") => !before.is("DISTINCT") && !around.is_any(&FROM_INSIDE),
            _ if token.is("UPDATE") => !before.is_any(&["DO", "FOR", "KEY"]),
            _ => {
                token.is_any(&["ANALYZE", "JOIN", "INTO", "USING"])
                    || token.is("TABLE") && before.is_any(&["ALTER", "LOCK", "TRUNCATE"])
            }
        };
        if token.is_any(&["FROM", "USING"]) && expected {
            lists = true;
        } else if token.is_any(&AFTER_TABLES) {
            lists = false;
        }
        if let Some(innermost) = open.last_mut() {
            innermost.1 = lists;
        }
        match token.text {
            "(" => open.push((before, false)),
            ")" if open.len() > 1 => drop(open.pop()),
            _ => {}
        }
        index += 1;
    }
    qualified
}

/// What the statement itself names by WITH.
fn with_names<'s>(tokens: &[Token<'s>]) -> Vec<&'s str> {
    let mut names = Vec::new();
    for (index, pair) in tokens.windows(2).enumerate() {
        let [before, name] = pair else { continue };
        if !before.is_any(&["WITH", "RECURSIVE", ","]) || name.kind != Kind::Word {
            continue;
        }
        // Its columns may stand in parentheses.
        let mut after = tokens.iter().skip(index + 2).peekable();
        if after.next_if(|token| token.is("(")).is_some() {
            after.find(|token| token.is(")"));
        }
        let is_defined = after.next().is_some_and(|token| token.is("AS"))
            && after.find(|token| !token.is_any(&["NOT", "MATERIALIZED"])).is_some_and(|token| token.is("("));
        if is_defined {
            names.push(name.text);
        }
    }
    names
}

fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let until = |end: &str| {
            let skipped = first.len_utf8();
            rest.get(skipped..).and_then(|inner| inner.find(end)).map_or(rest.len(), |at| skipped + at + end.len())
        };
        let span = |holds: fn(char) -> bool| rest.find(|other: char| !holds(other)).unwrap_or(rest.len());
        let (kind, length) = match first {
            '\'' => (Kind::Other, until("'")),
            '$' if rest.starts_with("$$") => {
                (Kind::Other, rest.get(2..).and_then(|inner| inner.find("$$")).map_or(rest.len(), |at| at + 4))
            }
            '"' => (Kind::Quoted, until("\"")),
            '-' if rest.starts_with("--") => (Kind::Other, until("\n")),
            '/' if rest.starts_with("/*") => (Kind::Other, until("*/")),
            '$' | '0'..='9' => (
                Kind::Other,
                first.len_utf8()
                    + rest
                        .get(1..)
                        .map_or(0, |rest| rest.find(|other: char| !other.is_alphanumeric()).unwrap_or(rest.len())),
            ),
            _ if first.is_whitespace() => (Kind::Other, span(char::is_whitespace)),
            _ if first.is_alphabetic() || first == '_' => {
                (Kind::Word, span(|other| other.is_alphanumeric() || other == '_'))
            }
            _ => (Kind::Mark, first.len_utf8()),
        };
        let (text, remaining) = rest.split_at(length);
        tokens.push(Token { kind, text });
        rest = remaining;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(sql: &str, expected: &str) {
        assert_eq!(qualify(sql, "s"), expected);
    }

    #[test]
    fn tables_are_named_under_their_schema_and_nothing_else_is() {
        becomes("SELECT id, name FROM apps WHERE apps.id = $1", "SELECT id, name FROM s.apps WHERE apps.id = $1");
        becomes(
            "select a.x from apps a, \"Odd\" b where a.id = b.id",
            "select a.x from s.apps a, s.\"Odd\" b where a.id = b.id",
        );
        becomes(
            "INSERT INTO apps (id, name) SELECT id, name FROM old ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            "INSERT INTO s.apps (id, name) SELECT id, name FROM s.old ON CONFLICT (id) DO UPDATE SET name = excluded.name",
        );
        becomes(
            "UPDATE apps AS a SET x = (SELECT max(y) FROM b), z = 1 FROM c WHERE a.id = c.id RETURNING a.id, a.x",
            "UPDATE s.apps AS a SET x = (SELECT max(y) FROM s.b), z = 1 FROM s.c WHERE a.id = c.id RETURNING a.id, a.x",
        );
        becomes(
            "SELECT * FROM a LEFT JOIN b ON b.id = a.id JOIN c USING (id) FOR UPDATE OF a SKIP LOCKED",
            "SELECT * FROM s.a LEFT JOIN s.b ON b.id = a.id JOIN s.c USING (id) FOR UPDATE OF a SKIP LOCKED",
        );
        becomes("DELETE FROM a USING b WHERE a.id = b.id", "DELETE FROM s.a USING s.b WHERE a.id = b.id");
        becomes("LOCK TABLE a IN SHARE MODE", "LOCK TABLE s.a IN SHARE MODE");
        becomes("ALTER TABLE a RENAME TO b", "ALTER TABLE s.a RENAME TO b");
        becomes("ANALYZE a", "ANALYZE s.a");
        becomes("EXPLAIN ANALYZE SELECT 1 FROM a", "EXPLAIN ANALYZE SELECT 1 FROM s.a");
    }

    #[test]
    fn what_is_no_table_of_the_domain_stays() {
        for sql in [
            "SELECT extract(epoch FROM created) < $1",
            "SELECT 1 WHERE a IS DISTINCT FROM b",
            "SELECT * FROM generate_series(1, 3)",
            "SELECT count(*) FROM pg_locks, information_schema.tables",
            "SELECT 'copied FROM apps', \"FROM\" -- FROM apps\n, 1 /* FROM apps */",
            "SELECT trim(both FROM name), ''' FROM apps'",
            "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$",
            "BEGIN",
            "",
        ] {
            becomes(sql, sql);
        }
        becomes(
            "WITH RECURSIVE up (id, parent) AS (SELECT id, parent FROM folders), two AS NOT MATERIALIZED (SELECT 1)
             SELECT * FROM up JOIN two ON true JOIN folders ON true",
            "WITH RECURSIVE up (id, parent) AS (SELECT id, parent FROM s.folders), two AS NOT MATERIALIZED (SELECT 1)
             SELECT * FROM up JOIN two ON true JOIN s.folders ON true",
        );
        becomes(
            "SELECT x FROM (SELECT a, b FROM c ORDER BY a, b) AS d, e ORDER BY x, y",
            "SELECT x FROM (SELECT a, b FROM s.c ORDER BY a, b) AS d, s.e ORDER BY x, y",
        );
    }

    #[test]
    fn a_text_is_made_once_for_each_schema() {
        let (one, two) = (Names::of("one".to_owned()), Names::of("t\"wo".to_owned()));
        let sql = "SELECT 1 FROM apps";
        assert_eq!(&*one.qualify(sql), "SELECT 1 FROM \"one\".apps");
        assert!(Arc::ptr_eq(&one.qualify(sql), &one.qualify(sql)));
        assert_eq!(&*two.qualify(sql), "SELECT 1 FROM \"t\"\"wo\".apps");
    }
}
