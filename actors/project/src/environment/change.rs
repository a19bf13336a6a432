//! Variables that are set and removed in one step, over the version that the caller read.

use callboard_messages::{
    CallError, Caller,
    project::{ChangeEnv, Environment, ProjectError},
};
use callboard_supervisors::{Handle, Outcome, db::Transaction, events::emit};

use super::{Owner, VARIABLES_MAXIMUM, check, check_totals, end, insert, left_by, new_version};
use crate::projects::Projects;

impl Handle<ChangeEnv> for Projects {
    async fn handle(&self, caller: &Caller, message: ChangeEnv) -> Outcome<ChangeEnv> {
        check_change(&message).map_err(ProjectError::Invalid)?;
        let owner = Owner { organization_id: caller.tenant()?, project_id: message.project_id };
        let now = self.clock.now();
        let change = async |transaction: &mut Transaction| -> Result<Environment, CallError<ProjectError>> {
            let version = new_version(transaction, owner).await?;
            // The row is locked since then: nobody changes the environment before this transaction ends.
            if message.if_match.is_some_and(|read| read != version - 1) {
                return Err(ProjectError::VersionMismatch.into());
            }
            let key = if message.set.iter().any(|variable| variable.secret) {
                Some(self.vault.key(transaction, owner, now).await?)
            } else {
                None
            };
            for variable in &message.set {
                insert(transaction, owner, version, variable, key.as_ref(), now).await?;
            }
            let mut names: Vec<String> = message.set.iter().map(|variable| variable.name.clone()).collect();
            for name in &message.remove {
                if end(transaction, owner, version, name, now).await? {
                    names.push(name.clone());
                }
            }
            // Removing what is not there is no mistake, and no change either.
            if names.is_empty() {
                let version = same_version(transaction, owner).await?;
                return Ok(left_by(transaction, owner.project_id, version).await?);
            }
            check_totals(transaction, owner.project_id).await?;
            emit(transaction, caller, &owner.changed(version, names)).await?;
            Ok(left_by(transaction, owner.project_id, version).await?)
        };
        self.database.transact(change).await
    }
}

/// Takes back the version of this transaction, in which nothing was changed.
async fn same_version(transaction: &mut Transaction, owner: Owner) -> Result<i64, CallError<ProjectError>> {
    let (version,): (i64,) = transaction
        .query(
            "UPDATE projects SET environment_version = environment_version - 1
             WHERE id = $1 AND organization_id = $2
             RETURNING environment_version",
        )
        .bind(owner.project_id)
        .bind(owner.organization_id)
        .fetch_one()
        .await?;
    Ok(version)
}

fn check_change(change: &ChangeEnv) -> Result<(), String> {
    let ChangeEnv { set, remove, .. } = change;
    if set.is_empty() && remove.is_empty() {
        return Err("give a variable to set or to remove".to_owned());
    }
    if remove.len() > VARIABLES_MAXIMUM {
        return Err(format!("give at most {VARIABLES_MAXIMUM} names to remove"));
    }
    if let Some(variable) = set.iter().find(|variable| remove.contains(&variable.name)) {
        return Err(format!("the variable {} is both set and removed", variable.name));
    }
    if set.is_empty() { Ok(()) } else { check(set) }
}
