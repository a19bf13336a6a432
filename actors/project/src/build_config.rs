//! The build configuration of a project, which overrides detection.

use callboard_messages::{
    CallError, Caller,
    project::{BuildConfig, GetBuildConfig, ProjectError, ProjectFact, ProjectUpdated, SetBuildConfig},
};
use callboard_supervisors::{Handle, Outcome, db::Transaction, events::emit};
use sqlx::types::Json;

use crate::projects::{Projects, why_absent};

impl Handle<GetBuildConfig> for Projects {
    async fn handle(&self, caller: &Caller, message: GetBuildConfig) -> Outcome<GetBuildConfig> {
        let row: Option<(Option<Json<BuildConfig>>,)> = self
            .database
            .query(
                "SELECT build FROM projects
                 WHERE id = $1 AND organization_id = $2 AND deleting_at IS NULL AND NOT creating",
            )
            .bind(message.project_id)
            .bind(caller.tenant()?)
            .fetch_optional()
            .await?;
        let (build,) = row.ok_or(ProjectError::NotFound)?;
        Ok(build.map(|Json(build)| build).unwrap_or_default())
    }
}

impl Handle<SetBuildConfig> for Projects {
    async fn handle(&self, caller: &Caller, message: SetBuildConfig) -> Outcome<SetBuildConfig> {
        message.config.check().map_err(ProjectError::Invalid)?;
        let (project_id, organization_id) = (message.project_id, caller.tenant()?);
        let set = async |transaction: &mut Transaction| -> Result<(), CallError<ProjectError>> {
            let changed: Option<(String, i64)> = transaction
                .query(
                    "UPDATE projects SET build = $3
                     WHERE id = $1 AND organization_id = $2 AND deleting_at IS NULL AND NOT creating
                     RETURNING name, version",
                )
                .bind(project_id)
                .bind(organization_id)
                .bind(Json(message.config.clone()))
                .fetch_optional()
                .await?;
            let Some((name, version)) = changed else {
                return Err(why_absent(transaction, organization_id, project_id).await?.into());
            };
            let fact = ProjectFact { project_id, organization_id, name, version };
            Ok(emit(transaction, caller, &ProjectUpdated(fact)).await?)
        };
        self.database.transact(set).await?;
        Ok(message.config)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use callboard_messages::project::StaticOptions;

    use super::*;

    #[test]
    fn each_field_that_breaks_its_rule_is_named() {
        let text = |text: &str| Some(text.to_owned());
        let versions = |name: &str, version: &str| BTreeMap::from([(name.to_owned(), version.to_owned())]);
        for (field, config) in [
            ("root", BuildConfig { root: text("../other"), ..BuildConfig::default() }),
            ("root", BuildConfig { root: text("/etc"), ..BuildConfig::default() }),
            ("build_command", BuildConfig { build_command: text(" "), ..BuildConfig::default() }),
            ("start_command", BuildConfig { start_command: text("a\0b"), ..BuildConfig::default() }),
            ("release_command", BuildConfig { release_command: text(""), ..BuildConfig::default() }),
            ("publish", BuildConfig { publish: text("../dist"), ..BuildConfig::default() }),
            ("publish", BuildConfig { publish: text("dist"), start_command: text("x"), ..BuildConfig::default() }),
            ("versions", BuildConfig { versions: versions("cobol", "1"), ..BuildConfig::default() }),
            ("versions", BuildConfig { versions: versions("node", "$(x)"), ..BuildConfig::default() }),
            ("versions", BuildConfig { versions: versions("node", " "), ..BuildConfig::default() }),
            ("health_check_path", BuildConfig { health_check_path: text("up"), ..BuildConfig::default() }),
            ("health_check_path", BuildConfig { health_check_path: text("/up\r\nA: b"), ..BuildConfig::default() }),
            (
                "health_check_grace_seconds",
                BuildConfig { health_check_grace_seconds: Some(0), ..BuildConfig::default() },
            ),
            ("memory_mib", BuildConfig { memory_mib: Some(8), ..BuildConfig::default() }),
        ] {
            assert!(config.check().unwrap_err().starts_with(field), "{config:?}");
        }
        let full = BuildConfig {
            root: text("apps/web"),
            build_command: text("make"),
            start_command: text("./run"),
            release_command: text("./migrate"),
            publish: None,
            static_options: StaticOptions { single_page: Some(true), ..StaticOptions::default() },
            versions: versions("python", ">=3.11,<4"),
            health_check_path: text("/up?deep=1"),
            health_check_grace_seconds: Some(600),
            memory_mib: Some(32),
        };
        assert_eq!(full.check(), Ok(()));
        let site = BuildConfig { publish: text("dist"), start_command: None, ..full };
        assert_eq!(site.check(), Ok(()));
        assert_eq!(BuildConfig::default().check(), Ok(()));
    }
}
