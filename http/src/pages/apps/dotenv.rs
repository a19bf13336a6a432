//! Variables in the syntax of `.env` files, as people have them.

use std::collections::HashMap;

/// Most variables of a text; more than a project may have.
pub(super) const MOST: usize = 512;

/// The variables of a text, in its order; otherwise a sentence that names the line.
///
/// `NAME=value`, also with `export` before it. What is in single quotes stays as it is; in double quotes `\n`, `\t`, `\"` and
/// `\\` stand for what they do elsewhere; quotes may span lines. Without quotes a value ends before ` #`. Nothing is
/// substituted.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut number = 0;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        number += 1;
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = after;
            continue;
        }
        let assignment = trimmed.strip_prefix("export ").unwrap_or(trimmed);
        let Some((name, _)) = assignment.split_once('=') else {
            return Err(format!("line {number}: {:?} is no NAME=value", shortened(trimmed)));
        };
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(format!("line {number}: {:?} can't be the name of a variable", shortened(name)));
        }
        // From the sign on in the whole text, because quotes may span lines.
        let given = rest.split_once('=').map_or("", |(_, value)| value);
        let value = given.trim_start_matches([' ', '\t']);
        let (value, after) = match value.chars().next() {
            Some(quote @ ('"' | '\'' | '`')) => {
                let unquoted = quoted(value, quote);
                let (text, after) = unquoted.ok_or_else(|| format!("line {number}: the quote is not closed"))?;
                let (left, after) = after.split_once('\n').unwrap_or((after, ""));
                let left = left.trim();
                if !left.is_empty() && !left.starts_with('#') {
                    return Err(format!("line {number}: {:?} stands after the quote", shortened(left)));
                }
                number += text.matches('\n').count();
                (text, after)
            }
            // With the space after the sign: what begins with ` #` is a comment, and the value is empty.
            _ => (plain(given.split_once('\n').map_or(given, |(value, _)| value)), after),
        };
        match places.get(name) {
            // As a shell would: the last one counts.
            Some(place) => {
                if let Some((_, known)) = variables.get_mut(*place) {
                    *known = value;
                }
            }
            None if variables.len() == MOST => {
                return Err(format!("line {number}: there are more than {MOST} variables"));
            }
            None => {
                places.insert(name, variables.len());
                variables.push((name.to_owned(), value));
            }
        }
        rest = after;
    }
    Ok(variables)
}

fn plain(value: &str) -> String {
    let end = [" #", "\t#"].into_iter().filter_map(|comment| value.find(comment)).min().unwrap_or(value.len());
    value.get(..end).unwrap_or(value).trim().to_owned()
}

/// The text within quotes, and what is after them.
fn quoted(value: &str, quote: char) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = value.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            _ if character == quote => return Some((text, value.get(at + 1..).unwrap_or_default())),
            '\\' if quote == '"' => match characters.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, 't')) => text.push('\t'),
                Some((_, escaped @ ('"' | '\\' | '$'))) => text.push(escaped),
                Some((_, other)) => text.extend(['\\', other]),
                None => return None,
            },
            _ => text.push(character),
        }
    }
    None
}

fn shortened(text: &str) -> &str {
    text.char_indices().nth(40).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_the_usual_tools_read_it() {
        let text = "\u{feff}# a comment\r\nA=1\nexport B = two words # why\n\nC='$HOME # no'\nD=\"line\\nnext \\\"q\\\"\"\r\nE=\nF=a=b\nG=\"two\nlines\"\nE3= # comment\nH=1\t# 2 # 3\nI=#4\nA=2\n";
        let expected = [
            ("A", "2"),
            ("B", "two words"),
            ("C", "$HOME # no"),
            ("D", "line\nnext \"q\""),
            ("E", ""),
            ("F", "a=b"),
            ("G", "two\nlines"),
            ("E3", ""),
            ("H", "1"),
            ("I", "#4"),
        ];
        let expected: Vec<(String, String)> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(parse(text), Ok(expected));
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn only_as_many_variables_are_read_as_a_form_holds() {
        let same = "A=1\n".repeat(100_000);
        assert_eq!(parse(&same), Ok(vec![("A".to_owned(), "1".to_owned())]));
        let many: String = (0..100_000).map(|number| format!("A{number}=1\n")).collect();
        assert_eq!(parse(&many), Err("line 513: there are more than 512 variables".to_owned()));
    }

    #[test]
    fn what_can_t_be_read_is_named_by_its_line() {
        for (text, line) in [
            ("A=1\nnonsense", "line 2"),
            ("=x", "line 1"),
            ("A=\"\nB=2", "line 1"),
            ("A='x' y", "line 1"),
            ("A=\"1\n2\"\nb c=3", "line 3"),
        ] {
            assert!(parse(text).unwrap_err().starts_with(line), "{text:?}: {:?}", parse(text));
        }
    }
}
