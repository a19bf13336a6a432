//! A project's environment variables.
//!
//! Each change makes a new version of the environment; a variable's row is valid from its version until the next row of
//! its name, so every version stays readable and a rollback runs with the environment of its release. Secrets are
//! sealed under the project's data key, which the master key wraps, with the identity of their row.

mod change;

use callboard_messages::{
    CallError, Caller, Failure, OrganizationId, ProjectId, Secret,
    project::{
        Environment, ListEnv, NewVariable, ProjectEnvChanged, ProjectError, SetEnv, UnsetEnv, Variable,
        is_platform_variable,
    },
};
use callboard_supervisors::{
    Handle, Outcome,
    db::{Database, Error, Transaction},
    events::emit,
    seal::{DataKey, MasterKey, SealError},
};
use chrono::{DateTime, Utc};

use crate::projects::{Projects, why_absent};

const VARIABLES_MAXIMUM: usize = 256;
const NAME_MAXIMUM: usize = 128;
const VALUE_MAXIMUM: usize = 32 * 1024;
/// Characters of an invalid name that the error repeats.
const SHOWN_MAXIMUM: usize = 40;
/// Bytes of all values together: the operating system allows about two megabytes of arguments and environment.
const TOTAL_MAXIMUM: i64 = 512 * 1024;

/// Seals and opens secrets.
#[derive(Clone)]
pub(crate) struct Vault {
    master: MasterKey,
}

impl Vault {
    pub(crate) const fn new(master: MasterKey) -> Self {
        Self { master }
    }

    /// The project's data key; created if there is none yet.
    async fn key(&self, transaction: &mut Transaction, owner: Owner, now: DateTime<Utc>) -> Result<DataKey, Failure> {
        let kept: Option<(Vec<u8>,)> = transaction
            .query("SELECT wrapped FROM data_keys WHERE project_id = $1")
            .bind(owner.project_id)
            .fetch_optional()
            .await?;
        if let Some((wrapped,)) = kept {
            return self.unwrap(&wrapped, owner);
        }
        let (wrapped, key) = self.master.wrap_new_key(owner.key_place().as_bytes()).map_err(fault)?;
        transaction
            .query("INSERT INTO data_keys (project_id, wrapped, created_at) VALUES ($1, $2, $3)")
            .bind(owner.project_id)
            .bind(wrapped)
            .bind(now)
            .execute()
            .await?;
        Ok(key)
    }

    fn unwrap(&self, wrapped: &[u8], owner: Owner) -> Result<DataKey, Failure> {
        self.master.unwrap(wrapped, owner.key_place().as_bytes()).map_err(fault)
    }
}

fn fault(error: SealError) -> Failure {
    Failure::Internal(error.to_string())
}

/// The owner of an environment: the associated data of its sealed values.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) organization_id: OrganizationId,
    pub(crate) project_id: ProjectId,
}

impl Owner {
    fn key_place(self) -> String {
        format!("{}/{}", self.organization_id, self.project_id)
    }

    fn changed(self, environment_version: i64, names: Vec<String>) -> ProjectEnvChanged {
        let Self { organization_id, project_id } = self;
        ProjectEnvChanged { project_id, organization_id, environment_version, names }
    }

    fn place(self, name: &str, version: i64) -> String {
        format!("{}/{}/{name}/{version}", self.organization_id, self.project_id)
    }
}

/// A variable's row.
#[derive(sqlx::FromRow)]
struct VariableRow {
    name: String,
    version: i64,
    plain: Option<String>,
    sealed: Option<Vec<u8>>,
    secret: bool,
    updated_at: DateTime<Utc>,
}

/// The rows that are valid at one version, by name, without removed variables.
const ROWS_AT: &str = "SELECT name, version, plain, sealed, secret, updated_at
    FROM variables AS v
    WHERE project_id = $1 AND (plain IS NOT NULL OR sealed IS NOT NULL)
      AND version = (SELECT MAX(version) FROM variables AS newest
                     WHERE newest.project_id = v.project_id AND newest.name = v.name AND newest.version <= $2)
    ORDER BY name";

async fn rows_at(database: &Database, project_id: ProjectId, version: i64) -> Result<Vec<VariableRow>, Error> {
    database.query(ROWS_AT).bind(project_id).bind(version).fetch_all().await
}

/// The environment within the transaction, read before the commit: after that nothing may fail any more.
async fn left_by(transaction: &mut Transaction, project_id: ProjectId, version: i64) -> Result<Environment, Error> {
    let rows = transaction.query(ROWS_AT).bind(project_id).bind(version).fetch_all().await?;
    Ok(shown(rows, version))
}

/// An environment for clients: secrets without their values.
fn shown(rows: Vec<VariableRow>, version: i64) -> Environment {
    let variables = rows
        .into_iter()
        .map(|row| Variable {
            name: row.name,
            value: row.plain,
            secret: row.secret,
            version: row.version,
            updated_at: row.updated_at,
        })
        .collect();
    Environment { version, variables }
}

impl Handle<ListEnv> for Projects {
    async fn handle(&self, caller: &Caller, message: ListEnv) -> Outcome<ListEnv> {
        let version: Option<(i64,)> = self
            .database
            .query(
                "SELECT environment_version FROM projects
                 WHERE id = $1 AND organization_id = $2 AND deleting_at IS NULL AND NOT creating",
            )
            .bind(message.project_id)
            .bind(caller.tenant()?)
            .fetch_optional()
            .await?;
        let (newest,) = version.ok_or(ProjectError::NotFound)?;
        let version = message.version.unwrap_or(newest);
        if !(0..=newest).contains(&version) {
            return Err(ProjectError::Invalid(format!("the environment has the versions 0 to {newest}")).into());
        }
        Ok(shown(rows_at(&self.database, message.project_id, version).await?, version))
    }
}

impl Handle<SetEnv> for Projects {
    async fn handle(&self, caller: &Caller, message: SetEnv) -> Outcome<SetEnv> {
        check(&message.variables).map_err(ProjectError::Invalid)?;
        let owner = Owner { organization_id: caller.tenant()?, project_id: message.project_id };
        let now = self.clock.now();
        let set = async |transaction: &mut Transaction| -> Result<Environment, CallError<ProjectError>> {
            let version = new_version(transaction, owner).await?;
            let key = if message.variables.iter().any(|variable| variable.secret) {
                Some(self.vault.key(transaction, owner, now).await?)
            } else {
                None
            };
            for variable in &message.variables {
                insert(transaction, owner, version, variable, key.as_ref(), now).await?;
            }
            check_totals(transaction, owner.project_id).await?;
            let names = message.variables.iter().map(|variable| variable.name.clone()).collect();
            emit(transaction, caller, &owner.changed(version, names)).await?;
            Ok(left_by(transaction, owner.project_id, version).await?)
        };
        self.database.transact(set).await
    }
}

/// Inserts a variable's row; a secret's value is sealed under the key.
async fn insert(
    transaction: &mut Transaction,
    owner: Owner,
    version: i64,
    variable: &NewVariable,
    key: Option<&DataKey>,
    now: DateTime<Utc>,
) -> Result<(), Failure> {
    let value = variable.value.expose();
    let sealed = match key {
        Some(key) if variable.secret => {
            let place = owner.place(&variable.name, version);
            Some(key.seal(value.as_bytes(), place.as_bytes()).map_err(fault)?)
        }
        _ => None,
    };
    transaction
        .query(
            "INSERT INTO variables (project_id, name, version, plain, sealed, secret, size, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(owner.project_id)
        .bind(variable.name.clone())
        .bind(version)
        .bind((!variable.secret).then(|| value.to_owned()))
        .bind(sealed)
        .bind(variable.secret)
        .bind(i64::try_from(value.len()).unwrap_or(i64::MAX))
        .bind(now)
        .execute()
        .await?;
    Ok(())
}

impl Handle<UnsetEnv> for Projects {
    async fn handle(&self, caller: &Caller, message: UnsetEnv) -> Outcome<UnsetEnv> {
        let owner = Owner { organization_id: caller.tenant()?, project_id: message.project_id };
        let now = self.clock.now();
        let unset = async |transaction: &mut Transaction| -> Result<Environment, CallError<ProjectError>> {
            let version = new_version(transaction, owner).await?;
            let removed = end(transaction, owner, version, &message.name, now).await?;
            if !removed {
                return Err(ProjectError::NoSuchVariable(message.name.clone()).into());
            }
            emit(transaction, caller, &owner.changed(version, vec![message.name.clone()])).await?;
            Ok(left_by(transaction, owner.project_id, version).await?)
        };
        self.database.transact(unset).await
    }
}

/// Ends a variable by a row without a value; whether there was one with a value before.
async fn end(
    transaction: &mut Transaction,
    owner: Owner,
    version: i64,
    name: &str,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let ended = transaction
        .query(
            "INSERT INTO variables (project_id, name, version, secret, size, updated_at)
             SELECT project_id, name, $3, secret, 0, $4 FROM variables AS v
             WHERE project_id = $1 AND name = $2 AND (plain IS NOT NULL OR sealed IS NOT NULL)
               AND version = (SELECT MAX(version) FROM variables AS newest
                              WHERE newest.project_id = v.project_id AND newest.name = v.name)",
        )
        .bind(owner.project_id)
        .bind(name.to_owned())
        .bind(version)
        .bind(now)
        .execute()
        .await?;
    Ok(ended > 0)
}

impl Projects {
    /// Every variable with its value, secrets opened; and the names of those that are none.
    pub(crate) async fn opened(
        &self,
        owner: Owner,
        version: i64,
    ) -> Result<(Vec<(String, Secret)>, Vec<String>), Failure> {
        let rows = rows_at(&self.database, owner.project_id, version).await?;
        let plain = rows.iter().filter(|row| row.sealed.is_none()).map(|row| row.name.clone()).collect();
        let key = if rows.iter().any(|row| row.sealed.is_some()) {
            let (wrapped,): (Vec<u8>,) = self
                .database
                .query("SELECT wrapped FROM data_keys WHERE project_id = $1")
                .bind(owner.project_id)
                .fetch_one()
                .await?;
            Some(self.vault.unwrap(&wrapped, owner)?)
        } else {
            None
        };
        let opened: Result<Vec<(String, Secret)>, Failure> = rows
            .into_iter()
            .map(|row| {
                let value = match (row.sealed, &key) {
                    (Some(sealed), Some(key)) => {
                        let place = owner.place(&row.name, row.version);
                        let value = key.open(&sealed, place.as_bytes()).map_err(fault)?;
                        String::from_utf8(value).map_err(|_| Failure::Internal("a secret is no text".to_owned()))?
                    }
                    _ => row.plain.unwrap_or_default(),
                };
                Ok((row.name, Secret::new(value)))
            })
            .collect();
        Ok((opened?, plain))
    }
}

/// Increments the environment's version. The row stays locked until the transaction ends, so that versions have no gaps
/// and changes do not mix.
async fn new_version(transaction: &mut Transaction, owner: Owner) -> Result<i64, CallError<ProjectError>> {
    let row: Option<(i64,)> = transaction
        .query(
            "UPDATE projects SET environment_version = environment_version + 1
             WHERE id = $1 AND organization_id = $2 AND deleting_at IS NULL AND NOT creating
             RETURNING environment_version",
        )
        .bind(owner.project_id)
        .bind(owner.organization_id)
        .fetch_optional()
        .await?;
    match row {
        Some((version,)) => Ok(version),
        None => Err(why_absent(transaction, owner.organization_id, owner.project_id).await?.into()),
    }
}

async fn check_totals(transaction: &mut Transaction, project_id: ProjectId) -> Result<(), CallError<ProjectError>> {
    let (count, size): (i64, i64) = transaction
        .query(
            "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM variables AS v
             WHERE project_id = $1 AND (plain IS NOT NULL OR sealed IS NOT NULL)
               AND version = (SELECT MAX(version) FROM variables AS newest
                              WHERE newest.project_id = v.project_id AND newest.name = v.name)",
        )
        .bind(project_id)
        .fetch_one()
        .await?;
    if count > VARIABLES_MAXIMUM as i64 || size > TOTAL_MAXIMUM {
        let sentence = format!(
            "a project may have at most {VARIABLES_MAXIMUM} variables of {} KiB together",
            TOTAL_MAXIMUM / 1024
        );
        return Err(ProjectError::Invalid(sentence).into());
    }
    Ok(())
}

fn check(variables: &[NewVariable]) -> Result<(), String> {
    if variables.is_empty() || variables.len() > VARIABLES_MAXIMUM {
        return Err(format!("give 1 to {VARIABLES_MAXIMUM} variables"));
    }
    for (index, variable) in variables.iter().enumerate() {
        let name = &variable.name;
        check_name(name)?;
        if variables.iter().take(index).any(|other| other.name == *name) {
            return Err(format!("the variable {name} is given twice"));
        }
        if variable.value.expose().len() > VALUE_MAXIMUM || variable.value.expose().contains('\0') {
            return Err(format!("the value of {name} must have at most {VALUE_MAXIMUM} bytes, and no NUL"));
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), String> {
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let is_name = begins && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name || name.len() > NAME_MAXIMUM {
        let shown: String = name.chars().take(SHOWN_MAXIMUM).collect();
        return Err(format!(
            "{shown:?} can't be the name of a variable: use a letter or _, then letters, digits and _, at most \
             {NAME_MAXIMUM} together"
        ));
    }
    if is_platform_variable(name) {
        return Err(format!(
            "{name} is set by the platform, so a value of yours would have no effect: {}",
            advice(name)
        ));
    }
    Ok(())
}

/// Advice for somebody who sets a variable of the platform.
fn advice(name: &str) -> &'static str {
    match name {
        "PORT" => "have the app listen on the port that it finds there",
        "PATH" => {
            "name programs by their paths, or change it in the command itself, as in `web: PATH=$PWD/bin:$PATH app`"
        }
        "HOME" | "TMPDIR" => {
            "it names a folder of the process's own; have the app take another folder from another variable"
        }
        _ => "use a name that does not begin with CALLBOARD_",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, value: &str) -> NewVariable {
        NewVariable { name: name.to_owned(), value: Secret::new(value), secret: true }
    }

    #[test]
    fn names_that_a_shell_can_use_are_names() {
        for name in ["A", "_a1", "DATABASE_URL", "NODE_ENV", "LANG", "MY_PATH", &"A".repeat(128)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "1A", "A-B", "A B", "Ä", "A\0", &"A".repeat(129)] {
            assert!(check_name(name).unwrap_err().contains("can't be the name of a variable"), "{name}");
        }
    }

    #[test]
    fn a_name_whose_value_the_platform_sets_is_refused_with_what_to_do() {
        for (name, advice) in [
            ("PORT", "listen on the port"),
            ("PATH", "name programs by their paths"),
            ("HOME", "another folder"),
            ("TMPDIR", "another folder"),
            ("CALLBOARD_NODE", "does not begin with CALLBOARD_"),
        ] {
            let sentence = check_name(name).unwrap_err();
            assert!(sentence.contains("no effect") && sentence.contains(advice), "{sentence}");
        }
    }

    #[test]
    fn values_are_bounded_and_names_are_given_once() {
        assert!(check(&[]).is_err());
        assert!(check(&[variable("A", &"x".repeat(VALUE_MAXIMUM))]).is_ok());
        assert!(check(&[variable("A", &"x".repeat(VALUE_MAXIMUM + 1))]).is_err());
        assert!(check(&[variable("A", "a\0b")]).is_err());
        assert!(check(&[variable("A", "1"), variable("A", "2")]).unwrap_err().contains("twice"));
    }
}
