//! The server that the gateway is measured against: actix-web and sqlx with nothing between them. It answers the same
//! requests from the same table with the same check of the token, one connection pool per worker thread.

use std::{net::SocketAddr, sync::Arc};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    http::header,
    web::{self, Data, Json, Path},
};
use chrono::{DateTime, SubsecRound, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use crate::Outcome;

/// Connections of one worker thread; what a domain has on a thread of a node.
const CONNECTIONS: u32 = 8;

struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    org: Uuid,
}

#[derive(Serialize, sqlx::FromRow)]
struct Project {
    id: Uuid,
    organization_id: Uuid,
    name: String,
    description: String,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Deserialize)]
struct NewProject {
    name: String,
    #[serde(default)]
    description: Option<String>,
}

#[derive(Deserialize)]
struct ProjectChange {
    description: String,
}

impl Verifier {
    fn organization(&self, request: &HttpRequest) -> Option<Uuid> {
        let header = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
        let token = header.strip_prefix("Bearer ")?;
        Some(jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).ok()?.claims.org)
    }
}

async fn get_project(
    request: HttpRequest,
    id: Path<Uuid>,
    verifier: Data<Verifier>,
    pool: Data<PgPool>,
) -> actix_web::Result<HttpResponse> {
    let Some(organization) = verifier.organization(&request) else {
        return Ok(HttpResponse::Unauthorized().finish());
    };
    let project: Option<Project> = sqlx::query_as(
        "SELECT id, organization_id, name, description, version, created_at, updated_at
         FROM projects WHERE id = $1 AND organization_id = $2",
    )
    .bind(*id)
    .bind(organization)
    .fetch_optional(&**pool)
    .await
    .map_err(actix_web::error::ErrorInternalServerError)?;
    Ok(project.map_or_else(|| HttpResponse::NotFound().finish(), |project| HttpResponse::Ok().json(project)))
}

async fn create_project(
    request: HttpRequest,
    body: Json<NewProject>,
    verifier: Data<Verifier>,
    pool: Data<PgPool>,
) -> actix_web::Result<HttpResponse> {
    let Some(organization) = verifier.organization(&request) else {
        return Ok(HttpResponse::Unauthorized().finish());
    };
    let NewProject { name, description } = body.into_inner();
    let project = insert(&pool, organization, name, description.unwrap_or_default())
        .await
        .map_err(actix_web::error::ErrorInternalServerError)?;
    Ok(HttpResponse::Created().json(project))
}

/// The statements of `project.create`, in one transaction.
async fn insert(pool: &PgPool, organization: Uuid, name: String, description: String) -> sqlx::Result<Project> {
    let now = Utc::now().trunc_subsecs(6);
    let mut transaction = pool.begin().await?;
    let project = sqlx::query_as(
        "INSERT INTO projects
             (id, organization_id, name, description, version, environment_version, created_at, updated_at)
         VALUES ($1, $2, $3, $4, 1, 0, $5, $5)
         RETURNING id, organization_id, name, description, version, created_at, updated_at",
    )
    .bind(Uuid::now_v7())
    .bind(organization)
    .bind(name)
    .bind(description)
    .bind(now)
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(project)
}

async fn update_project(
    request: HttpRequest,
    id: Path<Uuid>,
    body: Json<ProjectChange>,
    verifier: Data<Verifier>,
    pool: Data<PgPool>,
) -> actix_web::Result<HttpResponse> {
    let Some(organization) = verifier.organization(&request) else {
        return Ok(HttpResponse::Unauthorized().finish());
    };
    let updated = update(&pool, organization, *id, body.into_inner().description)
        .await
        .map_err(actix_web::error::ErrorInternalServerError)?;
    Ok(updated.map_or_else(|| HttpResponse::NotFound().finish(), |project| HttpResponse::Ok().json(project)))
}

/// The statement of `project.update`, in a transaction as there.
async fn update(pool: &PgPool, organization: Uuid, id: Uuid, description: String) -> sqlx::Result<Option<Project>> {
    let mut transaction = pool.begin().await?;
    let project = sqlx::query_as(
        "UPDATE projects SET description = $3, version = version + 1, updated_at = $4
         WHERE id = $1 AND organization_id = $2
         RETURNING id, organization_id, name, description, version, created_at, updated_at",
    )
    .bind(id)
    .bind(organization)
    .bind(description)
    .bind(Utc::now().trunc_subsecs(6))
    .fetch_optional(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(project)
}

/// Serves until it is ended: `jwk` is the node's public key, `n` and `e` in base64url.
///
/// # Errors
/// When the address can't be had or the key is malformed.
pub fn serve(address: SocketAddr, database_url: &str, modulus: &str, exponent: &str) -> Outcome {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_aud = false;
    validation.validate_nbf = true;
    let verifier = Arc::new(Verifier { key: DecodingKey::from_rsa_components(modulus, exponent)?, validation });
    let options: PgConnectOptions = database_url.parse()?;
    let options = options.options([("search_path", "project")]);
    let serving = async move {
        HttpServer::new(move || {
            let pool = PgPoolOptions::new()
                .max_connections(CONNECTIONS)
                .test_before_acquire(false)
                .connect_lazy_with(options.clone());
            App::new()
                .app_data(Data::from(Arc::clone(&verifier)))
                .app_data(Data::new(pool))
                .route("/api/v1/projects/{id}", web::get().to(get_project))
                .route("/api/v1/projects/{id}", web::patch().to(update_project))
                .route("/api/v1/projects", web::post().to(create_project))
        })
        .workers(std::thread::available_parallelism().map_or(2, usize::from))
        .bind(address)?
        .run()
        .await
    };
    actix_web::rt::System::new().block_on(serving)?;
    Ok(())
}
