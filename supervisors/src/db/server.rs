//! The health of a PostgreSQL server, as this process observes it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, postgres::PgConnectOptions};

use super::{Database, Error, error::is_full, pool::leaves_in_step, pools::Pools};
use crate::health::dependency::Dependency;

/// Cheap to clone; clones share their observations.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// Asked in the background while it is away.
    pub(super) dependency: Dependency,
    /// Whether it reported a full disk, and no write succeeded since.
    is_full: Arc<AtomicBool>,
}

impl Server {
    /// The server that `options` lead to.
    pub(super) fn at(options: &PgConnectOptions) -> Self {
        let name = format!("PostgreSQL at {}:{}", options.get_host(), options.get_port());
        let asked = options.clone();
        let dependency = Dependency::new(name, move || {
            let options = asked.clone();
            async move {
                let mut connection = options.connect().await.map_err(|error| error.to_string())?;
                connection.ping().await.map_err(|error| error.to_string())?;
                // The server has answered; an error of the close does not matter.
                drop(connection.close().await);
                Ok(())
            }
        });
        Self { dependency, is_full: Arc::default() }
    }

    /// Notes why a connection could not be opened.
    pub(super) fn note_refused(&self, error: &sqlx::Error) {
        self.note(error);
        self.dependency.broke();
    }

    /// Notes an error of a connection.
    pub(super) fn note(&self, error: &sqlx::Error) {
        if is_full(error) && !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::error!(
                %error,
                "PostgreSQL has no room left: what would write is refused until there is room on its disk"
            );
        }
        if !leaves_in_step(error) {
            self.dependency.broke();
        }
    }

    /// Notes a write that succeeded.
    pub(super) fn note_written(&self) {
        if self.is_full.load(Ordering::Relaxed) && self.is_full.swap(false, Ordering::Relaxed) {
            tracing::warn!("PostgreSQL has room again");
        }
    }
}

impl Database {
    /// Checks whether the server answers. A server that meanwhile answers others is only busy.
    pub(crate) async fn answers(&self, within: Duration) -> Result<(), Error> {
        match &self.opened().pools {
            Pools::Sqlite(_) => Ok(()),
            Pools::Postgres(shares) => Ok(shares.primary.answers(within).await?),
        }
    }
}
