//! API keys: what programs sign in with.

use actix_web::HttpResponse;
use callboard_messages::{
    ApiKeyId,
    auth::{ApiKey, CreateApiKey, ListApiKeys, RevokeApiKey},
};
use chrono::TimeDelta;
use serde::Serialize;

use super::{
    confirm::Confirm,
    form::{self, Form, FormView},
    request::PageRequest,
};
use crate::problem::Problem;

#[derive(Serialize)]
struct KeysView {
    keys: Vec<ApiKey>,
    form: FormView,
    /// A new key, shown this once.
    made: Option<Made>,
    /// The platform's own address, for the command that uses the key.
    address: String,
}

#[derive(Serialize)]
struct Made {
    name: String,
    secret: String,
}

/// What a key may do, as the form offers it.
const SCOPES: [(&str, &[&str]); 3] =
    [("deploy", &["project:read", "deploy:read", "deploy:create"]), ("read", &["*:read"]), ("all", &["*"])];

async fn view(request: &PageRequest, form: FormView, made: Option<Made>) -> Result<KeysView, Problem> {
    let keys = request.ask(ListApiKeys {}).await?;
    Ok(KeysView { keys, form, made, address: request.worker().shared.address.clone() })
}

pub(crate) async fn keys(request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = FormView::filled([("scopes", "deploy".to_owned()), ("expires", "90".to_owned())]);
    let view = view(&request, form, None).await?;
    request.render("keys.html", &view).await
}

/// Makes a key, and shows its secret.
pub(crate) async fn create(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    let outcome = match message(&request, &form) {
        Ok(create) => request.ask_once(&form, create).await,
        Err(problem) => Err(problem),
    };
    match outcome {
        Ok(key) => {
            let made = Made { name: key.api_key.name, secret: key.secret.expose().to_owned() };
            let blank = FormView::filled([("scopes", "deploy".to_owned()), ("expires", "90".to_owned())]);
            let view = view(&request, blank, Some(made)).await?;
            request.render_secret("keys.html", &view).await
        }
        Err(problem) => {
            let view = view(&request, form.refused(&problem, None), None).await?;
            request.again(problem, "keys.html", |_| view).await
        }
    }
}

fn message(request: &PageRequest, form: &Form) -> Result<CreateApiKey, Problem> {
    let chosen = SCOPES.iter().find(|(name, _)| *name == form.text("scopes"));
    let scopes: Vec<String> = match chosen {
        Some((_, scopes)) => scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        None => form
            .text("custom")
            .split([',', ' ', '\n', '\r'])
            .filter(|scope| !scope.is_empty())
            .map(str::to_owned)
            .collect(),
    };
    if scopes.is_empty() {
        return Err(Problem::invalid("`custom`: name at least one permission, such as project:read"));
    }
    let days = form.number::<u16>("expires", "a whole number of days")?.filter(|days| *days > 0);
    let expires_at = days.map(|days| request.worker().clock().now() + TimeDelta::days(i64::from(days)));
    Ok(CreateApiKey { name: form.text("name").trim().to_owned(), scopes, expires_at })
}

/// Asks before a key is revoked.
pub(crate) async fn confirm_revoke(request: PageRequest) -> Result<HttpResponse, Problem> {
    let id: ApiKeyId = request.id("api_key_id")?;
    let key = request.ask(ListApiKeys {}).await?.into_iter().find(|key| key.id == id).ok_or_else(Problem::not_found)?;
    let mut confirm =
        Confirm::of(format!("Revoke the key {}?", key.name), format!("/account/keys/{id}/revoke"), "Revoke")
            .goes(format!("Programs that use cb_{}… are refused at once.", key.prefix))
            .note("A revoked key can't be brought back.")
            .back("/account/keys");
    if key.last_used_at.is_some() {
        confirm = confirm.goes("It has been in use.");
    }
    confirm.show(&request).await
}

/// Makes a key useless.
pub(crate) async fn revoke(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    request.form(form::SHORT).await?;
    let api_key_id: ApiKeyId = request.id("api_key_id")?;
    let outcome = request.ask(RevokeApiKey { api_key_id }).await;
    request.acted(outcome, "/account/keys", "The key is revoked.")
}
