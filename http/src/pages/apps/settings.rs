//! The settings of an app: description, build, health and limits, and what can't be undone.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use callboard_messages::{
    deploy::ClearCache,
    project::{BuildConfig, GetBuildConfig, SetBuildConfig, UpdateProject},
};
use serde::Serialize;

use super::{AppHead, address};
use crate::{
    pages::{
        form::{self, Form, FormView},
        request::PageRequest,
    },
    problem::Problem,
};

#[derive(Serialize)]
struct SettingsView {
    app: AppHead,
    /// The description.
    about: FormView,
    /// The build configuration.
    build: FormView,
}

pub(crate) async fn form(request: PageRequest) -> Result<HttpResponse, Problem> {
    let view = view(&request, None, None).await?;
    request.render("apps/settings.html", &view).await
}

async fn view(
    request: &PageRequest,
    about: Option<FormView>,
    build: Option<FormView>,
) -> Result<SettingsView, Problem> {
    let app = AppHead::of(request, "settings").await?;
    let build = match build {
        Some(build) => build,
        None => of_config(request.ask(GetBuildConfig { project_id: app.project.id }).await?),
    };
    let about = about.unwrap_or_else(|| {
        let project = &app.project;
        FormView::filled([("description", project.description.clone()), ("version", project.version.to_string())])
    });
    Ok(SettingsView { app, about, build })
}

/// Changes the description.
pub(crate) async fn describe(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    let project = request.project().await?;
    let if_match = form.number("version", "a whole number")?;
    let description = Some(form.text("description").trim().replace("\r\n", "\n"));
    match request.ask(UpdateProject { project_id: project.id, description, if_match }).await {
        Ok(_) => Ok(request.done(&address(&project.name, "settings"), "The description is saved.")),
        Err(problem) => {
            let view = view(&request, Some(form.refused(&problem, Some("description"))), None).await?;
            request.again(problem, "apps/settings.html", |_| view).await
        }
    }
}

/// Changes the build configuration. What the form does not show stays.
pub(crate) async fn configure(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    let project = request.project().await?;
    let project_id = project.id;
    let before = request.ask(GetBuildConfig { project_id }).await?;
    let outcome = match to_config(&form, before) {
        Ok(config) => request.ask(SetBuildConfig { project_id, config }).await,
        Err(problem) => Err(problem),
    };
    match outcome {
        Ok(_) => {
            let to = address(&project.name, "settings");
            Ok(request.done(&to, "The configuration is saved; the next deployment uses it."))
        }
        Err(problem) => {
            let view = view(&request, None, Some(form.refused(&problem, None))).await?;
            request.again(problem, "apps/settings.html", |_| view).await
        }
    }
}

fn of_config(config: BuildConfig) -> FormView {
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let choice = |choice: Option<bool>| choice.map(|choice| if choice { "yes" } else { "no" }.to_owned());
    let versions: Vec<String> = config.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let fields = [
        ("root", config.root),
        ("build_command", config.build_command),
        ("start_command", config.start_command),
        ("release_command", config.release_command),
        ("publish", config.publish),
        ("single_page", choice(config.static_options.single_page)),
        ("clean_urls", choice(config.static_options.clean_urls)),
        ("trailing_slash", choice(config.static_options.trailing_slash)),
        ("versions", Some(versions.join("\n"))),
        ("health_check_path", config.health_check_path),
        ("health_check_grace_seconds", number(config.health_check_grace_seconds)),
        ("memory_mib", number(config.memory_mib)),
    ];
    FormView::filled(fields.into_iter().map(|(name, value)| (name, value.unwrap_or_default())))
}

fn to_config(form: &Form, before: BuildConfig) -> Result<BuildConfig, Problem> {
    let choice = |name: &str| match form.text(name) {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    let mut config = before;
    config.root = form.given("root");
    config.build_command = form.given("build_command");
    config.start_command = form.given("start_command");
    config.release_command = form.given("release_command");
    config.publish = form.given("publish");
    config.static_options.single_page = choice("single_page");
    config.static_options.clean_urls = choice("clean_urls");
    config.static_options.trailing_slash = choice("trailing_slash");
    config.versions = versions(form.text("versions"))?;
    config.health_check_path = form.given("health_check_path");
    config.health_check_grace_seconds = form.number("health_check_grace_seconds", "a whole number from 1 to 600")?;
    config.memory_mib = form.number("memory_mib", "a whole number from 32 to 65,536")?;
    Ok(config)
}

/// Versions of languages, a line each: the language, then the version.
fn versions(text: &str) -> Result<BTreeMap<String, String>, Problem> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let version = |line: &str| {
        let (name, version) = line.split_once([' ', '=', ':']).unwrap_or((line, ""));
        let version = version.trim();
        if version.is_empty() {
            return Err(Problem::invalid("`versions`: give a language and its version on each line, such as node 22"));
        }
        Ok((name.to_lowercase(), version.to_owned()))
    };
    lines.map(version).collect()
}

/// Empties the build cache.
pub(crate) async fn clear_cache(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    request.form(form::SHORT).await?;
    let project = request.project().await?;
    let outcome = request.ask(ClearCache { project_id: project.id }).await;
    request.acted(
        outcome,
        &address(&project.name, "settings"),
        "The build cache is empty; the next build takes longer.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_comes_back_as_it_was_shown() {
        let text = "root=web&build_command=make&publish=out&single_page=no&clean_urls=&trailing_slash=yes\
                    &versions=Node+22%0D%0Apython+%3E%3D3.11&memory_mib=256";
        let config = to_config(&Form::parse(text.as_bytes(), 64).unwrap(), BuildConfig::default()).unwrap();
        let shown = of_config(config.clone());
        let again = Form::of(shown.values.into_iter().collect()).unwrap();
        assert_eq!(to_config(&again, BuildConfig::default()).unwrap(), config);
        assert_eq!(config.versions.get("python").map(String::as_str), Some(">=3.11"));
        assert_eq!((config.static_options.single_page, config.static_options.clean_urls), (Some(false), None));
        let wrong = Form::parse(b"versions=node", 64).unwrap();
        assert!(to_config(&wrong, BuildConfig::default()).unwrap_err().detail.starts_with("`versions`: "));
    }
}
