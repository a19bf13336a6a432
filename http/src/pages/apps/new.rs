//! A new app, or a new version of one: from an upload, a git repository or an example.

use actix_multipart::{Field, Multipart};
use actix_web::{HttpResponse, dev::Payload, http::StatusCode};
use bytes::Bytes;
use callboard_messages::{
    Code, ProjectId,
    deploy::{CreateDeployment, Deployment, DeploymentSource},
    project::{CreateProject, Project},
};
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::{
    address,
    sources::{EXAMPLES, Example},
};
use crate::{
    pages::{
        form::{self, Form, FormView},
        request::PageRequest,
    },
    problem::Problem,
    upload::{self, Refusal},
};

/// Largest field of an upload's form other than the file, in bytes.
const FIELD: usize = 4 * 1024;
/// Fields that come before the file.
const FIELDS: usize = 16;
/// The field that names the app which an earlier try has made.
const MADE: &str = "made";

#[derive(Serialize)]
struct NewView {
    /// The app that gets a new version; absent for a new app.
    existing: Option<Project>,
    /// `upload`, `git` or `example`.
    from: &'static str,
    /// The example that is chosen.
    example: String,
    examples: &'static [Example],
    /// The largest upload, in bytes.
    largest: u64,
    form: FormView,
}

const KINDS: [&str; 3] = ["upload", "git", "example"];

fn kind(text: &str) -> &'static str {
    KINDS.into_iter().find(|known| *known == text).unwrap_or("upload")
}

fn view(request: &PageRequest, existing: Option<Project>, from: &'static str, form: FormView) -> NewView {
    let asked = form.values.get("example").cloned().or_else(|| request.query("example"));
    let example = asked.as_deref().and_then(Example::find).map_or("static", |example| example.name);
    let largest = request.worker().shared.settings.upload_limit;
    NewView { existing, from, example: example.to_owned(), examples: EXAMPLES, largest, form }
}

pub(crate) async fn form(request: PageRequest) -> Result<HttpResponse, Problem> {
    let from = kind(&request.query("from").unwrap_or_default());
    let suggested = request.query("example").filter(|_| from == "example").unwrap_or_default();
    let form = FormView::filled([("name", suggested)]);
    request.render("apps/new.html", &view(&request, None, from, form)).await
}

/// The same for an app that is there.
pub(crate) async fn deploy_form(request: PageRequest) -> Result<HttpResponse, Problem> {
    let project = request.project().await?;
    let from = kind(&request.query("from").unwrap_or_default());
    request.render("apps/new.html", &view(&request, Some(project), from, request.blank())).await
}

/// Creates an app from a git repository or an example.
pub(crate) async fn create(request: PageRequest) -> Result<HttpResponse, Problem> {
    from_form(request, false).await
}

/// Deploys a git repository or an example to an app that is there.
pub(crate) async fn deploy(request: PageRequest) -> Result<HttpResponse, Problem> {
    from_form(request, true).await
}

async fn from_form(mut request: PageRequest, is_existing: bool) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    let existing = if is_existing { Some(request.project().await?) } else { None };
    let from = kind(form.text("from"));
    let name = form.text("name").trim().to_owned();
    match begin(&request, &form, existing.clone(), from, &name).await {
        Ok(deployment) => Ok(begun(&request, existing.map_or(name, |project| project.name), &deployment)),
        Err(blamed) => blamed.show(&request, &form, existing, from).await,
    }
}

fn begun(request: &PageRequest, name: String, deployment: &Deployment) -> HttpResponse {
    request.done(&address(&name, &format!("deployments/{}", deployment.id)), format!("Deploying {name}."))
}

/// A refusal, with the field that is to blame.
struct Blamed {
    problem: Problem,
    field: Option<&'static str>,
    /// Whether the app is there all the same: the next try deploys to it.
    made: bool,
}

impl Blamed {
    const fn before(problem: Problem, field: Option<&'static str>) -> Self {
        Self { problem, field, made: false }
    }

    const fn after(problem: Problem, field: Option<&'static str>) -> Self {
        Self { problem, field, made: true }
    }

    /// The form again.
    async fn show(
        self,
        request: &PageRequest,
        form: &Form,
        existing: Option<Project>,
        from: &'static str,
    ) -> Result<HttpResponse, Problem> {
        let mut refused = form.refused(&self.problem, self.field);
        if self.made {
            refused.values.insert(MADE.to_owned(), form.text("name").trim().to_owned());
        }
        let shown = view(request, existing, from, refused);
        request.again(self.problem, "apps/new.html", |_| shown).await
    }
}

async fn begin(
    request: &PageRequest,
    form: &Form,
    existing: Option<Project>,
    from: &'static str,
    name: &str,
) -> Result<Deployment, Blamed> {
    let above = |sentence: &'static str| Blamed::before(Problem::invalid(sentence), None);
    let git = form.given("url");
    if from == "git" && git.is_none() {
        let sentence = "give the repository's address, such as https://example.com/shop.git";
        return Err(Blamed::before(Problem::invalid(sentence), Some("url")));
    }
    let example = Example::find(form.text("example")).filter(|_| from == "example");
    if from == "example" && example.is_none() {
        return Err(above("choose one of the examples"));
    }
    if from == "upload" {
        return Err(above("choose an archive to upload"));
    }
    let project = match existing {
        Some(project) => project,
        None => create_project(request, form, name).await?,
    };
    let (source, field) = match (git, example) {
        (_, Some(example)) => {
            let kept = example_source(request, example, project.id).await;
            (kept.map_err(|problem| Blamed::after(problem, None))?, None)
        }
        (Some(url), None) => (DeploymentSource::Git { url, reference: form.given("reference") }, Some("url")),
        (None, None) => return Err(above("choose what to deploy")),
    };
    let create = CreateDeployment::of(project.id, source);
    request.ask_once(form, create).await.map_err(|problem| Blamed::after(problem, field))
}

/// The app that the form is for: a new one, unless an earlier try has made it.
async fn create_project(request: &PageRequest, form: &Form, name: &str) -> Result<Project, Blamed> {
    let project = if !name.is_empty() && form.text(MADE) == name {
        request.project_named(name).await
    } else {
        request.ask_once(form, CreateProject { name: name.to_owned(), description: form.given("description") }).await
    };
    project.map_err(|problem| Blamed::before(problem, Some("name")))
}

async fn example_source(
    request: &PageRequest,
    example: &Example,
    project_id: ProjectId,
) -> Result<DeploymentSource, Problem> {
    let archive = example.archive().map_err(|error| Problem::internal(format!("packing an example: {error}")))?;
    let mut body = stream::iter([Ok(Bytes::from(archive))]);
    let kept = upload::keep(request.worker(), request.caller(), project_id, &mut body).await;
    let source = kept.map_err(|Refusal { problem, .. }| problem)?;
    Ok(DeploymentSource::Archive { source_id: source.id })
}

/// Creates an app from an archive that a form uploads, without a script: the fields, then the file.
pub(crate) async fn create_from_upload(request: PageRequest) -> Result<HttpResponse, Problem> {
    from_upload(request, false).await
}

/// Deploys an uploaded archive to an app that is there.
pub(crate) async fn deploy_upload(request: PageRequest) -> Result<HttpResponse, Problem> {
    from_upload(request, true).await
}

async fn from_upload(mut request: PageRequest, is_existing: bool) -> Result<HttpResponse, Problem> {
    let existing = if is_existing { Some(request.project().await?) } else { None };
    let payload = Payload::take(&mut request.inner().payload);
    let mut parts = Multipart::new(request.http().headers(), payload);
    // The file has a pace of its own; what comes before it is short.
    let within = request.worker().shared.settings.body_timeout();
    let (form, file) = tokio::time::timeout(within, before_file(&mut parts)).await.map_err(|_| late())??;
    if let Err(problem) = request.check_organization(&form).await {
        drop(file);
        drain(&mut parts, &request).await;
        return Err(problem);
    }
    let name = form.text("name").trim().to_owned();
    let outcome = match file {
        Some(file) => upload_to(&request, &form, existing.clone(), &name, file).await,
        None => {
            let problem = Problem::invalid("choose an archive to upload: a tar.gz or zip file");
            Err(Blamed::before(problem, Some("archive")))
        }
    };
    match outcome {
        Ok(deployment) => Ok(begun(&request, existing.map_or(name, |project| project.name), &deployment)),
        Err(blamed) => {
            drain(&mut parts, &request).await;
            blamed.show(&request, &form, existing, "upload").await
        }
    }
}

/// The fields that come before the file, and the file, if there is one.
async fn before_file(parts: &mut Multipart) -> Result<(Form, Option<Field>), Problem> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| Problem::invalid(format!("the form can't be read: {error}")))?;
        let Some(name) = part.name().map(str::to_owned) else {
            return Err(Problem::invalid("a part of the form has no name"));
        };
        match name.as_str() {
            "archive" => return Ok((Form::of(pairs)?, Some(part))),
            _ if pairs.len() >= FIELDS => return Err(Problem::invalid("the form has too many fields")),
            _ => pairs.push((name, text(part).await?)),
        }
    }
    Ok((Form::of(pairs)?, None))
}

fn late() -> Problem {
    let detail = "the form did not arrive in time; send it again";
    Problem { close: true, ..Problem::new(StatusCode::REQUEST_TIMEOUT, Code::Invalid.as_str(), detail) }
}

/// Reads on for a while: a browser that is still sending would not read the answer before a reset.
async fn drain(parts: &mut Multipart, request: &PageRequest) {
    let settings = &request.worker().shared.settings;
    let rest = parts.by_ref().flat_map(|part| match part {
        Ok(field) => field.boxed_local(),
        Err(error) => stream::iter([Err(error)]).boxed_local(),
    });
    crate::message::discard_stream(&mut Box::pin(rest), settings).await;
}

async fn text(mut part: Field) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = part.next().await {
        let chunk = chunk.map_err(|error| Problem::invalid(format!("the form can't be read: {error}")))?;
        if bytes.len() + chunk.len() > FIELD {
            return Err(Problem::too_large(FIELD as u64));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| Problem::invalid("the form is not UTF-8"))
}

async fn upload_to(
    request: &PageRequest,
    form: &Form,
    existing: Option<Project>,
    name: &str,
    file: Field,
) -> Result<Deployment, Blamed> {
    let project = match existing {
        Some(project) => project,
        None => create_project(request, form, name).await?,
    };
    let mut body = file.map(|chunk| chunk.map_err(|_| upload::broken_off("the upload broke off")));
    let kept = upload::keep(request.worker(), request.caller(), project.id, &mut body).await;
    let source = kept.map_err(|Refusal { problem, .. }| Blamed::after(problem, Some("archive")))?;
    let source = DeploymentSource::Archive { source_id: source.id };
    let create = CreateDeployment::of(project.id, source);
    request.ask_once(form, create).await.map_err(|problem| Blamed::after(problem, None))
}
