//! Puts a node together: the domains it hosts, the bridge to those it does not, the gateway and the router, in one
//! process. The list of domains is in `crate::domains`.

use std::{net::TcpListener, path::Path, sync::Arc};

use callboard_bridge::{Bridge, BridgeSettings, ClusterKey};
use callboard_cache::Cache;
use callboard_cluster::{ClusterMetrics, ClusterSettings, Seat, SeatError};
use callboard_http::{Gateway, Serving, router::Router};
use callboard_messages::{NodeId, Secret};
use callboard_platform::{cluster::Members, revocations::Revocations, routing::RoutingTable};
use callboard_supervisors::{
    Clock, Domain, LiveTopic, Runtime,
    db::{Databases, MigrationError},
    disk::Disk,
    seal::MasterKey,
};
use object_store::ObjectStore;

use super::{
    addresses::Addresses,
    capacity::{self, Shortage},
    fingerprints, identity,
    marked::Marked,
    objects, preflight, run_as,
};
use crate::{
    config::{Mode, Settings},
    domains::{self, DOMAINS, Entry, Store},
    error::{Context, Error, Result},
};

/// The plan of a node.
pub struct Plan<'a> {
    /// The operator's settings.
    pub settings: &'a Settings,
    /// Alone, or one of several.
    pub mode: Mode,
    /// The data folder.
    pub data: &'a Path,
    /// The node's id.
    pub id: NodeId,
    /// Wraps the keys of secrets.
    pub master_key: MasterKey,
    /// The URLs of the node.
    pub addresses: &'a Addresses,
}

/// The parts from which the domains of a node are built.
pub struct Parts<'a> {
    /// The operator's settings.
    pub settings: &'a Settings,
    /// The data folder.
    pub data: &'a Path,
    /// The node's id.
    pub id: NodeId,
    /// Wraps the keys of secrets.
    pub master_key: &'a MasterKey,
    /// The URLs of the node.
    pub addresses: &'a Addresses,
    /// The databases of all domains.
    pub databases: Databases,
    /// Sources and releases.
    pub objects: Arc<dyn ObjectStore>,
    /// The shared cache of the nodes.
    pub cache: Cache,
    /// Revocations of credentials.
    pub revocations: Revocations,
    /// The routes to apps.
    pub routes: RoutingTable,
    /// The membership of the cluster.
    pub members: Members,
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
    /// The membership of the cluster.
    pub members: Members,
    /// The bridge to other nodes; `None` for a node that is alone.
    pub bridge: Option<Bridge>,
}

/// The opened stores and servers of a node.
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
            watches
                .then(|| callboard_cache::revocations::watch(revocations.clone(), cache.clone()))
                .into_iter()
                .collect(),
        );
        let parts = Parts {
            settings,
            data,
            id: self.id,
            master_key: &self.master_key,
            addresses: self.addresses,
            databases: databases.clone(),
            objects: objects.clone(),
            cache: cache.clone(),
            revocations: revocations.clone(),
            routes: routes.clone(),
            members: members.clone(),
        };
        let mut domains: Vec<Domain> = bridge.iter().map(Bridge::domain).collect();
        domains.push(cluster);
        domains.extend(placed(&parts, &settings.cluster.hosted(mode), bridge.as_ref())?);
        check_routes(&domains)?;
        let store = objects::dependency(&settings.objects, data, mode == Mode::Serve)?;
        domains.push(callboard_http::domain(&databases, store));

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
            development: self.mode == Mode::Dev,
        };
        let serving =
            callboard_http::serve_on(listener, gateway).await.map_err(|error| Error::failure(error.to_string()))?;
        Ok(Assembled { runtime, databases, objects, serving, members, bridge })
    }

    /// The router to the apps of this node and of others.
    fn router(&self, routes: RoutingTable, members: &Members) -> Result<Router> {
        let router = Router::new(routes, self.settings.router.clone());
        match (self.mode, &self.settings.cluster.key) {
            (Mode::Serve, Some(key)) => router.among(members.clone(), key.expose().as_bytes()).map_err(Error::usage),
            _ => Ok(router),
        }
    }

    /// Checks the servers, opens the stores, and migrates every schema that this node uses.
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
        migrate(settings, &ground.databases, &settings.cluster.hosted(self.mode)).await?;
        if self.mode == Mode::Serve {
            let issuer = &self.addresses.issuer;
            let mine = fingerprints::Mine { settings, data, issuer, objects: &*ground.objects };
            mine.check(&ground.databases, self.id).await?;
            ground.objects = Arc::new(Marked::new(ground.objects));
            ground.seat = self.take_seat(&ground.databases).await?;
        }
        Ok(ground)
    }

    /// Ensures that no other process is this node, before anything is done in the node's name.
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
}

/// The domains of the list: built here, or as remote stand-ins.
fn placed(parts: &Parts<'_>, hosted: &[String], bridge: Option<&Bridge>) -> Result<Vec<Domain>> {
    let domain = |entry: &Entry| match bridge {
        Some(bridge) if !hosted.iter().any(|name| name == entry.name) => {
            Ok((entry.remote)(bridge.transport()).requires(parts.members.hosting(entry.name)))
        }
        _ => {
            let domain = (entry.host)(parts)?;
            if domain.shards() != entry.shards {
                let (name, has, listed) = (entry.name, domain.shards(), entry.shards);
                return Err(Error::failure(format!("{name} has {has:?} shards, but {listed:?} in src/domains.rs")));
            }
            Ok(domain)
        }
    };
    DOMAINS.iter().map(domain).collect()
}

/// Refuses a node whose gateway has unanswered routes or live topics: a domain is missing in the list, or an operation in a
/// contract.
fn check_routes(domains: &[Domain]) -> Result {
    let answered: Vec<&str> = domains.iter().flat_map(Domain::answers).map(|(name, _)| name).collect();
    let mut unanswered = callboard_http::unanswered(answered.iter().copied());
    let followed = domains.iter().flat_map(Domain::topics).flat_map(LiveTopic::asks);
    unanswered.extend(followed.filter(|operation| !answered.contains(operation)));
    unanswered.sort_unstable();
    unanswered.dedup();
    if unanswered.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!("the gateway has routes for what no domain answers: {}", unanswered.join(", "))).hint(
        "this program was put together wrongly: add the domain to src/domains.rs, or the operation to its contract",
    ))
}

/// The clients of Redis and RabbitMQ from the settings.
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

/// The error of a process whose node another process is.
pub fn displaced(sentence: String) -> Error {
    Error::usage(sentence).hint(
        "the data folder was copied: remove node.id and the folder deploy from the copy, and what starts there is a node \
         of its own; of a node that was moved, stop the process where it was",
    )
}

/// Checks the servers of a cluster without starting a node; a sentence for every mistake.
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

/// Compares the connections that nodes like this one may open with the limits of the PostgreSQL servers, without
/// starting a node.
pub async fn look_at_capacity(settings: &Settings, mode: Mode) -> Vec<Shortage> {
    let databases = Databases::new(settings.database.settings(&settings.node.data));
    let shortages = capacity::look(settings, &settings.cluster.hosted(mode), &databases).await;
    databases.close().await;
    shortages
}

/// Migrates the schemas of these domains, and those that every node uses.
pub async fn migrate(settings: &Settings, databases: &Databases, hosted: &[String]) -> Result {
    for Store { name: domain, migrations, .. } in domains::stores_of(hosted) {
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

#[cfg(test)]
mod tests {
    use callboard_messages::{Access, Operation, cluster::ClusterError, live::Topic};
    use callboard_supervisors::remote::Nowhere;
    use serde::{Deserialize, Serialize};
    use uuid::Uuid;

    use super::*;
    use crate::error::Status;

    /// Asked by whoever follows, and answered by nobody.
    #[derive(Serialize, Deserialize)]
    struct Astray;

    impl Operation for Astray {
        const NAME: &'static str = "stray.ask";
        const ACCESS: Access = Access::Authenticated;
        type Reply = ();
        type Error = ClusterError;
    }

    impl Topic for Astray {
        const KIND: &'static str = "stray";
        type Admission = Self;

        fn admission(_: Uuid) -> Self {
            Self
        }
    }

    #[test]
    fn a_node_whose_gateway_leads_nowhere_is_refused_with_the_operations_that_nobody_answers() {
        let represented = |entry: &Entry| (entry.remote)(Arc::new(Nowhere));
        let of_every_node = || callboard_cluster::contract().remote(Arc::new(Nowhere));
        let all: Vec<Domain> = DOMAINS.iter().map(represented).chain([of_every_node()]).collect();
        assert!(check_routes(&all).is_ok());
        let astray = Domain::new("stray").answering::<()>().topic::<Astray>().remote(Arc::new(Nowhere));
        let refused = check_routes(&all.into_iter().chain([astray]).collect::<Vec<_>>()).unwrap_err();
        assert!(refused.sentence.ends_with(": stray.ask"), "{}", refused.sentence);
        let without = DOMAINS.iter().filter(|entry| entry.name != callboard_organization::DOMAIN).map(represented);
        let refused = check_routes(&without.chain([of_every_node()]).collect::<Vec<_>>()).unwrap_err();
        assert_eq!(refused.status, Status::Usage);
        for operation in ["organization.create", "organization.delete", "organization.get"] {
            assert!(refused.sentence.contains(operation), "{}", refused.sentence);
        }
        assert!(!refused.sentence.contains("project."), "{}", refused.sentence);
    }
}
