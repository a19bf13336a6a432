//! The variables of an app: edited together, imported from a `.env` file, and saved only over the version that was read.

use std::collections::{BTreeMap, HashMap};

use actix_web::{HttpResponse, http::StatusCode};
use callboard_messages::{
    Code, Failure, Secret,
    deploy::ListApps,
    project::{ChangeEnv, Environment, ListEnv, NewVariable},
};
use serde::Serialize;

use super::{AppHead, address, dotenv};
use crate::{
    pages::{
        form::{Form, Most},
        request::PageRequest,
    },
    problem::Problem,
};

/// Largest form: 512 KiB of values, each twice, encoded; and the fields of its rows, with room for the others.
pub(in crate::pages) const LARGEST: Most = Most { bytes: 4 * 1024 * 1024, fields: ROWS * 6 + 16 };
/// Rows of a form; what a project may have, with room for new ones.
const ROWS: usize = 512;
/// Empty rows for new variables.
const BLANK: usize = 3;

#[derive(Serialize)]
struct VariablesView {
    app: AppHead,
    version: i64,
    rows: Vec<Row>,
    /// The text of the import, as it was given.
    import: String,
    error: Option<String>,
    /// Set when somebody else saved meanwhile: nothing was, and this is both.
    conflict: bool,
    /// Whether what serves runs with an earlier version.
    outdated: bool,
}

/// A row of the form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Row {
    name: String,
    /// What is typed; of a secret that is there nothing, which keeps it.
    value: String,
    /// What the form began with.
    was: String,
    secret: bool,
    /// Whether the variable is there.
    known: bool,
    remove: bool,
    /// The value that somebody else saved meanwhile.
    theirs: Option<String>,
    /// Whether somebody else changed the same variable meanwhile.
    contested: bool,
    /// Whether it is saved in plain now, and becomes a secret as it was typed.
    becomes_secret: bool,
}

impl Row {
    /// Whether saving it changes anything.
    fn is_changed(&self) -> bool {
        if self.known {
            if self.secret { !self.value.is_empty() } else { self.value != self.was }
        } else {
            !self.name.is_empty()
        }
    }
}

/// How the form is shown.
struct Shown {
    version: i64,
    rows: Vec<Row>,
    import: String,
    /// Why nothing was saved.
    refusal: Option<Problem>,
    /// Whether it is because somebody else saved meanwhile.
    conflict: bool,
}

impl Shown {
    /// Again as it was sent, with the refusal.
    fn again(form: &Form, version: i64, refusal: Problem) -> Self {
        let import = form.text("import").replace("\r\n", "\n");
        Self { version, rows: rows_from(form), import, refusal: Some(refusal), conflict: false }
    }
}

pub(crate) async fn form(request: PageRequest) -> Result<HttpResponse, Problem> {
    let app = AppHead::of(&request, "variables").await?;
    let environment = request.ask(ListEnv { project_id: app.project.id, version: None }).await?;
    let (version, rows) = (environment.version, rows_of(&environment));
    show(&request, app, Shown { version, rows, import: String::new(), refusal: None, conflict: false }).await
}

pub(crate) async fn save(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    // The form is large: nothing of it is read for somebody who may not save it.
    const PERMISSION: &str = "project:write";
    if !request.caller().scopes.allows(PERMISSION) {
        return Err(Failure::Forbidden(PERMISSION.into()).into());
    }
    let form = request.form(LARGEST).await?;
    let app = AppHead::of(&request, "variables").await?;
    let project_id = app.project.id;
    let read: i64 = form.number("version", "a whole number")?.unwrap_or(0);
    let mut rows = rows_from(&form);
    if let Some(row) = rows.iter().position(|row| row.name.is_empty()) {
        let refusal = Problem::invalid(format!("give the value in row {} a name", row + 1));
        return show(&request, app, Shown::again(&form, read, refusal)).await;
    }
    // Browsers send the line ends of a text as CR LF.
    let imported = match dotenv::parse(&form.text("import").replace("\r\n", "\n")) {
        Ok(imported) => imported,
        Err(sentence) => {
            let refusal = Problem::invalid(format!("the import, {sentence}"));
            return show(&request, app, Shown::again(&form, read, refusal)).await;
        }
    };
    let plain = add(&mut rows, imported);
    let remove: Vec<String> = rows.iter().filter(|row| row.known && row.remove).map(|row| row.name.clone()).collect();
    let changed = rows.iter().filter(|row| !row.remove && row.is_changed());
    let set: Vec<NewVariable> = changed
        .map(|row| NewVariable { name: row.name.clone(), value: Secret::new(row.value.clone()), secret: row.secret })
        .collect();
    let to = address(&app.project.name, "variables");
    if set.is_empty() && remove.is_empty() {
        return Ok(request.done(&to, "Nothing was changed."));
    }
    let count = set.len() + remove.len();
    let outcome = request.ask(ChangeEnv { project_id, set, remove, if_match: Some(read) }).await;
    let problem = match outcome {
        Ok(environment) => {
            let variables = if count == 1 { "variable" } else { "variables" };
            let saved = format!("Saved {count} {variables}, as version {}.", environment.version);
            let sentence = format!("{saved} Restart the app to use them.{}", stays_plain(&plain));
            return Ok(request.done(&to, sentence));
        }
        Err(problem) if problem.cause.is_some() => return Err(problem),
        Err(problem) => problem,
    };
    if problem.code != Code::PreconditionFailed.as_str() {
        return show(&request, app, Shown::again(&form, read, problem)).await;
    }
    let newest = request.ask(ListEnv { project_id, version: None }).await?;
    let rows = merged(rows, &newest, read);
    let version = newest.version;
    let shown = Shown { version, rows, import: String::new(), refusal: Some(problem), conflict: true };
    show(&request, app, shown).await
}

async fn show(request: &PageRequest, app: AppHead, shown: Shown) -> Result<HttpResponse, Problem> {
    let Shown { version, rows, import, refusal, conflict } = shown;
    let list = ListApps { project_id: Some(app.project.id), ..ListApps::default() };
    let serving = request.ask(list).await.ok().and_then(|page| page.items.into_iter().next());
    let outdated = serving.and_then(|app| app.environment_version).is_some_and(|serving| serving != version);
    let outdated = outdated && app.healthy > 0;
    let status = refusal.as_ref().map_or(StatusCode::OK, |problem| problem.status);
    let error = refusal.filter(|_| !conflict).map(|problem| problem.detail.into_owned());
    let view = VariablesView { app, version, rows: with_blanks(rows), import, error, conflict, outdated };
    request.render_as(status, "apps/variables.html", &view).await
}

fn rows_of(environment: &Environment) -> Vec<Row> {
    let row = |variable: &callboard_messages::project::Variable| {
        let value = variable.value.clone().unwrap_or_default();
        Row {
            name: variable.name.clone(),
            was: value.clone(),
            value,
            secret: variable.secret,
            known: true,
            ..Row::default()
        }
    };
    environment.variables.iter().map(row).collect()
}

/// The rows that were sent: `name.0`, `value.0`, and so on.
fn rows_from(form: &Form) -> Vec<Row> {
    let row = |index: usize| {
        let field = |name: &str| format!("{name}.{index}");
        Row {
            name: form.text(&field("name")).trim().to_owned(),
            // Browsers send the line ends of a text as CR LF.
            value: form.text(&field("value")).replace("\r\n", "\n"),
            was: form.text(&field("was")).replace("\r\n", "\n"),
            secret: form.is_set(&field("secret")),
            known: form.is_set(&field("known")),
            remove: form.is_set(&field("remove")),
            ..Row::default()
        }
    };
    // A value without a name is kept, so that whoever typed it can be told.
    (0..ROWS).map(row).filter(|row| !(row.name.is_empty() && row.value.is_empty())).collect()
}

/// Where each variable's row is.
fn places(rows: &[Row]) -> HashMap<String, usize> {
    rows.iter().enumerate().map(|(place, row)| (row.name.clone(), place)).collect()
}

/// Adds imported variables. What is there already gets the imported value and stays as secret as it was; what is new is a
/// secret, because it is not known to be none. Returns the names of those that were changed and stay plain.
fn add(rows: &mut Vec<Row>, imported: Vec<(String, String)>) -> Vec<String> {
    let places = places(rows);
    let mut plain = Vec::new();
    for (name, value) in imported {
        match places.get(&name).and_then(|place| rows.get_mut(*place)) {
            Some(row) => {
                if row.known && !row.secret && row.value != value {
                    plain.push(name);
                }
                row.value = value;
                row.remove = false;
            }
            None => rows.push(Row { name, value, secret: true, ..Row::default() }),
        }
    }
    plain
}

/// Says which imported variables can be read by whoever sees the page; empty if there is none.
fn stays_plain(names: &[String]) -> String {
    const NAMED: usize = 3;
    let first: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    match (names.len(), first.join(", ")) {
        (0, _) => String::new(),
        (1, name) => format!(" {name} was plain and stays so; to have it sealed, remove it and add it as a secret."),
        (count, named) => {
            let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
            format!(" {named}{more} were plain and stay so; to have them sealed, remove them and add them as secrets.")
        }
    }
}

/// What was typed over what somebody else saved meanwhile: both are kept, and what both changed is marked.
fn merged(typed: Vec<Row>, newest: &Environment, read: i64) -> Vec<Row> {
    let changed_since: BTreeMap<&str, i64> =
        newest.variables.iter().map(|variable| (variable.name.as_str(), variable.version)).collect();
    let mut rows = rows_of(newest);
    let places = places(&rows);
    for typed in typed {
        let is_touched = typed.remove || typed.is_changed();
        let newer = changed_since.get(typed.name.as_str()).is_some_and(|version| *version > read);
        match places.get(&typed.name).and_then(|place| rows.get_mut(*place)) {
            Some(row) if is_touched => {
                row.contested = newer;
                row.remove = typed.remove;
                // What was typed as a secret is never saved in plain; a secret without a value would stay as it is.
                if typed.secret && !typed.value.is_empty() && !row.secret {
                    (row.secret, row.becomes_secret, row.was, row.value) = (true, true, String::new(), String::new());
                }
                row.theirs = (newer && !row.secret).then(|| row.value.clone());
                if !typed.remove {
                    row.value = typed.value;
                }
            }
            Some(_) => {}
            // Removed by somebody else: only what was changed here is set again.
            None if is_touched && !typed.remove => rows.push(Row { known: false, contested: typed.known, ..typed }),
            None => {}
        }
    }
    rows
}

fn with_blanks(mut rows: Vec<Row>) -> Vec<Row> {
    rows.extend(std::iter::repeat_n(Row { secret: true, ..Row::default() }, BLANK));
    rows
}

#[cfg(test)]
mod tests {
    use callboard_messages::project::Variable;
    use chrono::Utc;

    use super::*;

    fn environment(version: i64, variables: &[(&str, Option<&str>, i64)]) -> Environment {
        let variable = |(name, value, version): &(&str, Option<&str>, i64)| Variable {
            name: (*name).to_owned(),
            value: value.map(str::to_owned),
            secret: value.is_none(),
            version: *version,
            updated_at: Utc::now(),
        };
        Environment { version, variables: variables.iter().map(variable).collect() }
    }

    fn typed(text: &str) -> Vec<Row> {
        rows_from(&Form::parse(text.as_bytes(), LARGEST.fields).unwrap())
    }

    #[test]
    fn a_secret_that_is_left_empty_stays_as_it_is() {
        let rows = typed(
            "name.0=TOKEN&known.0=1&secret.0=1&value.0=&name.1=A&known.1=1&was.1=1&value.1=1&name.2=&name.3=NEW&value.3=",
        );
        let changed: Vec<&str> = rows.iter().filter(|row| row.is_changed()).map(|row| row.name.as_str()).collect();
        assert_eq!(changed, ["NEW"]);
    }

    #[test]
    fn what_two_people_changed_is_kept_and_marked() {
        let rows = typed(
            "name.0=A&known.0=1&was.0=1&value.0=mine&name.1=B&known.1=1&was.1=1&value.1=1&name.2=GONE&known.2=1&was.2=x&value.2=mine\
             &name.3=NEW&value.3=n&secret.3=1&name.4=C&known.4=1&was.4=1&value.4=1&remove.4=1",
        );
        let newest = environment(
            8,
            &[("A", Some("theirs"), 8), ("B", Some("theirs"), 8), ("C", Some("1"), 2), ("THEIRS", Some("t"), 8)],
        );
        let merged = merged(rows, &newest, 7);
        let of = |name: &str| merged.iter().find(|row| row.name == name).unwrap().clone();
        assert_eq!((of("A").value, of("A").theirs, of("A").contested), ("mine".into(), Some("theirs".into()), true));
        assert_eq!((of("B").value, of("B").contested), ("theirs".into(), false));
        assert!(of("C").remove && !of("C").contested);
        assert_eq!((of("GONE").value, of("GONE").known, of("GONE").contested), ("mine".into(), false, true));
        assert_eq!((of("NEW").value, of("NEW").secret), ("n".into(), true));
        assert_eq!(of("THEIRS").value, "t");
    }

    #[test]
    fn what_was_typed_as_a_secret_stays_one_over_a_plain_value_that_somebody_else_saved() {
        let rows = typed("name.0=TOKEN&value.0=s3cret&secret.0=1&name.1=EMPTY&value.1=&secret.1=1");
        let newest = environment(8, &[("EMPTY", Some("theirs"), 8), ("TOKEN", Some("theirs"), 8)]);
        let merged = merged(rows, &newest, 7);
        let token = merged.iter().find(|row| row.name == "TOKEN").unwrap();
        assert!(token.secret && token.becomes_secret && token.contested && token.is_changed());
        assert_eq!((token.value.as_str(), token.was.as_str(), &token.theirs), ("s3cret", "", &None));
        let empty = merged.iter().find(|row| row.name == "EMPTY").unwrap();
        assert!(!empty.secret && empty.is_changed(), "nothing is no secret");
    }

    #[test]
    fn what_is_imported_takes_the_place_of_what_is_there() {
        let mut rows = typed("name.0=A&known.0=1&was.0=1&value.0=1&remove.0=1");
        let plain = add(&mut rows, vec![("A".to_owned(), "2".to_owned()), ("B".to_owned(), "3".to_owned())]);
        assert!(stays_plain(&plain).starts_with(" A was plain and stays so"), "{plain:?}");
        assert!(rows[0].is_changed() && !rows[0].remove && !rows[0].secret);
        assert!(rows[1].secret && !rows[1].known);
    }
}
