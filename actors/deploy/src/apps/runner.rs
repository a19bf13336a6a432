//! One instance: a running copy of a process type, from its first start until it has left.
//!
//! It starts the process, waits for its health, keeps asking, and starts it again with growing waits when it crashes
//! or stays unhealthy. When it is asked to leave, it gets no more requests first, finishes those it has, and then gets
//! SIGTERM. Each start is a new process with an id of its own, which is also what the router knows it by.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use callboard_messages::{
    Failure, InstanceId,
    deploy::{InstanceFact, InstanceStatus},
};
use callboard_supervisors::{ChildContext, ChildSpec, Exit, Restart, fs};

use super::{
    app::App,
    replica::{Member, State},
};
use crate::{
    apps::events::Told,
    build::package::{self, ContentId},
    context::Context,
    logs::output::LineSink,
    objects::Objects,
    runtime::{self, HealthCheck, InstanceLimits, InstanceSpec, RunningInstance, StartError},
};

/// A process that lived so long was well: the waits before its next starts begin anew.
const LONG_LIFE: Duration = Duration::from_secs(60);
/// What an instance gets beyond its own waits until it is dropped.
const SLACK: Duration = Duration::from_secs(5);

/// How one life of the process ended.
enum End {
    /// It was asked to leave, and has ended.
    Left,
    /// It ended by itself, or was ended because it was unhealthy.
    Crashed { sentence: String, last_words: Vec<String> },
}

impl End {
    /// It did not even start.
    const fn unstarted(sentence: String) -> Self {
        Self::Crashed { sentence, last_words: Vec::new() }
    }
}

/// The instance's actor.
pub(crate) fn actor(context: Context, app: Arc<App>, member: Arc<Member>) -> ChildSpec {
    let settings = &context.settings.instances;
    let within = settings.drain.max(settings.drain_at_stop) + settings.stop_grace + SLACK;
    let name = member.name.clone();
    let factory = move |child: ChildContext| {
        let life = Life { context: context.clone(), app: app.clone(), member: member.clone() };
        async move { life.run(child).await }
    };
    ChildSpec::new(name, factory).restart(Restart::Transient).stop_within(within)
}

struct Life {
    context: Context,
    app: Arc<App>,
    member: Arc<Member>,
}

impl Life {
    async fn run(&self, child: ChildContext) -> Exit {
        let (leaving, life) = (self.member.leaving.clone(), self.context.life());
        let told = async {
            tokio::select! {
                () = child.stopping() => leaving.cancel(),
                () = life.closing.cancelled() => leaving.cancel(),
                () = leaving.cancelled() => {}
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = told => {}
            () = self.live() => {}
        }
        self.remove_folder().await;
        self.context.telling.tell(Told::Stopped(self.fact(None)));
        self.member.state.send_modify(|state| state.gone = true);
        self.app.leave(&self.context, &self.member);
        Exit::Normal
    }

    async fn live(&self) {
        let backoff = self.context.settings.instances.backoff;
        let mut crashes = 0;
        loop {
            let began = self.context.clock.instant();
            let End::Crashed { sentence, last_words } = self.live_once().await else { return };
            if self.context.clock.instant().saturating_duration_since(began) >= LONG_LIFE {
                crashes = 0;
            }
            let wait = backoff.delay(crashes);
            crashes += 1;
            self.say(&format!("{sentence}; starting again in {:.1} s", wait.as_secs_f64()));
            self.context.telling.tell(Told::Crashed(self.fact(Some(sentence.clone()))));
            self.change(|state| {
                state.status = InstanceStatus::Crashed;
                state.pid = None;
                state.address = None;
                state.last_exit = Some(sentence);
                state.last_words = last_words;
            });
            tokio::select! {
                biased;
                () = self.member.leaving.cancelled() => return,
                () = self.context.clock.sleep(wait) => {}
            }
            self.change(|state| state.restarts += 1);
        }
    }

    /// One life of the process.
    async fn live_once(&self) -> End {
        let run = InstanceId::new();
        let now = self.context.clock.now();
        self.change(|state| {
            state.status = InstanceStatus::Starting;
            state.run = run.0;
            state.started_at = now;
        });
        let release = tokio::select! {
            biased;
            () = self.member.leaving.cancelled() => return End::Left,
            unpacked = self.unpacked() => match unpacked {
                Ok(folder) => folder,
                Err(sentence) => return End::unstarted(sentence),
            },
        };
        let Some(spec) = self.spec(run, release) else {
            return End::unstarted(format!("the release has no process type {}", self.member.process));
        };
        let (check, sink) = (self.check(), self.sink());
        let started = self.context.runtime.start(spec, check.clone(), sink, self.member.leaving.clone()).await;
        let running = match started {
            Ok(running) => running,
            Err(_) if self.member.is_leaving() => return End::Left,
            Err(error) => {
                if let StartError::Exited { exit, .. } = &error {
                    self.make_room(exit).await;
                }
                return End::Crashed { sentence: error.to_string(), last_words: error.output().to_vec() };
            }
        };
        self.change(|state| {
            state.status = InstanceStatus::Healthy;
            state.pid = running.pid();
            state.address = running.address();
        });
        self.context.telling.tell(Told::Started(self.fact(None)));
        let end = self.watch(&running, &check).await;
        if matches!(end, End::Left) {
            self.finish(&running).await;
        }
        end
    }

    /// Asks the running process for its health until it ends, stays unhealthy, or is to leave.
    async fn watch(&self, running: &RunningInstance, check: &HealthCheck) -> End {
        let settings = &self.context.settings.instances;
        let exited = running.exited();
        tokio::pin!(exited);
        let mut failures = 0;
        loop {
            let answer = async {
                self.context.clock.sleep(settings.probe_every).await;
                running.probe(check).await
            };
            let answer = tokio::select! {
                biased;
                () = self.member.leaving.cancelled() => return End::Left,
                exit = &mut exited => {
                    self.make_room(&exit).await;
                    let sentence = format!("{} {exit}", self.member.process);
                    return End::Crashed { sentence, last_words: exit.output };
                }
                answer = answer => answer,
            };
            let Err(reason) = answer else {
                if failures >= settings.unhealthy_after {
                    self.say("is healthy again");
                    self.change(|state| state.status = InstanceStatus::Healthy);
                }
                failures = 0;
                continue;
            };
            failures += 1;
            if failures == settings.unhealthy_after {
                self.say(&format!("is unhealthy and gets no more requests: {reason}"));
                self.change(|state| state.status = InstanceStatus::Unhealthy);
            }
            if failures >= settings.restart_after {
                self.context.routes.drain(self.member.state().run, settings.drain_at_stop).await;
                running.stop(settings.stop_grace).await;
                let sentence = format!("{} stayed unhealthy: {reason}", self.member.process);
                return End::Crashed { sentence, last_words: running.last_lines() };
            }
        }
    }

    /// No more requests, then the last ones, then SIGTERM.
    async fn finish(&self, running: &RunningInstance) {
        let settings = &self.context.settings.instances;
        self.change(|state| state.status = InstanceStatus::Stopping);
        let hurried = self.context.life().closing.is_cancelled() || self.member.is_hurried();
        let within = if hurried { settings.drain_at_stop } else { settings.drain };
        let drained = self.context.routes.drain(self.member.state().run, within);
        let left = tokio::select! {
            left = drained => left,
            _ = running.exited() => 0,
        };
        if left > 0 {
            self.say(&format!("{left} requests did not finish within {} s", within.as_secs()));
        }
        let exit = running.stop(settings.stop_grace).await;
        self.say(&exit.to_string());
    }

    /// The folder of the release, unpacked for this instance alone: what it writes there is its own.
    async fn unpacked(&self) -> Result<PathBuf, String> {
        let folder = self.folder();
        if tokio::fs::try_exists(&folder).await.unwrap_or(false) {
            return Ok(folder);
        }
        let digest: ContentId = self.member.target.release.digest.parse()?;
        let failed = |failure: Failure| format!("the release could not be unpacked: {failure}");
        let archive = self.context.work_folder().join(format!("{}.tar.gz", self.member.id));
        let objects = &self.context.objects;
        let generation = self.member.target.release.generation;
        let mut found =
            objects.download(&Objects::release(digest.as_str(), generation), &archive).await.map_err(failed)?;
        if !found && generation > 0 {
            // A node of an earlier version has stored it, which knows no other name.
            found = objects.download(&Objects::release(digest.as_str(), 0), &archive).await.map_err(failed)?;
        }
        if !found {
            return Err("the release's archive is not in the object store".to_owned());
        }
        let target = folder.clone();
        let unpacked = self.context.pools.archives.run(None, move || {
            let unpacked = package::unpack(&archive, &target, &digest);
            let _ = fs::remove_file(&archive);
            unpacked
        });
        match unpacked.await {
            Ok(Ok(_)) => Ok(folder),
            Ok(Err(error)) => Err(error.to_string()),
            Err(failure) => Err(failed(failure)),
        }
    }

    /// An instance that filled its folder begins anew with the release as it was made.
    async fn make_room(&self, exit: &runtime::Exit) {
        if exit.is_full() {
            self.remove_folder().await;
        }
    }

    async fn remove_folder(&self) {
        if let Err(error) = self.context.trash.discard(self.folder()).await {
            tracing::warn!(instance = %self.member.id, %error, "the folder of an instance could not be removed");
        }
    }

    fn folder(&self) -> PathBuf {
        self.context.instance_folder().join(self.member.id.to_string())
    }

    fn spec(&self, run: InstanceId, release: PathBuf) -> Option<InstanceSpec> {
        let target = &self.member.target;
        let settings = &self.context.settings.instances;
        let memory = target.release.build.memory_mib.unwrap_or(settings.memory_mib);
        let environment: BTreeMap<String, String> =
            target.environment.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
        Some(InstanceSpec {
            id: run,
            process: self.member.process.clone(),
            release,
            command: target.release.processes.get(&self.member.process)?.clone(),
            run_environment: target.release.environment.clone(),
            environment,
            listens: self.member.process == crate::WEB,
            limits: InstanceLimits {
                memory: u64::from(memory) * 1024 * 1024,
                disk: settings.disk_bytes,
                ..InstanceLimits::default()
            },
            grace: settings.stop_grace,
        })
    }

    fn check(&self) -> HealthCheck {
        let settings = &self.context.settings.instances;
        let target = &self.member.target;
        HealthCheck {
            path: target.release.build.health_check_path.clone().unwrap_or_else(|| "/".to_owned()),
            timeout: settings.probe_timeout,
            interval: settings.probe_new_every,
            grace: target.grace(&self.context),
            settle: settings.settle,
        }
    }

    fn sink(&self) -> LineSink {
        self.app.log.instance_sink(self.member.title())
    }

    fn fact(&self, reason: Option<String>) -> InstanceFact {
        InstanceFact {
            instance_id: self.member.id,
            project_id: self.app.project_id,
            organization_id: self.app.organization_id,
            app: self.app.name.clone(),
            process: self.member.process.clone(),
            index: self.member.index,
            release_version: self.member.target.release.version,
            node: self.context.nodes.me(),
            reason,
        }
    }

    fn say(&self, text: &str) {
        self.app.log.line("platform", format!("{}: {text}", self.member.title()));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.member.state.send_modify(change);
        if self.member.is_leaving() {
            self.member.state.send_modify(|state| state.status = InstanceStatus::Stopping);
        }
        self.app.changed(&self.context, &self.member);
    }
}
