//! The runner of an instance: its actor, from its first start until it has stopped.
//!
//! It starts the process, waits for its health, keeps asking, and starts it again with growing waits when it crashes
//! or stays unhealthy. When it is asked to stop, it gets no more requests first, finishes those it has, and then gets
//! SIGTERM. Each start is a new process with an id of its own, which is also what the router knows it by.

use std::{path::PathBuf, sync::Arc, time::Duration};

use callboard_messages::{
    InstanceId,
    deploy::{InstanceFact, InstanceStatus},
};
use callboard_supervisors::{ChildContext, ChildSpec, Exit, Restart};

use super::{
    app::App,
    instance::{AppInstance, State},
    unpacked,
};
use crate::{
    apps::events::InstanceEvent,
    context::Context,
    logs::output::LineSink,
    runtime::{self, HealthCheck, InstanceSpec, RunningInstance, StartError},
};

/// A process that ran so long resets the backoff.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// Added to drain and grace until the runner is dropped.
const SLACK: Duration = Duration::from_secs(5);

/// How one run of the process ended.
enum End {
    /// It was asked to stop, and has ended.
    Stopped,
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
pub(crate) fn actor(context: Context, app: Arc<App>, instance: Arc<AppInstance>) -> ChildSpec {
    let settings = &context.settings.instances;
    let within = settings.drain.max(settings.drain_at_stop) + settings.stop_grace + SLACK;
    let name = instance.name.clone();
    let factory = move |child: ChildContext| {
        let runner = Runner { context: context.clone(), app: app.clone(), instance: instance.clone() };
        async move { runner.run(child).await }
    };
    ChildSpec::new(name, factory).restart(Restart::Transient).stop_within(within)
}

struct Runner {
    context: Context,
    app: Arc<App>,
    instance: Arc<AppInstance>,
}

impl Runner {
    async fn run(&self, child: ChildContext) -> Exit {
        let (stopping, lifecycle) = (self.instance.stopping.clone(), self.context.lifecycle());
        let stop = async {
            tokio::select! {
                () = child.stopping() => stopping.cancel(),
                () = lifecycle.closing.cancelled() => stopping.cancel(),
                () = stopping.cancelled() => {}
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = stop => {}
            () = self.run_until_stopped() => {}
        }
        self.remove_folder().await;
        self.context.instance_events.publish(InstanceEvent::Stopped(self.fact(None)));
        self.instance.state.send_modify(|state| state.gone = true);
        self.app.remove_instance(&self.context, &self.instance);
        Exit::Normal
    }

    async fn run_until_stopped(&self) {
        let backoff = self.context.settings.instances.backoff;
        let mut crashes = 0;
        loop {
            let began = self.context.clock.instant();
            let End::Crashed { sentence, last_words } = self.run_once().await else { return };
            if self.context.clock.instant().saturating_duration_since(began) >= STABLE_AFTER {
                crashes = 0;
            }
            let wait = backoff.delay(crashes);
            crashes += 1;
            self.say(&format!("{sentence}; starting again in {:.1} s", wait.as_secs_f64()));
            self.context.instance_events.publish(InstanceEvent::Crashed(self.fact(Some(sentence.clone()))));
            self.change(|state| {
                state.status = InstanceStatus::Crashed;
                state.pid = None;
                state.address = None;
                state.last_exit = Some(sentence);
                state.last_words = last_words;
            });
            tokio::select! {
                biased;
                () = self.instance.stopping.cancelled() => return,
                () = self.context.clock.sleep(wait) => {}
            }
            self.change(|state| state.restarts += 1);
        }
    }

    /// One run of the process, from unpacking to its end.
    async fn run_once(&self) -> End {
        let run = InstanceId::new();
        let now = self.context.clock.now();
        self.change(|state| {
            state.status = InstanceStatus::Starting;
            state.run = run.0;
            state.started_at = now;
        });
        let release = tokio::select! {
            biased;
            () = self.instance.stopping.cancelled() => return End::Stopped,
            unpacked = unpacked::unpack(&self.context, &self.instance.target, self.folder()) => match unpacked {
                Ok(folder) => folder,
                Err(sentence) => return End::unstarted(sentence),
            },
        };
        let Some(spec) = self.spec(run, release) else {
            return End::unstarted(format!("the release has no process type {}", self.instance.process));
        };
        let (check, sink) = (self.check(), self.sink());
        let started = self.context.runtime.start(spec, check.clone(), sink, self.instance.stopping.clone()).await;
        let running = match started {
            Ok(running) => running,
            Err(_) if self.instance.is_stopping() => return End::Stopped,
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
        self.context.instance_events.publish(InstanceEvent::Started(self.fact(None)));
        let end = self.watch(&running, &check).await;
        if matches!(end, End::Stopped) {
            self.finish(&running).await;
        }
        end
    }

    /// Asks the running process for its health until it ends, stays unhealthy, or is asked to stop.
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
                () = self.instance.stopping.cancelled() => return End::Stopped,
                exit = &mut exited => {
                    self.make_room(&exit).await;
                    let sentence = format!("{} {exit}", self.instance.process);
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
                self.context.routes.drain(self.instance.state().run, settings.drain_at_stop).await;
                running.stop(settings.stop_grace).await;
                let sentence = format!("{} stayed unhealthy: {reason}", self.instance.process);
                return End::Crashed { sentence, last_words: running.last_lines() };
            }
        }
    }

    /// Takes it out of the route, waits for its open requests, then sends SIGTERM.
    async fn finish(&self, running: &RunningInstance) {
        let settings = &self.context.settings.instances;
        self.change(|state| state.status = InstanceStatus::Stopping);
        let hurried = self.context.lifecycle().closing.is_cancelled() || self.instance.is_hurried();
        let within = if hurried { settings.drain_at_stop } else { settings.drain };
        let drained = self.context.routes.drain(self.instance.state().run, within);
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

    /// Removes a full folder, so that the next run unpacks the release again.
    async fn make_room(&self, exit: &runtime::Exit) {
        if exit.is_full() {
            self.remove_folder().await;
        }
    }

    async fn remove_folder(&self) {
        if let Err(error) = self.context.trash.discard(self.folder()).await {
            tracing::warn!(instance = %self.instance.id, %error, "removing the folder of an instance failed");
        }
    }

    fn folder(&self) -> PathBuf {
        self.context.instance_folder().join(self.instance.id.to_string())
    }

    fn spec(&self, run: InstanceId, release: PathBuf) -> Option<InstanceSpec> {
        let target = &self.instance.target;
        let command = target.release.processes.get(&self.instance.process)?.clone();
        Some(unpacked::spec(&self.context, target, (run, &self.instance.process), command, release))
    }

    fn check(&self) -> HealthCheck {
        let settings = &self.context.settings.instances;
        let target = &self.instance.target;
        HealthCheck {
            path: target.release.build.health_check_path.clone().unwrap_or_else(|| "/".to_owned()),
            timeout: settings.probe_timeout,
            interval: settings.probe_new_every,
            grace: target.grace(&self.context),
            settle: settings.settle,
        }
    }

    fn sink(&self) -> LineSink {
        self.app.log.instance_sink(self.instance.title())
    }

    fn fact(&self, reason: Option<String>) -> InstanceFact {
        InstanceFact {
            instance_id: self.instance.id,
            project_id: self.app.project_id,
            organization_id: self.app.organization_id,
            app: self.app.name.clone(),
            process: self.instance.process.clone(),
            index: self.instance.index,
            release_version: self.instance.target.release.version,
            node: self.context.nodes.me(),
            reason,
        }
    }

    fn say(&self, text: &str) {
        self.app.log.line("platform", format!("{}: {text}", self.instance.title()));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.instance.state.send_modify(change);
        if self.instance.is_stopping() {
            self.instance.state.send_modify(|state| state.status = InstanceStatus::Stopping);
        }
        self.app.changed(&self.context, &self.instance);
    }
}
