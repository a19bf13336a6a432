//! Instances as child processes of the node.
//!
//! Each instance is a session of its own with limits, a clean environment, a port on loopback and pipes for its output.
//! Its reaper ends it when the node is gone, also by a `kill -9`. An instance that loses its reaper as well is found at
//! the next start of the node by its record, its control group, or the node's token in its environment; its owner then
//! starts it anew.
//!
//! This is no boundary between tenants who do not trust each other: unless [`ProcessSettings::run_as`] is set, an app
//! runs as the node's own user and can read what that user can. Only the folders that the [`Launcher`] hides, other
//! processes and their memory are kept from it, where the kernel supports Landlock.

mod record;
mod supervise;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsString,
    io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use callboard_messages::project::is_platform_variable;
use callboard_supervisors::fs;
use chrono::Utc;
use futures_util::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use self::{
    record::Record,
    supervise::{Folders, Held, Supervised},
};
use super::{InstanceLimits, InstanceSpec, Isolation, Orphan, RunningInstance, Runtime, StartError, instance::Link};
use crate::{
    folder::{self, trash::Trash},
    logs::{
        last_words::LastLines,
        output::{LineSink, OutputLimits, Stream},
    },
    pools::{self, Pools},
    process::{
        self, Census, CgroupLimits, Launcher, Program, Share, Streams, Usage,
        trampoline::{Launch, RunAs},
    },
};

/// Interval of measuring the folders of an instance, which reads the metadata of each of its files.
const FOLDERS_MEASURED_EVERY: Duration = Duration::from_secs(10);

/// How instances run as processes.
#[derive(Debug, Clone)]
pub struct ProcessSettings {
    /// How they are started.
    pub launcher: Launcher,
    /// A folder of the node for records and for each instance's home; created if it does not exist.
    pub state: PathBuf,
    /// Receives the homes of instances that have ended; on the same disk.
    pub trash: Trash,
    /// The command that serves a static site: it gets the folder as its last argument and listens on `PORT` of
    /// 127.0.0.1. Such as `["/proc/self/exe", "static-server"]`.
    pub static_server: Vec<String>,
    /// Limits of an instance's output.
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
}

impl ProcessRuntime {
    /// A runtime with its state in `settings.state`. Blocks; at start, before anything runs.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn new(settings: ProcessSettings) -> io::Result<Self> {
        process::adopt()?;
        folder::make_passable(&settings.state)?;
        Ok(Self {
            settings,
            census: Arc::default(),
            ports: Arc::default(),
            folders_measured_every: FOLDERS_MEASURED_EVERY,
        })
    }

    fn pools(&self) -> &Pools {
        &self.settings.launcher.pools
    }

    /// Gives the release's folder to the user that instances run as, if there is one.
    async fn give_release(&self, spec: &InstanceSpec) -> io::Result<()> {
        let Some(user) = self.settings.run_as else { return Ok(()) };
        let release = spec.release.clone();
        pools::io(&self.pools().archives, move || folder::give_once(&release, user)).await
    }

    /// Creates the instance's own folders beside its release.
    async fn make_folders(&self, spec: &InstanceSpec, scratch: &Path) -> io::Result<InstanceFolders> {
        let (release, scratch, user) = (spec.release.clone(), scratch.to_owned(), self.settings.run_as);
        pools::io(&self.pools().prompt, move || {
            folder::make_private(&scratch, &["home", "tmp"], user)?;
            let real = |folder: &Path| fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
            Ok(InstanceFolders { release: real(&release), scratch: real(&scratch) })
        })
        .await
    }

    async fn spawn_in(&self, scratch: &Path, spec: &InstanceSpec, sink: &LineSink) -> io::Result<RunningInstance> {
        let id = spec.id.0;
        let folders = self.make_folders(spec, scratch).await?;
        let port = spec.listens.then(|| Port::choose(&self.ports)).transpose()?;
        let number = port.as_ref().map(|port| port.number);
        let argv = spec.command.argv(&self.settings.static_server).into_iter().map(OsString::from).collect();
        let own = vec![scratch.to_owned(), spec.release.clone()];
        let program = Program {
            id,
            launch: Launch {
                folder: spec.release.clone(),
                own: own.clone(),
                temporary: Some(scratch.join("tmp")),
                ..self.launch(&spec.limits)
            },
            limits: limits(&spec.limits),
            argv,
            environment: self.environment(spec, &folders, number),
            streams: Streams::default(),
        };
        let mut child = self.settings.launcher.spawn(program).await?;
        let (pid, start_time, state) = (child.pid(), child.start_time(), self.settings.state.clone());
        let record = pools::io(&self.pools().prompt, move || Record::write(&state, id, pid, start_time)).await?;

        let tail = Arc::new(Mutex::new(LastLines::default()));
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
        let output = child.output();
        let gauge = child.gauge();
        let supervised = Supervised {
            child,
            spec: spec.clone(),
            gauge: gauge.clone(),
            census: self.census.clone(),
            tail: tail.clone(),
            exit: exit_sender,
            usage: usage_sender,
            stops,
            held: Held {
                port,
                record,
                scratch: scratch.to_owned(),
                trash: self.settings.trash.clone(),
                pools: self.pools().clone(),
            },
        };
        let folders = Folders { own, every: self.folders_measured_every, pool: self.pools().measures.clone() };
        supervised.begin(output, self.settings.output.clone(), sink, folders);
        let listeners = Arc::new(move || {
            let gauge = gauge.clone();
            async move { gauge.listeners().await }.boxed()
        });
        Ok(RunningInstance {
            id: spec.id,
            process: spec.process.clone(),
            pid: u32::try_from(pid).ok(),
            port: number,
            on_v6: AtomicBool::new(false),
            started_at: Utc::now(),
            link: Link { tail, exit, stop, usage, listeners },
        })
    }

    fn launch(&self, limits: &InstanceLimits) -> Launch {
        // Where the kernel does not count memory, this limits how far one process can grow between two measurements.
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

    fn environment(
        &self,
        spec: &InstanceSpec,
        folders: &InstanceFolders,
        port: Option<u16>,
    ) -> Vec<(OsString, OsString)> {
        let mut all = BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]);
        let of_plan = spec.run_environment.variables(&folders.release, &self.settings.launcher.path);
        all.extend(of_plan.clone());
        all.extend(spec.environment.clone().into_iter().filter(|(name, _)| !is_platform_variable(name)));
        all.extend(of_plan.get("PATH").map(|path| ("PATH".to_owned(), path.clone())));
        for (name, folder) in [("HOME", "home"), ("TMPDIR", "tmp")] {
            all.insert(name.to_owned(), folders.scratch.join(folder).display().to_string());
        }
        all.extend(port.map(|port| ("PORT".to_owned(), port.to_string())));
        // An owner's variable can't hold a NUL; the API refuses it, and `Command` would refuse to start.
        all.retain(|name, value| !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
        all.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    async fn end_all_orphans(&self) -> Vec<Orphan> {
        let (launcher, state) = (self.settings.launcher.clone(), self.settings.state.clone());
        let found = self.pools().prompt.run(None, move || {
            let records = Record::all(&state);
            let is_active = |id| launcher.is_active(id);
            let left = record::left_behind(&launcher.node, &launcher.cgroups, &records, is_active);
            (records, left)
        });
        let Ok((records, left)) = found.await else { return Vec::new() };
        let launcher = &self.settings.launcher;
        let mut orphans = Vec::new();
        for (id, leftover) in left.into_iter().filter(|(id, _)| !launcher.is_active(*id)) {
            let processes = leftover.end(self.pools()).await;
            if processes > 0 {
                tracing::warn!(%id, processes, "ended orphaned processes of an earlier run of this node");
                orphans.push(Orphan { id, processes });
            }
        }
        for (id, record) in records.into_iter().filter(|(id, _)| !launcher.is_active(*id)) {
            Held::give_back(record, &self.settings.state.join(id.to_string()), &self.settings.trash, self.pools())
                .await;
        }
        orphans
    }
}

/// The folders of an instance, as paths without links.
struct InstanceFolders {
    release: PathBuf,
    scratch: PathBuf,
}

impl Runtime for ProcessRuntime {
    fn spawn(&self, spec: InstanceSpec, sink: LineSink) -> BoxFuture<'_, Result<RunningInstance, StartError>> {
        Box::pin(async move {
            let scratch = self.settings.state.join(spec.id.to_string());
            let started = match self.give_release(&spec).await {
                Ok(()) => self.spawn_in(&scratch, &spec, &sink).await,
                Err(error) => Err(error),
            };
            if started.is_err()
                && let Err(error) = self.settings.trash.discard(scratch).await
            {
                tracing::warn!(id = %spec.id, %error, "removing the folders of an instance that did not start failed");
            }
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
    CgroupLimits { processes: limits.processes, memory: limits.memory, cpus: limits.cpus, share: Share::Apps }
}

/// A port reserved for one instance of this node.
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
