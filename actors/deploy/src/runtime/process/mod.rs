//! Instances as child processes of the node.
//!
//! Each instance is a session of its own with limits, a clean environment, a port on loopback and pipes for its
//! output. The pipes end with the node, so instances do not outlive it usefully: after a `kill -9` a guard finds what is
//! left, by written records, by control groups and by the node's token in the environment of every process, and ends
//! it, as does the next start; whoever owns the releases starts them anew.
//!
//! This is no boundary between tenants who do not trust each other: unless [`ProcessSettings::run_as`] is set, an app
//! runs as the node's own user and can read what that user can. Only the folders that the [`Launcher`] hides, other
//! processes and their memory are kept from it, where the kernel knows Landlock.

mod guard;
mod record;
mod supervise;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsString,
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use callboard_messages::project::is_platform_variable;
use chrono::Utc;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};

pub use self::guard::guard;
use self::{
    record::Record,
    supervise::{Folders, Supervised},
};
use super::{InstanceLimits, InstanceSpec, Isolation, Orphan, RunningInstance, Runtime, StartError, instance::Link};
use crate::{
    folder::{self, Cleaner},
    limits::{Launch, RunAs},
    output::{LineSink, OutputLimits, Stream, Tail},
    process::{Census, CgroupLimits, Launcher, Listeners, Streams, Usage},
};

/// How often the folders of an instance are measured: it takes a look at each of its files.
const FOLDERS_MEASURED_EVERY: Duration = Duration::from_secs(10);

/// How instances run as processes.
#[derive(Debug, Clone)]
pub struct ProcessSettings {
    /// How they are started.
    pub launcher: Launcher,
    /// A folder of the node for records and for each instance's home; made if it is not there.
    pub state: PathBuf,
    /// What serves a static site: it gets the folder as its last argument and listens on `PORT` of 127.0.0.1. Such as
    /// `["/proc/self/exe", "static-server"]`.
    pub static_server: Vec<String>,
    /// What passes of an instance's output.
    pub output: OutputLimits,
    /// The user instances run as.
    pub run_as: Option<RunAs>,
}

/// Runs instances as child processes.
pub struct ProcessRuntime {
    settings: ProcessSettings,
    census: Arc<Census>,
    ports: Arc<Mutex<HashSet<u16>>>,
    folders_measured_every: Duration,
    measurements: Arc<Semaphore>,
}

impl ProcessRuntime {
    /// A runtime with its state in `settings.state`.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn new(settings: ProcessSettings) -> io::Result<Self> {
        folder::make_passable(&settings.state)?;
        Ok(Self {
            settings,
            census: Arc::default(),
            ports: Arc::default(),
            folders_measured_every: FOLDERS_MEASURED_EVERY,
            measurements: Arc::new(Semaphore::new(1)),
        })
    }

    /// With a process beside the node that ends what the node leaves running when it is killed. `argv` starts it, such as
    /// `["/proc/self/exe", "guard"]`: see [`guard()`].
    ///
    /// # Errors
    /// When it can't be set up. One that ends later is started again.
    pub fn guarded(self, argv: Vec<String>) -> io::Result<Self> {
        guard::start(argv, &self.settings.launcher, &self.settings.state)?;
        Ok(self)
    }

    /// Lets an instance write in its own folder, as one of the node's own user may.
    async fn give_release(&self, spec: &InstanceSpec) -> io::Result<()> {
        let Some(user) = self.settings.run_as else { return Ok(()) };
        let release = spec.release.clone();
        tokio::task::spawn_blocking(move || folder::give_once(&release, user)).await.map_err(io::Error::other)?
    }

    fn spawn_now(&self, spec: &InstanceSpec, sink: &LineSink) -> io::Result<RunningInstance> {
        let id = spec.id.0;
        let scratch = self.settings.state.join(id.to_string());
        let cleaner = Cleaner::new(&scratch);
        folder::make_private(&scratch, &["home", "tmp"], self.settings.run_as)?;
        let port = spec.listens.then(|| Port::choose(&self.ports)).transpose()?;
        let number = port.as_ref().map(|port| port.number);
        let environment = self.environment(spec, &scratch, number);
        let argv: Vec<OsString> =
            spec.command.argv(&self.settings.static_server).into_iter().map(OsString::from).collect();
        let launcher = &self.settings.launcher;
        let (mut child, family) = launcher.spawn(
            id,
            &Launch {
                own: vec![scratch.clone(), spec.release.clone()],
                folder: spec.release.clone(),
                ..self.launch(&spec.limits)
            },
            &limits(&spec.limits),
            &argv,
            &environment,
            Streams::default(),
        )?;
        let pid = child.id();
        let record = Record::write(&self.settings.state, id, family.leader(), family.start_time())?;

        let tail = Arc::new(Mutex::new(Tail::default()));
        let sink = LineSink::new({
            let (tail, sink) = (tail.clone(), sink.clone());
            move |line| {
                if line.stream != Stream::System {
                    tail.lock().push(&line.text);
                }
                sink.pass(line);
            }
        });
        let (exit_sender, exit) = watch::channel(None);
        let (usage_sender, usage) = watch::channel(Usage::default());
        let (stop, stops) = mpsc::unbounded_channel();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let signs = family.signs().clone();
        let supervised = Supervised {
            child,
            family,
            spec: spec.clone(),
            census: self.census.clone(),
            tail: tail.clone(),
            exit: exit_sender,
            usage: usage_sender,
            stops,
            held: (port, record, cleaner),
        };
        let folders = Folders {
            own: vec![spec.release.clone(), scratch],
            every: self.folders_measured_every,
            places: self.measurements.clone(),
        };
        supervised.begin(stdout, stderr, self.settings.output.clone(), sink, folders);
        let listeners = Arc::new(move || {
            let pids: Vec<i32> = signs.members().iter().map(|process| process.pid).collect();
            Listeners::of(&pids)
        });
        Ok(RunningInstance {
            id: spec.id,
            process: spec.process.clone(),
            pid,
            port: number,
            on_v6: AtomicBool::new(false),
            started_at: Utc::now(),
            link: Link { tail, exit, stop, usage, listeners },
        })
    }

    fn launch(&self, limits: &InstanceLimits) -> Launch {
        // Where the kernel does not count memory, one process can outrun our measuring only so far.
        let counted = self.settings.launcher.cgroups.limits_memory();
        let data = (!counted).then(|| limits.memory.saturating_mul(4).saturating_add(512 * 1024 * 1024));
        Launch {
            open_files: limits.open_files,
            file_size: limits.file_size,
            data,
            run_as: self.settings.run_as,
            ..Launch::default()
        }
    }

    fn environment(&self, spec: &InstanceSpec, scratch: &Path, port: Option<u16>) -> Vec<(OsString, OsString)> {
        let release = fs::canonicalize(&spec.release).unwrap_or_else(|_| spec.release.clone());
        let scratch = fs::canonicalize(scratch).unwrap_or_else(|_| scratch.to_owned());
        let mut all = BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]);
        let of_plan = spec.run_environment.variables(&release, &self.settings.launcher.path);
        all.extend(of_plan);
        all.extend(spec.environment.clone().into_iter().filter(|(name, _)| !is_platform_variable(name)));
        for (name, folder) in [("HOME", "home"), ("TMPDIR", "tmp")] {
            all.insert(name.to_owned(), scratch.join(folder).display().to_string());
        }
        all.extend(port.map(|port| ("PORT".to_owned(), port.to_string())));
        // An owner's variable can't hold a NUL; the API refuses it, and `Command` would refuse to start.
        all.retain(|name, value| !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
        all.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    async fn end_all_orphans(&self) -> Vec<Orphan> {
        let launcher = &self.settings.launcher;
        let records = Record::all(&self.settings.state);
        let is_active = |id| launcher.is_active(id);
        let families = record::left_behind(&launcher.node, &launcher.cgroups, &records, is_active);
        let mut orphans = Vec::new();
        for (id, mut family) in families {
            if launcher.is_active(id) {
                family.disarm();
                continue;
            }
            let processes = family.members().len();
            family.kill().await;
            family.disarm();
            if processes > 0 {
                tracing::warn!(%id, processes, "ended what an earlier life of this node left running");
                orphans.push(Orphan { id, processes });
            }
        }
        for (id, record) in records.into_iter().filter(|(id, _)| !launcher.is_active(*id)) {
            drop(Cleaner::new(&self.settings.state.join(id.to_string())));
            record.remove();
        }
        orphans
    }
}

impl Runtime for ProcessRuntime {
    fn spawn(&self, spec: InstanceSpec, sink: LineSink) -> BoxFuture<'_, Result<RunningInstance, StartError>> {
        Box::pin(async move {
            let started = match self.give_release(&spec).await {
                Ok(()) => self.spawn_now(&spec, &sink),
                Err(error) => Err(error),
            };
            started.map_err(|error| StartError::Node { process: spec.process.clone(), error })
        })
    }

    fn end_orphans(&self) -> BoxFuture<'_, Vec<Orphan>> {
        Box::pin(self.end_all_orphans())
    }

    fn isolation(&self) -> Isolation {
        let cgroups = &self.settings.launcher.cgroups;
        Isolation {
            memory: cgroups.limits_memory(),
            processes: cgroups.limits_processes(),
            cpu: cgroups.limits_cpu(),
            other_user: self.settings.run_as.is_some(),
        }
    }
}

fn limits(limits: &InstanceLimits) -> CgroupLimits {
    CgroupLimits { processes: limits.processes, memory: limits.memory, cpus: limits.cpus }
}

/// A port that no other instance of this node is given.
struct Port {
    number: u16,
    taken: Arc<Mutex<HashSet<u16>>>,
}

impl Port {
    fn choose(taken: &Arc<Mutex<HashSet<u16>>>) -> io::Result<Self> {
        for _ in 0..50 {
            let number = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            // Most servers listen on all addresses, so it must be free on all of them.
            if TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok() && taken.lock().insert(number) {
                return Ok(Self { number, taken: taken.clone() });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free on this node"))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.taken.lock().remove(&self.number);
    }
}
