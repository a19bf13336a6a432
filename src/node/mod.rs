//! A node: one process with every domain, the gateway and the router.
//!
//! `assembly` puts the parts together and is the only place that names every domain; this file is the life of a node
//! from its start to its end.

mod addresses;
mod announce;
mod assembly;
mod credentials;
mod lock;
mod logging;
mod master_key;
mod run_as;
mod sample;
mod signals;

use std::time::{Duration, Instant};

use callboard_supervisors::Runtime;

use crate::{
    config::Settings,
    error::{Context, Error, Result},
};
use addresses::Addresses;
use assembly::Assembled;
use credentials::Credentials;
use signals::Signals;

/// How long the domains may take to be ready.
const READY: Duration = Duration::from_secs(30);
/// How long requests that are open may take when the node stops.
const DRAIN_SECONDS: u64 = 10;
/// How long the domains, and with them the apps, may take after that. Together less than the 25 s a node promises.
const STOP: Duration = Duration::from_secs(13);

/// How a node is started.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Deploy the sample app at the first start.
    pub sample: bool,
    /// Announce as one JSON document.
    pub json: bool,
}

/// Runs a node until it is told to stop.
pub fn run(settings: Settings, options: Options) -> Result {
    let began = Instant::now();
    logging::start(&settings.node.log)?;
    // Held until the process has let go of everything in the folder.
    let _lock = lock::take(&settings.node.data)?;
    raise_open_files();
    close_memory();
    actix_rt::System::new().block_on(live(settings, options, began))
}

async fn live(mut settings: Settings, options: Options, began: Instant) -> Result {
    let mut signals = Signals::listen()?;
    settings.gateway.shutdown_seconds = DRAIN_SECONDS;
    let data = settings.node.data.canonicalize().context(|| format!("open {}", settings.node.data.display()))?;
    let (master_key, first_start) = master_key::load(settings.node.master_key.as_ref(), &data)?;
    settings.deploy.run_as = run_as::choose(settings.deploy.run_as, &data)?;
    let (addresses, listener) = Addresses::take(&mut settings)?;
    let Assembled { runtime, databases, objects, mut serving } =
        assembly::assemble(&settings, &data, master_key, &addresses, listener).await?;
    let server = actix_rt::spawn(serving.server);

    let mut credentials = Credentials::new(runtime.clone(), &data, addresses.local.clone());
    let started = async {
        let serves = actix_rt::time::timeout(READY, serving.ready.wait()).await;
        if serves != Ok(true) {
            return Err(Error::failure("the gateway does not start; the log tells why"));
        }
        become_ready(&runtime).await?;
        Ok(credentials.issue().await)
    };
    let failed = match started.await {
        Ok(issued) => {
            let sample = options.sample && first_start;
            let sample_url = sample.then(|| addresses.app(sample::NAME));
            let setup = credentials.setup();
            announce::ready(&addresses, setup, sample_url.as_deref(), &data, began.elapsed(), options.json);
            let bus = runtime.bus().clone();
            let rest = actix_rt::spawn(async move {
                if let Err(error) = issued {
                    finish_issuing(&mut credentials, &addresses, &error, options.json).await;
                }
                if let Some(key) = credentials.key().filter(|_| sample) {
                    sample::deploy(bus, objects, key.clone()).await;
                }
            });
            let signal = signals.first().await;
            tracing::info!(signal, "stopping");
            rest.abort();
            None
        }
        Err(error) => Some(error),
    };

    signals.exit_on_second();
    serving.stop.stop().await;
    runtime.stop(STOP).await;
    databases.close().await;
    server.await.map(drop).context(|| "stop the server".to_owned())?;
    tracing::info!("stopped");
    failed.map_or(Ok(()), Err)
}

/// Says what could not be issued, and issues it when that can be done.
async fn finish_issuing(credentials: &mut Credentials, addresses: &Addresses, error: &Error, as_json: bool) {
    tracing::warn!(
        "{}; the node serves, and tries again until the command line here is signed in: make room on the disk, or see \
         what else keeps the data folder from being written",
        error.sentence
    );
    let announced = credentials.setup().is_some();
    credentials.issue_later().await;
    if let Some(token) = credentials.setup().filter(|_| !announced) {
        announce::setup(addresses, token, as_json);
    }
}

/// Waits until every domain may take traffic.
async fn become_ready(runtime: &Runtime) -> Result {
    let deadline = Instant::now() + READY;
    loop {
        let waiting: Vec<_> = runtime.ready().into_iter().filter(|domain| !domain.ready).collect();
        let Some(first) = waiting.first() else { return Ok(()) };
        if Instant::now() > deadline {
            let reason = first.reason.as_deref().unwrap_or("it does not say why");
            return Err(Error::failure(format!("the domain {} does not start: {reason}", first.domain)));
        }
        actix_rt::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Programs of the same user can't read this process's variables and memory, which hold keys, and it dumps no core.
fn close_memory() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "the node's memory could not be closed to other processes");
    }
}

/// Every visitor costs a descriptor or two; the usual soft limit is 1,024. Children have limits of their own.
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
