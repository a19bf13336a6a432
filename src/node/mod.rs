//! A node: one process with the domains it hosts, the bridge to the others, the gateway and the router.
//!
//! `assembly` puts the parts together; this file is the life cycle of a node from its start to its end.

mod addresses;
mod announce;
mod assembly;
mod capacity;
mod credentials;
mod deploy;
mod drain;
mod fingerprints;
mod hidden;
mod identity;
mod lock;
mod marked;
mod master_key;
mod objects;
mod preflight;
mod run_as;
mod sample;
mod signals;
mod telemetry;

use std::time::{Duration, Instant};

use callboard_cluster::{ClusterSettings, Fingerprints};
use callboard_platform::cluster::Members;
use callboard_supervisors::{
    Part, Readiness, Runtime,
    db::{Databases, ServerWatch},
};
use chrono::{DateTime, Utc};

use crate::{
    config::{LogFormat, Mode, Settings},
    domains,
    error::{Context, Error, Result},
};
use addresses::Addresses;
use assembly::Plan;
pub use assembly::{Parts, look_at_capacity, look_at_servers};
use credentials::Credentials;
pub use deploy::deploy;
use signals::Signals;

/// Time limit of the hosted domains to be ready.
const READY: Duration = Duration::from_secs(30);
/// How long the start waits for the domains of other nodes, without which it serves what it can.
const OTHERS: Duration = Duration::from_secs(10);

/// How a node is started.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Alone, or one of several.
    pub mode: Mode,
    /// Deploy the sample app at the first start.
    pub sample: bool,
    /// Announce as one JSON document.
    pub json: bool,
}

/// Runs a node until it is told to stop.
pub fn run(settings: Settings, options: Options) -> Result {
    let began = Instant::now();
    let (format, name) = match options.mode {
        Mode::Dev => (LogFormat::Pretty, "dev".to_owned()),
        Mode::Serve => (LogFormat::Json, identity::name(&settings.cluster, settings.gateway.listen.port())),
    };
    // Dropped last, once there is nothing left to log.
    let _telemetry = telemetry::start(&settings.node.log, &settings.telemetry, format, &name)?;
    // Held until the process uses nothing in the folder any more.
    let _lock = lock::take(&settings.node.data)?;
    raise_open_files();
    close_memory();
    actix_rt::System::new().block_on(live(settings, options, began))
}

/// Migrates every domain's schema. Returns the names of the domains.
pub async fn migrate(settings: &Settings) -> Result<Vec<String>> {
    let databases = Databases::new(settings.database.settings(&settings.node.data));
    let domains: Vec<String> = domains::names().map(str::to_owned).collect();
    let migrated = assembly::migrate(settings, &databases, &domains).await;
    databases.close().await;
    migrated?;
    Ok(domains::stores().map(|store| store.name.to_owned()).collect())
}

/// The recorded settings that the nodes of a cluster must have in common, each with its time.
pub async fn fingerprints(settings: &Settings) -> Result<Vec<(String, DateTime<Utc>)>> {
    with_databases(settings, async |databases| {
        let cannot = || "read what the nodes have in common".to_owned();
        let recorded = Fingerprints::open(databases).await.context(cannot)?;
        let all = recorded.all().await.context(cannot)?;
        Ok(all.into_iter().map(|recorded| (recorded.part, recorded.recorded_at)).collect())
    })
    .await
}

/// Removes the record of one of these, which the next node to start then records.
pub async fn forget_fingerprint(settings: &Settings, part: &str) -> Result {
    with_databases(settings, async |databases| fingerprints::forget(databases, part).await).await
}

async fn with_databases<T>(settings: &Settings, work: impl AsyncFnOnce(&Databases) -> Result<T>) -> Result<T> {
    let databases = Databases::new(settings.database.settings(&settings.node.data));
    let outcome = work(&databases).await;
    databases.close().await;
    outcome
}

async fn live(mut settings: Settings, options: Options, began: Instant) -> Result {
    let mut signals = Signals::listen()?;
    let mode = options.mode;
    settings.gateway.shutdown_seconds = drain::requests(mode).as_secs();
    let data = settings.node.data.canonicalize().context(|| format!("open {}", settings.node.data.display()))?;
    let (master_key, has_new_key) = master_key::load(settings.node.master_key.as_ref(), &data)?;
    // In a cluster the key is configured, and a folder that no node has used yet has no id.
    let first_start = has_new_key || (mode == Mode::Serve && !identity::is_known(&data));
    settings.deploy.run_as = run_as::choose(settings.deploy.run_as, &data)?;
    let (addresses, listener) = Addresses::take(&mut settings, mode)?;
    let id = identity::id(&data)?;
    let plan = Plan { settings: &settings, mode, data: &data, id, master_key, addresses: &addresses };
    // A node that waits for a server can be stopped meanwhile.
    let mut assembled = tokio::select! {
        assembled = plan.assemble(listener) => assembled?,
        signal = signals.first() => {
            tracing::info!(signal, "stopped before it was ready");
            return Ok(());
        }
    };
    let (runtime, ready) = (assembled.runtime.clone(), &mut assembled.serving.ready);
    let hosted = settings.cluster.hosted(mode);
    let servers = capacity::of_this_node(&settings, &hosted);
    let connections = ServerWatch::register(assembled.databases.clone(), servers, runtime.metrics())
        .context(|| "measure the connections to the database".to_owned())?;
    let connections = actix_rt::spawn(connections.run());
    ready.hold();
    let server = actix_rt::spawn(assembled.serving.server);

    let mut credentials = Credentials::new(runtime.clone(), id, &data, addresses.local.clone());
    let started = async {
        let serves = actix_rt::time::timeout(READY, ready.wait()).await;
        if serves != Ok(true) {
            return Err(Error::failure("the gateway does not start; the log tells why"));
        }
        become_ready(&runtime).await?;
        if mode == Mode::Serve {
            become_known(&assembled.members).await?;
        }
        for shortage in capacity::look(&settings, &hosted, &assembled.databases).await {
            tracing::warn!("{}; {}", shortage.what, shortage.mend);
        }
        let issued = credentials.issue_soon(mode).await;
        // `/ready` must not be true before the command line's file exists.
        ready.release();
        Ok(issued)
    };
    // A node that waits for its domains, or for other nodes, can be stopped meanwhile.
    let started = tokio::select! {
        started = started => Some(started),
        signal = signals.first() => {
            tracing::info!(signal, "stopped before it was ready");
            None
        }
    };
    let failed = match started {
        None => None,
        Some(Ok(issued)) => {
            let sample = options.sample && first_start;
            let sample_url = sample.then(|| addresses.app(sample::NAME));
            let setup = credentials.setup();
            announce::ready(&addresses, setup, sample_url.as_deref(), &data, began.elapsed(), options.json);
            let (bus, objects) = (runtime.bus().clone(), assembled.objects);
            let rest = actix_rt::spawn(async move {
                if let Err(error) = issued {
                    finish_issuing(&mut credentials, &addresses, &error, options.json).await;
                }
                if let Some(key) = credentials.key().filter(|_| sample) {
                    sample::deploy(bus, objects, key.clone()).await;
                }
            });
            let ended = tokio::select! {
                signal = signals.first() => {
                    tracing::info!(signal, "stopping");
                    None
                }
                sentence = assembled.members.displaced() => {
                    tracing::error!(sentence, "this process is not its node any more, and ends");
                    Some(assembly::displaced(sentence))
                }
            };
            rest.abort();
            ended
        }
        Some(Err(error)) => Some(error),
    };

    connections.abort();
    signals.exit_on_second();
    // Apps that belong to another process by now are not handed over.
    let is_node = !assembled.members.is_displaced();
    let others = assembled.bridge.as_ref().filter(|_| is_node).map(|bridge| (&assembled.members, bridge));
    drain::run(&assembled.serving.stop, &runtime, &assembled.databases, others).await;
    server.await.map(drop).context(|| "stop the server".to_owned())?;
    tracing::info!("stopped");
    failed.map_or(Ok(()), Err)
}

/// Logs what could not be issued, and issues it as soon as possible.
async fn finish_issuing(credentials: &mut Credentials, addresses: &Addresses, error: &Error, as_json: bool) {
    tracing::warn!(
        "{}; the node serves, and tries again until the command line here is signed in: make room on the disk, or see \
         what else keeps the data folder from being written, or auth from answering",
        error.sentence
    );
    let announced = credentials.setup().is_some();
    credentials.issue_later().await;
    if let Some(token) = credentials.setup().filter(|_| !announced) {
        announce::setup(addresses, token, as_json);
    }
}

/// Waits until every hosted domain is ready, and for a while for those of other nodes.
async fn become_ready(runtime: &Runtime) -> Result {
    let (deadline, others) = (Instant::now() + READY, Instant::now() + OTHERS);
    loop {
        // An absent server is no reason not to serve the rest, and is not awaited.
        let is_own = |domain: &&Readiness| !domain.remote && domain.part == Some(Part::Domain);
        let waiting: Vec<_> = runtime.ready().into_iter().filter(|domain| !domain.ready).collect();
        let of_others = || waiting.iter().find(|domain| domain.remote);
        let Some(first) = waiting.iter().find(is_own).or_else(of_others) else { return Ok(()) };
        let reason = first.reason.as_deref().unwrap_or("it does not say why");
        if first.remote && Instant::now() > others {
            tracing::warn!(domain = first.domain, reason, "this node serves without the domains of other nodes so far");
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::failure(format!("the domain {} does not start: {reason}", first.domain)));
        }
        actix_rt::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until this node has joined the others, and each of them has had the time to see it: a client that sees this
/// node ready may ask any other for it.
async fn become_known(members: &Members) -> Result {
    let mut changes = members.clone();
    let joined = async {
        while members.incarnation() == 0 {
            changes.changed().await;
        }
    };
    tokio::select! {
        joined = actix_rt::time::timeout(READY, joined) => if joined.is_err() {
            return Err(Error::failure("this node could not join the others; the log tells why"));
        },
        sentence = members.displaced() => return Err(assembly::displaced(sentence)),
    }
    actix_rt::time::sleep(ClusterSettings::default().beat).await;
    Ok(())
}

/// Keeps programs of the same user from reading this process's variables and memory, which hold keys, and from core
/// dumps.
fn close_memory() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "the node's memory could not be closed to other processes");
    }
}

/// Raises the soft limit of open files, usually 1,024: every visitor takes one or two. Children have limits of their
/// own.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const WANTED: u64 = 65_536;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < WANTED
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, WANTED.min(hard), hard)
    {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_memory_of_a_node_is_closed_to_other_processes_of_its_user() {
        super::close_memory();
        assert_eq!(nix::sys::prctl::get_dumpable(), Ok(false));
    }
}
