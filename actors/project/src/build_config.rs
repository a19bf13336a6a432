//! The build configuration of a project, which overrides detection.

use std::path::{Component, Path};

use callboard_messages::{
    CallError, Caller,
    project::{
        BuildConfig, GetBuildConfig, ProjectError, ProjectFact, ProjectUpdated, SetBuildConfig, VERSIONED_LANGUAGES,
    },
};
use callboard_supervisors::{Handle, Outcome, db::Transaction, events::emit};
use sqlx::types::Json;

use crate::projects::{Projects, why_absent};

const COMMAND_MAXIMUM: usize = 4_096;
const PATH_MAXIMUM: usize = 1_024;
const VERSION_MAXIMUM: usize = 64;

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
        check(&message.config).map_err(ProjectError::Invalid)?;
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

fn check(config: &BuildConfig) -> Result<(), String> {
    for (field, folder, of) in [("root", &config.root, "source"), ("publish", &config.publish, "app's folder")] {
        let Some(folder) = folder else { continue };
        let is_part = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        let inside = Path::new(folder).components().all(is_part);
        if folder.is_empty() || folder.len() > PATH_MAXIMUM || folder.contains(['\0', '\n']) || !inside {
            return Err(format!("{field} must be a relative folder inside the {of}, without .."));
        }
    }
    if config.publish.is_some() && config.start_command.is_some() {
        return Err("publish and start_command exclude each other: a static site is served by the platform".to_owned());
    }
    for (field, command) in [
        ("build_command", &config.build_command),
        ("start_command", &config.start_command),
        ("release_command", &config.release_command),
    ] {
        if let Some(command) = command
            && (command.trim().is_empty() || command.len() > COMMAND_MAXIMUM || command.contains('\0'))
        {
            return Err(format!("{field} must have 1 to {COMMAND_MAXIMUM} bytes, and no NUL"));
        }
    }
    for (name, version) in &config.versions {
        if !VERSIONED_LANGUAGES.contains(&name.as_str()) {
            return Err(format!("versions names {name}; it can name {}", VERSIONED_LANGUAGES.join(", ")));
        }
        let is_version = |letter: char| letter.is_ascii_alphanumeric() || " .,-_<>=!~^*|/+".contains(letter);
        if version.trim().is_empty() || version.len() > VERSION_MAXIMUM || !version.chars().all(is_version) {
            return Err(format!("versions: {name} must be a version such as \"22\" or \">=3.11\""));
        }
    }
    if let Some(path) = &config.health_check_path {
        let is_path = path.starts_with('/') && path.len() <= PATH_MAXIMUM;
        if !is_path || !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains('#') {
            return Err("health_check_path must be a path that begins with /".to_owned());
        }
    }
    if config.health_check_grace_seconds.is_some_and(|seconds| !(1..=600).contains(&seconds)) {
        return Err("health_check_grace_seconds must be 1 to 600".to_owned());
    }
    if config.memory_mib.is_some_and(|memory| !(32..=65_536).contains(&memory)) {
        return Err("memory_mib must be 32 to 65536".to_owned());
    }
    Ok(())
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
            assert!(check(&config).unwrap_err().starts_with(field), "{config:?}");
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
        assert_eq!(check(&full), Ok(()));
        let site = BuildConfig { publish: text("dist"), start_command: None, ..full };
        assert_eq!(check(&site), Ok(()));
        assert_eq!(check(&BuildConfig::default()), Ok(()));
    }
}
