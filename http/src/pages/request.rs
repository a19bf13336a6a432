//! A request for a page: who asks, what was sent, and how it is answered.

use std::{borrow::Cow, rc::Rc};

use actix_web::{HttpResponse, http::StatusCode};
use callboard_messages::{
    Caller, Code, Limit, Operation,
    organization::GetOrganization,
    project::{ListProjects, Project},
};
use serde::Serialize;
use url::form_urlencoded;

use super::{
    compressed,
    form::{Form, FormView, Most},
    frame::Frame,
    html, redirect,
    toast::Toast,
};
use crate::{
    message,
    problem::Problem,
    worker::{Request, Worker},
};

/// A request for a page of the dashboard, from somebody who is signed in.
pub(crate) struct PageRequest {
    request: Request,
}

/// What a template sees: the frame's and the page's own.
#[derive(Serialize)]
struct Rendered<'a, V> {
    frame: &'a Frame,
    page: &'a V,
}

impl PageRequest {
    pub(crate) const fn of(request: Request) -> Self {
        Self { request }
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.request.caller
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.request.worker
    }

    /// The request itself, for what streams.
    pub(crate) const fn inner(&mut self) -> &mut Request {
        &mut self.request
    }

    pub(crate) fn http(&self) -> &actix_web::HttpRequest {
        &self.request.http
    }

    /// Where this page is, with its query.
    pub(crate) fn address(&self) -> String {
        self.request.http.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)
    }

    /// Asks a domain in the caller's name.
    pub(crate) async fn ask<M: Operation>(&self, message: M) -> Result<M::Reply, Problem> {
        Ok(self.request.worker.bus().ask(&self.request.caller, message).await?)
    }

    /// The same as the attempt that the form names, so that a form that is sent twice has its effect once.
    pub(crate) async fn ask_once<M: Operation>(&self, form: &Form, message: M) -> Result<M::Reply, Problem> {
        let mut caller = self.request.caller.clone();
        caller.request = form.attempt().or(caller.request);
        Ok(self.request.worker.bus().ask(&caller, message).await?)
    }

    /// A parameter of the path.
    pub(crate) fn parameter(&self, name: &str) -> Result<String, Problem> {
        let fields = self.request.fields()?;
        let found = fields.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value.into_owned());
        found.ok_or_else(Problem::not_found)
    }

    /// A parameter of the path that is an id; what can't be one is of nothing that is there.
    pub(crate) fn id<T: std::str::FromStr>(&self, name: &str) -> Result<T, Problem> {
        self.parameter(name)?.parse().map_err(|_| Problem::not_found())
    }

    /// A parameter of the query, if it is there and not empty.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        let mut pairs = form_urlencoded::parse(self.request.http.query_string().as_bytes());
        let value = pairs.find(|(known, _)| known == name).map(|(_, value)| value)?;
        let value: Cow<'_, str> = value;
        (!value.is_empty() && message::is_storable(&value)).then(|| value.into_owned())
    }

    /// The form that was sent.
    pub(crate) async fn form(&mut self, most: Most) -> Result<Form, Problem> {
        let form = Form::read(&mut self.request, most).await?;
        self.check_organization(&form).await?;
        Ok(form)
    }

    /// Refuses a form of a page that was shown for another organization than the one acted for now, which another tab
    /// may have changed meanwhile.
    pub(crate) async fn check_organization(&self, form: &Form) -> Result<(), Problem> {
        let acted_for = self.caller().organization_id;
        let (Some(shown_for), Some(organization_id)) = (form.organization(), acted_for) else { return Ok(()) };
        if shown_for == organization_id {
            return Ok(());
        }
        let asked = self.ask(GetOrganization { organization_id }).await;
        let name = asked.map_or_else(|_| "another organization".to_owned(), |organization| organization.display_name);
        let detail = format!(
            "nothing was done: this page was opened for another organization, and these pages act for {name} now; \
             switch back in another tab and send it again"
        );
        Err(Problem::of(Code::Conflict, detail))
    }

    /// The caller's project of the name in the path.
    pub(crate) async fn project(&self) -> Result<Project, Problem> {
        self.project_named(&self.parameter("name")?).await
    }

    /// The caller's project of this name.
    pub(crate) async fn project_named(&self, name: &str) -> Result<Project, Problem> {
        let list = ListProjects { name: Some(name.to_owned()), limit: Limit::of(1), cursor: None };
        let found = self.ask(list).await?.items.into_iter().next();
        found.ok_or_else(|| {
            let detail = format!("there is no app {name} in this organization; it may be in another one of yours");
            Problem::of(Code::NotFound, detail)
        })
    }

    /// The page.
    pub(crate) async fn render(&self, template: &str, view: &impl Serialize) -> Result<HttpResponse, Problem> {
        self.render_as(StatusCode::OK, template, view).await
    }

    pub(crate) async fn render_as(
        &self,
        status: StatusCode,
        template: &str,
        view: &impl Serialize,
    ) -> Result<HttpResponse, Problem> {
        let text = self.rendered(template, view).await?;
        let mut response = compressed(&self.request.http, status, text);
        Toast::clear(&self.request, &mut response);
        Ok(response)
    }

    /// A page with a secret, which is never compressed.
    pub(crate) async fn render_secret(&self, template: &str, view: &impl Serialize) -> Result<HttpResponse, Problem> {
        let text = self.rendered(template, view).await?;
        Ok(html(StatusCode::OK, text))
    }

    async fn rendered(&self, template: &str, view: &impl Serialize) -> Result<String, Problem> {
        let frame = Frame::of(self, Toast::of(&self.request)).await;
        self.request.worker.shared.pages.render(template, &Rendered { frame: &frame, page: view })
    }

    /// The form again, with the refusal at its field or above it; a failure of ours is a page of its own.
    pub(crate) async fn again<V: Serialize>(
        &self,
        problem: Problem,
        template: &str,
        view: impl FnOnce(Problem) -> V,
    ) -> Result<HttpResponse, Problem> {
        if problem.cause.is_some() {
            return Err(problem);
        }
        let (status, retry_after) = (problem.status, problem.retry_after);
        let mut response = self.render_as(status, template, &view(problem)).await?;
        Problem { retry_after, ..Problem::invalid("") }.tell_when_to_retry(&mut response);
        Ok(response)
    }

    /// To another page, which tells what was done.
    pub(crate) fn done(&self, to: &str, sentence: impl Into<Cow<'static, str>>) -> HttpResponse {
        let mut response = redirect(to);
        Toast::done(sentence).put(&self.request, &mut response);
        response
    }

    /// The same, for what may have been refused: then the page tells why.
    pub(crate) fn acted<T>(
        &self,
        outcome: Result<T, Problem>,
        to: &str,
        sentence: impl Into<Cow<'static, str>>,
    ) -> Result<HttpResponse, Problem> {
        match outcome {
            Ok(_) => Ok(self.done(to, sentence)),
            Err(problem) if problem.cause.is_some() => Err(problem),
            Err(problem) => {
                let mut response = redirect(to);
                Toast::refused(problem.detail).put(&self.request, &mut response);
                Ok(response)
            }
        }
    }

    /// An empty form.
    pub(crate) fn blank(&self) -> FormView {
        FormView::blank()
    }
}
