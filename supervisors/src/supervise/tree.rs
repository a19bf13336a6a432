//! A running supervisor: starts its children in order, restarts those that end, gives up when they end too often, and
//! stops them in reverse order.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use futures_util::FutureExt;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    ChildContext, ChildSpec, Services, Supervisor, SupervisorRef,
    reference::{ChildState, ChildView, Command, Views},
};
use crate::{
    blocking::panic_message,
    restart::{Exit, Intensity, Patience, Restart, RestartLog, Strategy},
    tasks::anchored::Anchored,
    time::clock::Clock,
};

pub(super) struct Child {
    id: u64,
    spec: ChildSpec,
    life: Life,
    patience: Patience,
    starts: u64,
    /// Filled by the child if it is a supervisor.
    below: Arc<Views>,
}

enum Life {
    Running { stop: CancellationToken, task: JoinHandle<()>, start: u64 },
    Waiting { due: Instant },
    Ended,
}

/// The end of a child: its id, the number of its start, and its exit.
pub(super) struct Ended(u64, u64, Exit);

pub(super) struct Tree {
    pub(super) plan: Supervisor,
    pub(super) services: Services,
    pub(super) reference: SupervisorRef,
    pub(super) children: Vec<Child>,
    pub(super) log: RestartLog,
    pub(super) exits: mpsc::UnboundedSender<Ended>,
    pub(super) next_id: u64,
    pub(super) views: Arc<Views>,
}

impl Tree {
    pub(super) async fn run(
        mut self,
        specs: Vec<ChildSpec>,
        stop: CancellationToken,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut exited: mpsc::UnboundedReceiver<Ended>,
    ) -> Exit {
        for spec in specs {
            self.adopt(spec);
        }
        let clock = self.services.clock.clone();
        loop {
            self.show();
            let due = self.children.iter().filter_map(Child::due).min();
            let timer = async {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.stop_from(0).await;
                    self.children.clear();
                    self.show();
                    return Exit::Shutdown;
                }
                Some(ended) = exited.recv() => {
                    if let Err(reason) = self.child_ended(ended).await {
                        tracing::error!(supervisor = %self.plan.name, %reason, "a supervisor gave up");
                        self.stop_from(0).await;
                        self.show();
                        return Exit::Abnormal(reason);
                    }
                }
                Some(command) = commands.recv() => self.obey(command).await,
                () = timer => self.start_due(),
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Start(spec, reply) => {
                let taken = self.children.iter().any(|child| child.spec.name == spec.name);
                let answer = if taken { Err(format!("there is a child named {} already", spec.name)) } else { Ok(()) };
                if !taken {
                    self.adopt(spec);
                }
                self.show();
                let _ = reply.send(answer);
            }
            Command::Stop(name, reply) => {
                let place = self.children.iter().position(|child| child.spec.name == name);
                if let Some(place) = place {
                    let mut child = self.children.remove(place);
                    child.stop(&self.services.clock).await;
                }
                self.show();
                let _ = reply.send(place.is_some());
            }
        }
    }

    fn adopt(&mut self, spec: ChildSpec) {
        let mut child = Child {
            id: self.next_id,
            life: Life::Ended,
            patience: Patience::new(self.plan.backoff),
            starts: 0,
            below: Arc::default(),
            spec,
        };
        self.next_id += 1;
        self.start(&mut child);
        self.children.push(child);
    }

    fn start(&self, child: &mut Child) {
        let stop = CancellationToken::new();
        child.below = Arc::default();
        let context = ChildContext {
            name: child.spec.name.clone(),
            clock: self.services.clock.clone(),
            bus: self.services.bus.clone(),
            live: self.services.live.clone(),
            events: self.services.events.clone(),
            disk: self.services.disk.clone(),
            supervisor: self.reference.clone(),
            stop: stop.clone(),
            children: child.below.clone(),
        };
        child.starts += 1;
        let (id, start, exits) = (child.id, child.starts, self.exits.clone());
        let factory = child.spec.factory.clone();
        let task = actix_rt::spawn(Anchored::new(async move {
            let life = AssertUnwindSafe(async move { factory(context).await }).catch_unwind().await;
            let exit = life.unwrap_or_else(|panic| Exit::Abnormal(format!("panicked: {}", panic_message(&*panic))));
            let _ = exits.send(Ended(id, start, exit));
        }));
        child.life = Life::Running { stop, task, start };
    }

    fn start_due(&mut self) {
        let now = self.services.clock.instant();
        let mut children = std::mem::take(&mut self.children);
        for child in &mut children {
            if child.due().is_some_and(|due| due <= now) {
                self.start(child);
            }
        }
        self.children = children;
    }

    /// Handles the end of a child; an error ends the supervisor.
    async fn child_ended(&mut self, Ended(id, ended_start, exit): Ended) -> Result<(), String> {
        let is_current = |child: &Child| matches!(child.life, Life::Running { start, .. } if start == ended_start);
        let Some(place) = self.children.iter().position(|child| child.id == id && is_current(child)) else {
            return Ok(());
        };
        let now = self.services.clock.instant();
        let Some(child) = self.children.get_mut(place) else { return Ok(()) };
        child.life = Life::Ended;
        match &exit {
            Exit::Abnormal(reason) => {
                tracing::error!(supervisor = %self.plan.name, child = %child.spec.name, %reason, "a child failed");
            }
            Exit::Normal | Exit::Shutdown => {
                tracing::debug!(supervisor = %self.plan.name, child = %child.spec.name, ?exit, "a child ended");
            }
        }
        if !child.spec.restart.after(&exit) {
            if child.spec.restart == Restart::Temporary {
                self.children.remove(place);
            }
            return Ok(());
        }
        if !self.log.allow(now) {
            let Intensity { restarts, within } = self.plan.intensity;
            return Err(format!(
                "more than {restarts} restarts in {within:?}, the last of {}: {exit:?}",
                child.spec.name
            ));
        }
        let due = now + child.patience.next_delay(now);
        child.life = Life::Waiting { due };
        let first = match self.plan.strategy {
            Strategy::OneForOne => return Ok(()),
            Strategy::OneForAll => 0,
            Strategy::RestForOne => place,
        };
        self.stop_from(first).await;
        let mut index = 0;
        self.children.retain(|child| {
            index += 1;
            index <= first || child.id == id || child.spec.restart != Restart::Temporary
        });
        for child in self.children.iter_mut().skip(first) {
            child.life = Life::Waiting { due };
        }
        Ok(())
    }

    /// Stops the children from index `first` on, the last first.
    async fn stop_from(&mut self, first: usize) {
        for child in self.children.iter_mut().skip(first).rev() {
            child.stop(&self.services.clock).await;
        }
    }

    fn show(&self) {
        *self.views.0.lock() = self.children.iter().map(|child| (child.view(), child.below.clone())).collect();
    }
}

impl Child {
    const fn due(&self) -> Option<Instant> {
        match self.life {
            Life::Waiting { due } => Some(due),
            Life::Running { .. } | Life::Ended => None,
        }
    }

    /// Asks the child to stop, and drops it at its deadline.
    async fn stop(&mut self, clock: &Clock) {
        let Life::Running { stop, mut task, .. } = std::mem::replace(&mut self.life, Life::Ended) else { return };
        stop.cancel();
        let deadline = clock.instant() + self.spec.stop_within;
        if clock.timeout_at(deadline, &mut task).await.is_none() {
            tracing::warn!(child = %self.spec.name, within = ?self.spec.stop_within, "a child did not stop in time; dropped it");
            task.abort();
            let _ = task.await;
        }
    }

    fn view(&self) -> ChildView {
        ChildView {
            name: self.spec.name.clone(),
            state: match self.life {
                Life::Running { .. } => ChildState::Running,
                Life::Waiting { .. } => ChildState::Waiting,
                Life::Ended => ChildState::Ended,
            },
            restarts: self.starts.saturating_sub(1),
            children: Vec::new(),
        }
    }
}

impl Drop for Tree {
    /// Drops the children with their supervisor.
    fn drop(&mut self) {
        for child in self.children.iter().rev() {
            if let Life::Running { task, .. } = &child.life {
                task.abort();
            }
        }
    }
}
