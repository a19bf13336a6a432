//! The watch of a domain's database: it is asked every second, also while there are no calls.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;

use crate::{
    db::{Database, Databases, Engine, Error},
    health::condition::{Away, Part, Requirement},
    restart::Exit,
    supervise::{ChildContext, ChildSpec},
};

const EVERY: Duration = Duration::from_secs(1);
/// Time limit of the answer, unless others get theirs meanwhile.
const WITHIN: Duration = Duration::from_secs(2);

/// The outcome of the last look: why the database is away.
#[derive(Default)]
struct Seen(RwLock<Option<String>>);

impl Requirement for Arc<Seen> {
    fn away(&self) -> Option<Away> {
        self.0.read().clone().map(|reason| Away::new(Part::Database, reason))
    }
}

/// The database of `domain` as a requirement, and the child that watches it.
pub(crate) fn watch(domain: &'static str, databases: Databases) -> (impl Requirement, ChildSpec) {
    let seen = Arc::<Seen>::default();
    let shown = seen.clone();
    let child = ChildSpec::with_database("database", databases, domain, move |context, database| {
        look(domain, context, database, seen.clone())
    });
    (shown, child)
}

async fn look(domain: &'static str, context: ChildContext, database: Database, seen: Arc<Seen>) -> Exit {
    if database.engine() == Engine::Sqlite {
        // A file of this machine is always reachable.
        context.stopping().await;
        return Exit::Shutdown;
    }
    loop {
        let looked = tokio::select! {
            () = context.stopping() => break,
            looked = database.answers(WITHIN) => looked,
        };
        let reason = looked.err().map(|error| sentence(domain, &error));
        if *seen.0.read() != reason {
            *seen.0.write() = reason;
        }
        tokio::select! {
            () = context.stopping() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    Exit::Shutdown
}

fn sentence(domain: &str, error: &Error) -> String {
    let what = if error.is_refusal() { "refuses this node" } else { "can't be reached" };
    format!("PostgreSQL, which has the data of {domain}, {what}: {error}")
}
