//! Puts a node together: every domain, the gateway and the router, in one process.

use std::{fs, net::TcpListener, path::Path, sync::Arc};

use callboard_deploy::{
    process::Launcher,
    runtime::process::{ProcessRuntime, ProcessSettings},
};
use callboard_http::{Gateway, Serving, router::Router};
use callboard_supervisors::{
    Bulkhead, Clock, Runtime, db::Databases, revocations::Revocations, routing::RoutingTable, seal::MasterKey,
};
use object_store::{ObjectStore, local::LocalFileSystem};
use uuid::Uuid;

use super::{addresses::Addresses, run_as};
use crate::{
    LAUNCH, STATIC_SERVER,
    client::contexts::write_private,
    config::Settings,
    error::{Context, Error, Result},
};

/// The binary as a child finds it: this one, also after a newer one was put in its place.
const OURSELVES: &str = "/proc/self/exe";

/// A node that serves.
pub struct Assembled {
    /// Its domains.
    pub runtime: Runtime,
    /// Their databases.
    pub databases: Databases,
    /// Sources and releases.
    pub objects: Arc<dyn ObjectStore>,
    /// Its gateway.
    pub serving: Serving,
}

/// Opens the stores, starts the domains, and serves.
pub async fn assemble(
    settings: &Settings,
    data: &Path,
    master_key: MasterKey,
    addresses: &Addresses,
    listener: TcpListener,
) -> Result<Assembled> {
    let databases = open_databases(settings, data).await?;
    let objects = open_objects(&data.join("objects"))?;
    if settings.deploy.run_as.is_some() {
        run_as::open(data)?;
    }
    let revocations = Revocations::default();
    let routes = RoutingTable::new();
    let issuer = addresses.platform().to_owned();

    let launcher = Launcher::new(vec![OURSELVES.to_owned(), LAUNCH.to_owned()], folder_token(data)?)
        .with_cgroups()
        .hiding([data.to_owned()]);
    let folder = data.join("deploy");
    let deploy = settings.deploy.settings(&folder, &addresses.app_template, settings.gateway.upload_limit, &launcher);
    let processes = ProcessRuntime::new(ProcessSettings {
        launcher,
        state: folder.join("processes"),
        static_server: vec![OURSELVES.to_owned(), STATIC_SERVER.to_owned()],
        output: deploy.build.limits.output.clone(),
        run_as: settings.deploy.run_as,
    })
    .context(|| format!("write in {}", folder.display()))?;

    let bulkhead = Bulkhead::default;
    let deploy = callboard_deploy::domain(
        deploy,
        bulkhead(),
        databases.clone(),
        objects.clone(),
        routes.clone(),
        Arc::new(processes),
    )
    .map_err(|wrong| Error::usage(wrong.join("; ")))?;
    // In the order in which they need one another: they stop the other way round.
    let domains = vec![
        callboard_organization::domain(databases.clone()),
        callboard_auth::domain(
            settings.auth.settings(&issuer, master_key.clone()),
            databases.clone(),
            revocations.clone(),
        ),
        callboard_project::domain(bulkhead(), databases.clone(), master_key),
        deploy,
    ];
    let mut runtime = Runtime::builder().clock(Clock::system());
    if settings.gateway.workers > 0 {
        runtime = runtime.workers(settings.gateway.workers);
    }
    let runtime = runtime.build(domains).map_err(|wrong| Error::usage(wrong.join("; ")))?;

    let gateway = Gateway {
        settings: settings.gateway.clone(),
        runtime: runtime.clone(),
        databases: databases.clone(),
        revocations,
        objects: objects.clone(),
        router: Router::new(routes, settings.router.clone()),
        issuer: Some(issuer),
        rate_limits: None,
    };
    let serving =
        callboard_http::serve_on(listener, gateway).await.map_err(|error| Error::failure(error.to_string()))?;
    Ok(Assembled { runtime, databases, objects, serving })
}

/// Brings every domain's schema up to date.
async fn open_databases(settings: &Settings, data: &Path) -> Result<Databases> {
    let databases = Databases::new(settings.database.settings(data));
    for (domain, migrations) in [
        (callboard_organization::DOMAIN, &callboard_organization::MIGRATIONS),
        (callboard_auth::DOMAIN, &callboard_auth::MIGRATIONS),
        (callboard_project::DOMAIN, &callboard_project::MIGRATIONS),
        (callboard_deploy::DOMAIN, &callboard_deploy::MIGRATIONS),
    ] {
        databases.migrate(domain, migrations).await.map_err(|error| {
            let error = Error::failure(error.to_string());
            match settings.database.url {
                Some(_) => error.hint("CALLBOARD_DATABASE_URL must name a PostgreSQL server that answers"),
                None => error,
            }
        })?;
    }
    Ok(databases)
}

fn open_objects(folder: &Path) -> Result<Arc<dyn ObjectStore>> {
    fs::create_dir_all(folder).context(|| format!("make {}", folder.display()))?;
    let store = LocalFileSystem::new_with_prefix(folder).context(|| format!("open {}", folder.display()))?;
    Ok(Arc::new(store))
}

/// By it a start finds the processes that an earlier one left: it stays with the folder.
fn folder_token(data: &Path) -> Result<String> {
    let path = data.join("node.id");
    if let Ok(token) = fs::read_to_string(&path)
        && let Ok(token) = token.trim().parse::<Uuid>()
    {
        return Ok(token.to_string());
    }
    let token = Uuid::now_v7().to_string();
    write_private(&path, token.as_bytes()).context(|| format!("write {}", path.display()))?;
    Ok(token)
}
