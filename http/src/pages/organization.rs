//! The organizations of a person: which one the pages act for, new ones, and invitations to the platform.

use actix_web::HttpResponse;
use callboard_messages::{
    Limit, OrganizationId,
    auth::CreateInvitation,
    organization::{CreateOrganization, DeleteOrganization, GetOrganization, ListOrganizations, Organization},
};
use serde::Serialize;
use url::form_urlencoded;

use super::{
    confirm::Confirm,
    form::{self, FormView},
    request::PageRequest,
};
use crate::{problem::Problem, session::cookies};

const HERE: &str = "/organization";

#[derive(Serialize)]
struct OrganizationView {
    organizations: Vec<Organization>,
    current: Option<OrganizationId>,
    /// The form of a new organization.
    form: FormView,
    /// The form of an invitation.
    invitation: FormView,
    /// A new invitation's link, shown this once.
    link: Option<String>,
    /// Which permissions the person holds here.
    scopes: Vec<String>,
}

async fn view(
    request: &PageRequest,
    form: Option<FormView>,
    invitation: Option<FormView>,
    link: Option<String>,
) -> Result<OrganizationView, Problem> {
    let organizations = request.ask(ListOrganizations { limit: Limit::of(100), cursor: None }).await?.items;
    Ok(OrganizationView {
        organizations,
        current: request.caller().organization_id,
        form: form.unwrap_or_else(FormView::blank),
        invitation: invitation.unwrap_or_else(FormView::blank),
        link,
        scopes: request.caller().scopes.iter().map(str::to_owned).collect(),
    })
}

pub(crate) async fn organization(request: PageRequest) -> Result<HttpResponse, Problem> {
    let view = view(&request, None, None, None).await?;
    request.render("organization.html", &view).await
}

/// Creates an organization, and acts for it.
pub(crate) async fn create(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    let create =
        CreateOrganization { name: form.text("name").trim().to_owned(), display_name: form.given("display_name") };
    match request.ask_once(&form, create).await {
        Ok(organization) => {
            let mut response = request.done("/", format!("You act for {} now.", organization.display_name));
            cookies::set_organization(&mut response, Some(organization.id), request.worker().secure());
            Ok(response)
        }
        Err(problem) => {
            let view = view(&request, Some(form.refused(&problem, Some("name"))), None, None).await?;
            request.again(problem, "organization.html", |_| view).await
        }
    }
}

/// Has the pages act for another organization.
pub(crate) async fn switch(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    let organization_id: OrganizationId = form.text("organization_id").parse().map_err(|_| Problem::not_found())?;
    match request.ask(GetOrganization { organization_id }).await {
        Ok(organization) => {
            let mut response = request.done("/", format!("You act for {} now.", organization.display_name));
            cookies::set_organization(&mut response, Some(organization.id), request.worker().secure());
            Ok(response)
        }
        refused => request.acted(refused, HERE, ""),
    }
}

/// Invites somebody to the platform; the link is shown once.
pub(crate) async fn invite(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    match request.ask_once(&form, CreateInvitation { email: form.given("email") }).await {
        Ok(invitation) => {
            let token: String = form_urlencoded::byte_serialize(invitation.token.expose().as_bytes()).collect();
            let link = format!("{}/setup?token={token}", request.worker().shared.address);
            let view = view(&request, None, None, Some(link)).await?;
            request.render_secret("organization.html", &view).await
        }
        Err(problem) => {
            let view = view(&request, None, Some(form.refused(&problem, Some("email"))), None).await?;
            request.again(problem, "organization.html", |_| view).await
        }
    }
}

fn confirm(organization: &Organization) -> Confirm {
    let action = format!("{HERE}/{}/delete", organization.id);
    Confirm::of(format!("Delete {}?", organization.display_name), action, "Delete the organization")
        .goes("Every app of it, with releases, variables and logs; what runs ends.")
        .goes("Every API key that acts for it.")
        .note("This can't be undone.")
        .typed(organization.name.clone())
        .back(HERE)
}

/// Asks before an organization is deleted.
pub(crate) async fn confirm_delete(request: PageRequest) -> Result<HttpResponse, Problem> {
    let organization_id: OrganizationId = request.id("organization_id")?;
    let organization = request.ask(GetOrganization { organization_id }).await?;
    confirm(&organization).show(&request).await
}

/// Deletes an organization, once its name was typed.
pub(crate) async fn delete(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    let organization_id: OrganizationId = request.id("organization_id")?;
    let organization = request.ask(GetOrganization { organization_id }).await?;
    let outcome = if form.text("typed").trim() == organization.name {
        request.ask(DeleteOrganization { organization_id }).await
    } else {
        Err(Problem::invalid(format!("`typed`: type {} to delete it", organization.name)))
    };
    match outcome {
        Ok(_) => {
            let mut response = request.done("/", format!("{} is deleted.", organization.display_name));
            if request.caller().organization_id == Some(organization_id) {
                cookies::set_organization(&mut response, None, request.worker().secure());
            }
            Ok(response)
        }
        Err(problem) => {
            let view = |problem: Problem| Confirm { form: form.refused(&problem, None), ..confirm(&organization) };
            request.again(problem, "confirm.html", view).await
        }
    }
}
