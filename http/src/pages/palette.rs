//! What the command palette finds: pages and apps.

use actix_web::HttpResponse;
use serde::Serialize;

use super::{apps::every_project, navigation, request::PageRequest};
use crate::problem::Problem;

#[derive(Serialize)]
struct Link {
    label: String,
    address: String,
    kind: &'static str,
}

/// Links, as JSON for the script.
pub(crate) async fn palette(request: PageRequest) -> Result<HttpResponse, Problem> {
    let link = |label: &str, address: String, kind| Link { label: label.to_owned(), address, kind };
    let pages = navigation::entries("", request.caller().administrator);
    let mut links: Vec<Link> = pages.iter().map(|entry| link(entry.label, entry.address.to_owned(), "Page")).collect();
    links.push(link("New app", "/apps/new".to_owned(), "Page"));
    links.push(link("Account", "/account".to_owned(), "Page"));
    for project in every_project(&request).await?.0 {
        links.push(link(&project.name, format!("/apps/{}", project.name), "App"));
    }
    Ok(HttpResponse::Ok().json(links))
}
