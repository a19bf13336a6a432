//! `callboard build-config`: how an app is built and run, by the names that `callboard.toml` has for it.

use callboard_messages::project::{BuildConfig as Config, VERSIONED_LANGUAGES};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    cli::{AppArgs, session::Session},
    error::{Error, Result},
    output::table,
};

#[derive(Debug, Args)]
pub struct BuildConfig {
    #[command(subcommand)]
    verb: BuildConfigVerb,
}

#[derive(Debug, Subcommand)]
enum BuildConfigVerb {
    /// Show what is set; everything else is decided by callboard.toml or detected
    Show {
        #[command(flatten)]
        app: AppArgs,
    },
    /// Set what the next deployments are built by: `build-config set build="make" publish=dist versions.node=22`
    #[command(after_help = SETTINGS)]
    Set {
        #[arg(required = true, value_name = "NAME=VALUE")]
        settings: Vec<String>,
        #[command(flatten)]
        app: AppArgs,
    },
    /// Unset it, so that callboard.toml or detection decides
    #[command(after_help = SETTINGS)]
    Unset {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        app: AppArgs,
    },
}

const SETTINGS: &str = "Names:\n  \
root                        the folder of the app inside the source\n  \
build                       runs instead of the detected build steps\n  \
start                       runs as `web`\n  \
release                     runs once before each rollout\n  \
publish                     the folder that is served as a static site\n  \
static.single_page          true: a page that is not there gets index.html\n  \
static.clean_urls           true: /about is about.html\n  \
static.trailing_slash       true: /a redirects to /a/; false: /a/ to /a\n  \
versions.node               also python, go, rust, ruby, php, deno, java\n  \
health_check.path           asked for by GET\n  \
health_check.grace_seconds  how long a new instance may take\n  \
memory_mib                  memory of one instance";

impl BuildConfig {
    pub async fn run(self, session: &Session) -> Result {
        let (app, changes) = match self.verb {
            BuildConfigVerb::Show { app } => (app, Vec::new()),
            BuildConfigVerb::Set { settings, app } => {
                let pairs: Result<Vec<_>> = settings.iter().map(|setting| pair(setting)).collect();
                (app, pairs?)
            }
            BuildConfigVerb::Unset { names, app } => (app, names.into_iter().map(|name| (name, None)).collect()),
        };
        // A name that is wrong is told before anything is asked.
        apply(&mut Config::default(), &changes)?;
        let project = session.app(&app).await?;
        let path = format!("/projects/{}/build-config", project.id);
        let mut config: Config = session.client.get(&path).await?;
        if changes.is_empty() {
            session.output.show(&config, list);
            return Ok(());
        }
        apply(&mut config, &changes)?;
        let config: Config = session.client.put(&path, &json!({ "config": config })).await?;
        session.output.show(&config, |config| {
            format!("{}\nThis applies from the next deploy on: callboard deploy --app {}", list(config), project.name)
        });
        Ok(())
    }
}

/// The configuration that settings make, such as `start=./server`.
pub(super) fn of_settings(settings: &[String]) -> Result<Config> {
    let changes: Vec<_> = settings.iter().map(|setting| pair(setting)).collect::<Result<_>>()?;
    let mut config = Config::default();
    apply(&mut config, &changes)?;
    config.check().map_err(Error::usage)?;
    Ok(config)
}

fn pair(setting: &str) -> Result<(String, Option<String>)> {
    match setting.split_once('=') {
        Some((name, value)) if !value.trim().is_empty() => Ok((name.trim().to_owned(), Some(value.to_owned()))),
        _ => {
            Err(Error::usage(format!("{setting} has no value"))
                .hint("write it as NAME=VALUE, or use build-config unset"))
        }
    }
}

fn apply(config: &mut Config, changes: &[(String, Option<String>)]) -> Result {
    changes.iter().try_for_each(|(name, value)| change(config, name, value.as_deref()))
}

/// Changes one setting; without a value it is unset.
fn change(config: &mut Config, name: &str, value: Option<&str>) -> Result {
    let text = value.map(str::to_owned);
    match name {
        "root" => config.root = text,
        "build" => config.build_command = text,
        "start" => config.start_command = text,
        "release" => config.release_command = text,
        "publish" => config.publish = text,
        "static.single_page" => config.static_options.single_page = parsed(name, value, "true or false")?,
        "static.clean_urls" => config.static_options.clean_urls = parsed(name, value, "true or false")?,
        "static.trailing_slash" => config.static_options.trailing_slash = parsed(name, value, "true or false")?,
        "health_check.path" => config.health_check_path = text,
        "health_check.grace_seconds" => config.health_check_grace_seconds = parsed(name, value, "a number of seconds")?,
        "memory_mib" => config.memory_mib = parsed(name, value, "a number of MiB")?,
        _ => {
            let language = name.strip_prefix("versions.").filter(|name| VERSIONED_LANGUAGES.contains(name));
            let Some(language) = language else {
                let hint = "the names: callboard build-config set --help";
                return Err(Error::usage(format!("{name} is no setting")).hint(hint));
            };
            match text {
                Some(version) => config.versions.insert(language.to_owned(), version),
                None => config.versions.remove(language),
            };
        }
    }
    Ok(())
}

fn parsed<T: std::str::FromStr>(name: &str, value: Option<&str>, kind: &str) -> Result<Option<T>> {
    let parse = |value: &str| value.trim().parse().map_err(|_| Error::usage(format!("{name} must be {kind}")));
    value.map(parse).transpose()
}

fn list(config: &Config) -> String {
    let flag = |value: Option<bool>| value.map(|value| value.to_string());
    let number = |value: Option<u32>| value.map(|value| value.to_string());
    let settings = [
        ("root", config.root.clone()),
        ("build", config.build_command.clone()),
        ("start", config.start_command.clone()),
        ("release", config.release_command.clone()),
        ("publish", config.publish.clone()),
        ("static.single_page", flag(config.static_options.single_page)),
        ("static.clean_urls", flag(config.static_options.clean_urls)),
        ("static.trailing_slash", flag(config.static_options.trailing_slash)),
        ("health_check.path", config.health_check_path.clone()),
        ("health_check.grace_seconds", number(config.health_check_grace_seconds)),
        ("memory_mib", number(config.memory_mib)),
    ];
    let set = settings.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?]));
    let versions = config.versions.iter().map(|(name, version)| [format!("versions.{name}"), version.clone()]);
    let rows: Vec<[String; 2]> = set.chain(versions).collect();
    if rows.is_empty() {
        return "Nothing is set: callboard.toml decides, and else it is detected.".to_owned();
    }
    table(["NAME", "VALUE"], rows).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_can_be_set_shown_and_unset() {
        let mut config = Config::default();
        let settings = [
            ("root", "apps/web"),
            ("build", "make"),
            ("start", "./run"),
            ("release", "./migrate"),
            ("publish", "dist"),
            ("static.single_page", "true"),
            ("static.clean_urls", "false"),
            ("static.trailing_slash", "true"),
            ("versions.node", "22"),
            ("versions.python", ">=3.11"),
            ("health_check.path", "/up"),
            ("health_check.grace_seconds", "90"),
            ("memory_mib", "256"),
        ];
        for (name, value) in settings {
            change(&mut config, name, Some(value)).unwrap();
        }
        let shown = list(&config);
        for (name, value) in settings {
            assert!(shown.lines().any(|line| line.starts_with(name) && line.ends_with(value)), "{name}: {shown}");
            assert!(SETTINGS.contains(name) || name == "versions.python", "{name} is not in the help");
            change(&mut config, name, None).unwrap();
        }
        assert_eq!(config, Config::default());
    }

    #[test]
    fn a_setting_that_is_wrong_is_told() {
        for (name, value) in
            [("biuld", "x"), ("versions.cobol", "1"), ("static.single_page", "yes"), ("memory_mib", "a lot")]
        {
            let error = change(&mut Config::default(), name, Some(value)).unwrap_err();
            assert!(error.sentence.starts_with(name), "{}", error.sentence);
        }
        assert!(pair("build").is_err() && pair("build=").is_err());
        assert_eq!(pair("build=a=b").unwrap(), ("build".to_owned(), Some("a=b".to_owned())));
    }
}
