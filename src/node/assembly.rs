//! Puts a node together: the domains it hosts, the ways to those it does not, the gateway and the router, in one process.

use std::{net::TcpListener, path::Path, sync::Arc};

use callboard_bridge::{Bridge, BridgeSettings, ClusterKey};
use callboard_cache::Cache;
use callboard_cluster::{ClusterMetrics, ClusterSettings, Seat, SeatError};
use callboard_deploy::{
    process::Launcher,
    runtime::process::{ProcessRuntime, ProcessSettings},
    trash::Trash,
};
use callboard_http::{Gateway, Serving, router::Router};
use callboard_messages::{NodeId, Secret};
use callboard_supervisors::{
    Bulkhead, Clock, Domain, Runtime,
    cluster::Members,
    db::{Databases, MigrationError},
    disk::Disk,
    remote::Transport,
    revocations::Revocations,
    routing::RoutingTable,
    schedule,
    seal::MasterKey,
};
use object_store::ObjectStore;

use super::{
    addresses::Addresses,
    capacity::{self, Shortage},
    fingerprints, hidden, identity, objects, preflight, run_as,
};
use crate::{
    LAUNCH, PACK, STATIC_SERVER,
    config::{DOMAINS, Mode, Settings},
    error::{Context, Error, Result},
};

/// The binary as a child finds it: this one, also after a newer one was put in its place.
const OURSELVES: &str = "/proc/self/exe";

/// What a node is made from.
pub struct Plan<'a> {
    /// What the operator set.
    pub settings: &'a Settings,
    /// Alone, or one of several.
    pub mode: Mode,
    /// The data folder.
    pub data: &'a Path,
    /// Which node this is.
    pub id: NodeId,
    /// Wraps the keys of secrets.
    pub master_key: MasterKey,
    /// The URLs of the node.
    pub addresses: &'a Addresses,
}

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
    /// The nodes that it knows.
    pub members: Members,
    /// The way to them; a node alone has none.
    pub bridge: Option<Bridge>,
}

/// What a node stands on.
struct Ground {
    disk: Disk,
    databases: Databases,
    objects: Arc<dyn ObjectStore>,
    cache: Cache,
    bridge: Option<Bridge>,
    seat: Seat,
}

impl Plan<'_> {
    /// Opens the stores, starts the domains, and serves.
    pub async fn assemble(self, listener: TcpListener) -> Result<Assembled> {
        let Self { settings, mode, data, .. } = self;
        let Ground { disk, databases, objects, cache, bridge, seat } = self.prepare().await?;
        if settings.deploy.run_as.is_some() {
            run_as::open(data)?;
        }
        let clock = Clock::system();
        let revocations = match mode {
            Mode::Dev => Revocations::default(),
            Mode::Serve => Revocations::among_several(clock.clone()),
        };
        let (routes, issuer) = (RoutingTable::new(), self.addresses.issuer.clone());
        let members = Members::alone(identity::member(self.id, &settings.cluster, self.addresses, mode));

        let internal = |error: &dyn std::fmt::Display| Error::failure(format!("could not measure: {error}"));
        let metrics = ClusterMetrics::new().map_err(|error| internal(&error))?;
        let watches = mode == Mode::Serve;
        let cluster = callboard_cluster::domain(
            ClusterSettings { watches, ..ClusterSettings::default() },
            databases.clone(),
            members.clone(),
            seat,
            metrics.clone(),
            [
                Some(schedule::keeper(callboard_http::DOMAIN, databases.clone(), vec![callboard_http::housekeeping()])),
                watches.then(|| callboard_cache::revocations::watch(revocations.clone(), cache.clone())),
            ]
            .into_iter()
            .flatten()
            .collect(),
        );
        // In the order in which they need one another: they stop the other way round.
        let mut domains: Vec<Domain> = bridge.iter().map(Bridge::domain).collect();
        domains.push(cluster);
        domains.push(match self.elsewhere(callboard_organization::DOMAIN, bridge.as_ref()) {
            None => callboard_organization::domain(databases.clone()),
            Some(transport) => {
                callboard_organization::remote(transport).requires(members.hosting(callboard_organization::DOMAIN))
            }
        });
        domains.push(match self.elsewhere(callboard_auth::DOMAIN, bridge.as_ref()) {
            None => callboard_auth::domain(
                settings.auth.settings(&issuer, self.master_key.clone()),
                databases.clone(),
                revocations.clone(),
                cache.clone(),
            ),
            Some(transport) => callboard_auth::remote(transport).requires(members.hosting(callboard_auth::DOMAIN)),
        });
        domains.push(match self.elsewhere(callboard_project::DOMAIN, bridge.as_ref()) {
            None => callboard_project::domain(Bulkhead::default(), databases.clone(), self.master_key.clone()),
            Some(transport) => callboard_project::remote(Bulkhead::default(), transport)
                .requires(members.hosting(callboard_project::DOMAIN)),
        });
        domains.push(match self.elsewhere(callboard_deploy::DOMAIN, bridge.as_ref()) {
            None => self.deploy(&databases, &objects, &routes, &members)?,
            Some(transport) => callboard_deploy::remote(Bulkhead::default(), transport)
                .requires(members.hosting(callboard_deploy::DOMAIN)),
        });

        let mut runtime = Runtime::builder().clock(clock).node(self.id.0).disk(disk.clone());
        if settings.gateway.workers > 0 {
            runtime = runtime.workers(settings.gateway.workers);
        }
        if let Some(bridge) = &bridge {
            runtime = runtime.transport(bridge.transport()).events(bridge.events());
        }
        let runtime = runtime.build(domains).map_err(|wrong| Error::usage(wrong.join("; ")))?;
        runtime.metrics().register(Box::new(metrics)).map_err(|error| internal(&error))?;
        cache.register(runtime.metrics()).map_err(|error| internal(&error))?;
        databases.register(runtime.metrics()).map_err(|error| internal(&error))?;
        disk.register(runtime.metrics()).map_err(|error| internal(&error))?;
        if let Some(bridge) = &bridge {
            bridge.connect_live(runtime.live());
            bridge.connect_members(members.clone());
            bridge.register_metrics(runtime.metrics()).map_err(|error| internal(&error))?;
        }

        let gateway = Gateway {
            settings: settings.gateway.clone(),
            runtime: runtime.clone(),
            databases: databases.clone(),
            revocations,
            objects: objects.clone(),
            router: self.router(routes, &members)?,
            address: Some(self.addresses.platform().to_owned()),
            issuer: Some(issuer),
            rate_limits: Some(cache.rate_limits(&settings.gateway.rate_limits)),
        };
        let serving =
            callboard_http::serve_on(listener, gateway).await.map_err(|error| Error::failure(error.to_string()))?;
        Ok(Assembled { runtime, databases, objects, serving, members, bridge })
    }

    /// What brings requests to the apps, of this node and of others.
    fn router(&self, routes: RoutingTable, members: &Members) -> Result<Router> {
        let router = Router::new(routes, self.settings.router.clone());
        match (self.mode, &self.settings.cluster.key) {
            (Mode::Serve, Some(key)) => router.among(members.clone(), key.expose().as_bytes()).map_err(Error::usage),
            _ => Ok(router),
        }
    }

    /// How a domain that this node does not host is reached; nothing for one that it hosts.
    fn elsewhere(&self, domain: &str, bridge: Option<&Bridge>) -> Option<Arc<dyn Transport>> {
        let hosted = self.mode == Mode::Dev || self.settings.cluster.hosted().iter().any(|hosted| hosted == domain);
        if hosted { None } else { bridge.map(Bridge::transport) }
    }

    /// Looks at the servers, opens the stores, and brings every schema that this node uses up to date.
    async fn prepare(&self) -> Result<Ground> {
        let Self { settings, data, .. } = *self;
        let disk = Disk::below(data).context(|| format!("watch the disk below {}", data.display()))?;
        let databases = Databases::on_disk(settings.database.settings(data), disk.clone());
        let mut ground = match self.mode {
            Mode::Dev => {
                let objects = objects::open(&settings.objects, data).await?;
                Ground { disk, databases, objects, cache: Cache::none(), bridge: None, seat: Seat::new() }
            }
            Mode::Serve => {
                let (cache, bridge) = links(settings, self.id)?;
                let (opened, wrong) = preflight::look(settings, data, &databases, &cache, bridge).await;
                let preflight::Opened { bridge, objects, reached } = opened;
                let Some(objects) = objects.filter(|_| wrong.is_empty()) else {
                    return Err(crate::config::wrong(&wrong));
                };
                reached.write(data)?;
                Ground { disk, databases, objects, cache, bridge, seat: Seat::new() }
            }
        };
        migrate(settings, &ground.databases, &hosted(settings, self.mode)).await?;
        if self.mode == Mode::Serve {
            let issuer = &self.addresses.issuer;
            let mine = fingerprints::Mine { settings, data, issuer, objects: &*ground.objects };
            mine.check(&ground.databases, self.id).await?;
            ground.seat = self.take_seat(&ground.databases).await?;
        }
        Ok(ground)
    }

    /// Makes sure that no other process is this node, before anything is done in the node's name.
    async fn take_seat(&self, databases: &Databases) -> Result<Seat> {
        let earlier = identity::earlier_process(self.data);
        let seat =
            Seat::take(databases, self.id, earlier, &ClusterSettings::default()).await.map_err(
                |error| match error {
                    SeatError::Taken(sentence) => displaced(sentence),
                    SeatError::Database(error) => {
                        Error::failure(format!("could not look who has this node's id: {error}"))
                    }
                },
            )?;
        identity::remember_process(self.data, seat.process)?;
        Ok(seat)
    }

    fn deploy(
        &self,
        databases: &Databases,
        objects: &Arc<dyn ObjectStore>,
        routes: &RoutingTable,
        members: &Members,
    ) -> Result<Domain> {
        let (settings, data) = (self.settings, self.data);
        let launcher = Launcher::new(vec![OURSELVES.to_owned(), LAUNCH.to_owned()], self.id.to_string())
            .with_cgroups()
            .hiding(hidden::paths(settings, data))
            .searching_as(settings.deploy.run_as);
        if !callboard_deploy::limits::can_hide() {
            tracing::warn!(
                "builds and apps can read what the user they run as can read, the node's keys included unless that is \
                 another user: this kernel, or the container's seccomp profile, has no Landlock (Linux 5.19 or newer)"
            );
        }
        let folder = data.join("deploy");
        let (template, limit) = (&self.addresses.app_template, settings.gateway.upload_limit);
        let packer = vec![OURSELVES.to_owned(), PACK.to_owned()];
        let deploy = settings.deploy.settings(&folder, template, limit, &launcher, packer);
        let trash = Trash::new(deploy.trash_folder(), launcher.pools.clone());
        let processes = ProcessRuntime::new(ProcessSettings {
            launcher,
            state: folder.join("processes"),
            trash,
            static_server: vec![OURSELVES.to_owned(), STATIC_SERVER.to_owned()],
            output: deploy.build.limits.output.clone(),
            run_as: settings.deploy.run_as,
        })
        .context(|| format!("write in {}", folder.display()))?;
        callboard_deploy::domain(
            deploy,
            Bulkhead::default(),
            databases.clone(),
            objects.clone(),
            routes.clone(),
            Arc::new(processes),
            members.clone(),
        )
        .map_err(|wrong| Error::usage(wrong.join("; ")))
    }
}

/// The ways to Redis and RabbitMQ as the settings have them.
fn links(settings: &Settings, id: NodeId) -> Result<(Cache, BridgeSettings)> {
    let redis = settings.servers.cache();
    let key = settings.cluster.key.as_ref().map(Secret::expose).unwrap_or_default();
    let name = identity::name(&settings.cluster, settings.gateway.listen.port());
    let former = settings.cluster.key_former.as_ref().map(Secret::expose);
    let key = ClusterKey::new(key).and_then(|key| match former {
        Some(former) => key.after(former),
        None => Ok(key),
    });
    let bridge = key.map(|key| settings.servers.bridge(id.0, &name, key)).map_err(|wrong| vec![wrong]);
    match (Cache::connect(&redis, Clock::system()), bridge) {
        (Ok(cache), Ok(bridge)) => Ok((cache, bridge)),
        (cache, bridge) => {
            let wrong: Vec<String> = cache.err().into_iter().chain(bridge.err()).flatten().collect();
            Err(crate::config::wrong(&wrong))
        }
    }
}

/// What a process is told whose node another process is.
pub fn displaced(sentence: String) -> Error {
    Error::usage(sentence).hint(
        "the data folder was copied: remove node.id and the folder deploy from the copy, and what starts there is a node \
         of its own; of a node that was moved, stop the process where it was",
    )
}

/// Looks at the servers of a cluster without starting a node; a sentence for everything that is wrong.
pub async fn look_at_servers(settings: &Settings) -> Vec<String> {
    let data = &settings.node.data;
    let databases = Databases::new(settings.database.settings(data));
    let (cache, bridge) = match links(settings, NodeId::new()) {
        Ok(links) => links,
        Err(error) => return vec![error.sentence],
    };
    let (opened, mut wrong) = preflight::look(settings, data, &databases, &cache, bridge).await;
    if let Some(objects) = opened.objects.as_deref().filter(|_| wrong.is_empty()) {
        let issuer = Addresses::issuer_in_cluster(settings);
        wrong = fingerprints::Mine { settings, data, issuer: &issuer, objects }.look(&databases).await;
    }
    drop(opened);
    databases.close().await;
    wrong
}

/// Compares what nodes like this one may open with what the servers of PostgreSQL let in, without starting a node.
pub async fn look_at_capacity(settings: &Settings, mode: Mode) -> Vec<Shortage> {
    let databases = Databases::new(settings.database.settings(&settings.node.data));
    let shortages = capacity::look(settings, &hosted(settings, mode), &databases).await;
    databases.close().await;
    shortages
}

/// The domains that a node hosts.
pub fn hosted(settings: &Settings, mode: Mode) -> Vec<String> {
    match mode {
        Mode::Dev => DOMAINS.map(str::to_owned).to_vec(),
        Mode::Serve => settings.cluster.hosted(),
    }
}

/// Brings the schemas of these domains up to date, and those that every node uses.
pub async fn migrate(settings: &Settings, databases: &Databases, hosted: &[String]) -> Result {
    let of_domains = [
        (callboard_organization::DOMAIN, &callboard_organization::MIGRATIONS),
        (callboard_auth::DOMAIN, &callboard_auth::MIGRATIONS),
        (callboard_project::DOMAIN, &callboard_project::MIGRATIONS),
        (callboard_deploy::DOMAIN, &callboard_deploy::MIGRATIONS),
    ];
    let of_domains = of_domains.into_iter().filter(|(domain, _)| hosted.iter().any(|hosted| hosted == domain));
    let of_every_node = [
        (callboard_cluster::DOMAIN, &callboard_cluster::MIGRATIONS),
        (callboard_http::DOMAIN, &callboard_http::MIGRATIONS),
    ];
    for (domain, migrations) in of_domains.chain(of_every_node) {
        databases.migrate(domain, migrations).await.map_err(|error| {
            let sentence = Error::failure(error.to_string());
            match (error, &settings.database.url) {
                (MigrationError::TooNew { .. }, _) => {
                    sentence.hint("start the version that migrated it, or a newer one; nothing was changed")
                }
                (MigrationError::Open { .. }, Some(_)) => {
                    let variable = preflight::database_variable(settings, domain);
                    sentence.hint(format!("{variable} must name a PostgreSQL server that answers"))
                }
                _ => sentence,
            }
        })?;
    }
    Ok(())
}
