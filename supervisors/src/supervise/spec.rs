//! The specification of a child, and the context it is given.

use std::{borrow::Cow, fmt, future::Future, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::LocalBoxFuture};
use tokio_util::sync::CancellationToken;

use super::{SupervisorRef, reference::Views};
use crate::{
    call::bus::Bus,
    db::{Database, Databases},
    events::Events,
    health::{dependency::Dependency, disk::Disk},
    live::Live,
    restart::{Exit, Restart},
    time::clock::Clock,
};

/// Default of [`ChildSpec::stop_within`].
pub const STOP_WITHIN: Duration = Duration::from_secs(5);

type Factory = Arc<dyn Fn(ChildContext) -> LocalBoxFuture<'static, Exit> + Send + Sync>;

/// A child: a future that its factory makes for every start, from durable state.
#[derive(Clone)]
pub struct ChildSpec {
    /// Unique among its siblings.
    pub name: Cow<'static, str>,
    /// When it is restarted. Default: always.
    pub restart: Restart,
    /// Time to stop, after which it is dropped. Default: 5 s.
    pub stop_within: Duration,
    /// Makes the future of the child; its output is the exit.
    pub factory: Factory,
}

impl ChildSpec {
    /// A permanent child with five seconds to stop.
    pub fn new<F, Fut>(name: impl Into<Cow<'static, str>>, factory: F) -> Self
    where
        F: Fn(ChildContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Exit> + 'static,
    {
        Self {
            name: name.into(),
            restart: Restart::Permanent,
            stop_within: STOP_WITHIN,
            factory: Arc::new(move |context| factory(context).boxed_local()),
        }
    }

    /// A permanent child that works with the database of `domain`. While that can't be opened, the child ends abnormally.
    pub fn with_database<F, Fut>(
        name: impl Into<Cow<'static, str>>,
        databases: Databases,
        domain: &'static str,
        factory: F,
    ) -> Self
    where
        F: Fn(ChildContext, Database) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Exit> + 'static,
    {
        let factory = Arc::new(factory);
        Self::new(name, move |context| {
            let (databases, factory) = (databases.clone(), factory.clone());
            async move {
                match databases.open(domain).await {
                    Ok(database) => factory(context, database).await,
                    Err(error) => Exit::Abnormal(error.to_string()),
                }
            }
        })
    }

    /// A permanent child that asks `dependency` at this interval, also while nobody needs it.
    #[must_use]
    pub fn watching(name: &'static str, dependency: Dependency, every: Duration) -> Self {
        Self::new(name, move |context: ChildContext| {
            let dependency = dependency.clone();
            async move {
                loop {
                    dependency.doubt();
                    if !context.sleep(every).await {
                        return Exit::Shutdown;
                    }
                }
            }
        })
    }

    /// Sets when it is restarted.
    #[must_use]
    pub const fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Sets its time to stop.
    #[must_use]
    pub const fn stop_within(mut self, duration: Duration) -> Self {
        self.stop_within = duration;
        self
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("name", &self.name)
            .field("restart", &self.restart)
            .field("stop_within", &self.stop_within)
            .finish_non_exhaustive()
    }
}

/// The context of a child.
#[derive(Clone)]
pub struct ChildContext {
    /// The child's name.
    pub name: Cow<'static, str>,
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
    /// Its supervisor, for children that start others.
    pub supervisor: SupervisorRef,
    pub(crate) stop: CancellationToken,
    /// The children of this child, if it is a supervisor.
    pub(crate) children: Arc<Views>,
}

impl ChildContext {
    /// Waits until the child is asked to stop; it is dropped after `stop_within`.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Waits for `duration`; false when the child is asked to stop first.
    pub async fn sleep(&self, duration: Duration) -> bool {
        self.stop.run_until_cancelled(self.clock.sleep(duration)).await.is_some()
    }
}
