//! The plan of a supervisor.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    ChildContext, ChildSpec,
    reference::{SupervisorRef, Views},
    tree::Tree,
};
use crate::{
    call::bus::Bus,
    events::Events,
    health::disk::Disk,
    live::Live,
    restart::{Backoff, Exit, Intensity, Restart, RestartLog, Strategy},
    time::clock::Clock,
};

/// Services of the node for every child.
#[derive(Clone)]
pub struct Services {
    /// The node's clock.
    pub clock: Clock,
    /// The bus to all domains.
    pub bus: Bus,
    /// The live hub.
    pub live: Live,
    /// The node's events.
    pub events: Events,
    /// The disk that the node keeps its data on.
    pub disk: Disk,
}

impl Services {
    /// Services without a node: a bus without domains, for tests and tools.
    #[must_use]
    pub fn detached(clock: Clock) -> Self {
        let (live, disk) = (Live::new(clock.clone()), Disk::default());
        Self { bus: Bus::default(), live, events: Events::detached(), disk, clock }
    }
}

/// The plan of a supervisor; [`Supervisor::start`] runs it, [`Supervisor::into_child`] makes it a child of another.
#[derive(Debug, Clone)]
pub struct Supervisor {
    pub(super) name: Cow<'static, str>,
    pub(super) strategy: Strategy,
    pub(super) intensity: Intensity,
    pub(super) backoff: Backoff,
    children: Vec<ChildSpec>,
}

impl Supervisor {
    /// One for one, with the default intensity and back-off, and no children yet.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            strategy: Strategy::default(),
            intensity: Intensity::default(),
            backoff: Backoff::default(),
            children: Vec::new(),
        }
    }

    /// Sets which children are restarted together.
    #[must_use]
    pub const fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets the intensity of restarts.
    #[must_use]
    pub const fn intensity(mut self, intensity: Intensity) -> Self {
        self.intensity = intensity;
        self
    }

    /// Sets the pauses before restarts.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Adds a child, started after those before it and stopped before them.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Checks the plan.
    ///
    /// # Errors
    /// A sentence for each invalid setting.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut wrong: Vec<String> = [self.intensity.validate(), self.backoff.validate()]
            .into_iter()
            .filter_map(Result::err)
            .flatten()
            .collect();
        for (index, child) in self.children.iter().enumerate() {
            if self.children.iter().take(index).any(|other| other.name == child.name) {
                wrong.push(format!("supervisor {}: two children are named {}", self.name, child.name));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Runs it as a task of this thread.
    pub fn start(self, services: Services) -> SupervisorRef {
        let stop = CancellationToken::new();
        let (reference, running) = self.prepare(services, stop, Arc::default());
        actix_rt::spawn(running);
        reference
    }

    /// A supervisor below another: giving up is an abnormal exit, about which its parent decides.
    #[must_use]
    pub fn into_child(self, restart: Restart) -> ChildSpec {
        let stop_within = self.children.iter().map(|child| child.stop_within).sum::<Duration>() + super::STOP_WITHIN;
        let name = self.name.clone();
        ChildSpec::new(name, move |context: ChildContext| {
            let ChildContext { clock, bus, live, events, disk, stop, children, .. } = context;
            let services = Services { clock, bus, live, events, disk };
            let (_, running) = self.clone().prepare(services, stop, children);
            running
        })
        .restart(restart)
        .stop_within(stop_within)
    }

    fn prepare(
        self,
        services: Services,
        stop: CancellationToken,
        views: Arc<Views>,
    ) -> (SupervisorRef, impl Future<Output = Exit> + 'static) {
        let (commands, received) = mpsc::unbounded_channel();
        let (ended, end) = watch::channel(None);
        let reference = SupervisorRef { commands, stop: stop.clone(), views: views.clone(), end };
        let log = RestartLog::new(self.intensity);
        let (exits, exited) = mpsc::unbounded_channel();
        let tree = Tree {
            plan: Supervisor { children: Vec::new(), ..self.clone() },
            services,
            reference: reference.clone(),
            children: Vec::new(),
            log,
            exits,
            next_id: 0,
            views,
        };
        let running = async move {
            let exit = tree.run(self.children, stop, received, exited).await;
            let _ = ended.send(Some(exit.clone()));
            exit
        };
        (reference, running)
    }
}
