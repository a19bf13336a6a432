//! The domains of Callboard, listed once: what a node may host, migrates and keeps data of, and what the command line,
//! the tests and the manifests know of domains follows from this list.

use std::{sync::Arc, thread};

use callboard_messages::Access;
use callboard_supervisors::{
    Domain, LiveTopic, Shards,
    remote::{Nowhere, Transport},
};
use serde::Serialize;
use sqlx::migrate::Migrator;

use crate::{
    error::Result,
    node::{self, Parts},
};

/// A domain that a node hosts or leaves to others.
pub struct Entry {
    /// Its one word.
    pub name: &'static str,
    /// Its tables.
    pub migrations: &'static Migrator,
    /// Where its shards run on a node that hosts it, as its contract has it.
    pub shards: Shards,
    /// Builds it on a node that hosts it.
    pub host: fn(&Parts<'_>) -> Result<Domain>,
    /// Stands for it on a node that does not.
    pub remote: fn(Arc<dyn Transport>) -> Domain,
}

/// In the order in which they need one another: they stop the other way round.
pub static DOMAINS: &[Entry] = &[
    Entry {
        name: callboard_organization::DOMAIN,
        migrations: &callboard_organization::MIGRATIONS,
        shards: Shards::Shared,
        host: |parts| Ok(callboard_organization::domain(parts.databases.clone())),
        remote: |transport| callboard_organization::contract().remote(transport),
    },
    Entry {
        name: callboard_auth::DOMAIN,
        migrations: &callboard_auth::MIGRATIONS,
        shards: Shards::Shared,
        host: |parts| {
            let settings = parts.settings.auth.settings(&parts.addresses.issuer, parts.master_key.clone());
            let (databases, revocations) = (parts.databases.clone(), parts.revocations.clone());
            Ok(callboard_auth::domain(settings, databases, revocations, parts.cache.clone()))
        },
        remote: |transport| callboard_auth::contract().remote(transport),
    },
    Entry {
        name: callboard_project::DOMAIN,
        migrations: &callboard_project::MIGRATIONS,
        shards: Shards::Shared,
        host: |parts| Ok(callboard_project::domain(parts.databases.clone(), parts.master_key.clone())),
        remote: |transport| callboard_project::contract().remote(transport),
    },
    Entry {
        name: callboard_deploy::DOMAIN,
        migrations: &callboard_deploy::MIGRATIONS,
        shards: Shards::Dedicated(1),
        host: node::deploy,
        remote: |transport| callboard_deploy::contract().remote(transport),
    },
];

/// What has a database, and for whose sake.
#[derive(Clone, Copy)]
pub struct Store {
    /// The domain's name; the database's, on PostgreSQL the schema's.
    pub name: &'static str,
    /// Its tables.
    pub migrations: &'static Migrator,
    /// Which threads use it.
    pub shards: Shards,
}

/// What every node has, whatever it hosts.
pub static ON_EVERY_NODE: [Store; 2] = [
    Store { name: callboard_cluster::DOMAIN, migrations: &callboard_cluster::MIGRATIONS, shards: Shards::Dedicated(1) },
    Store { name: callboard_http::DOMAIN, migrations: &callboard_http::MIGRATIONS, shards: Shards::Shared },
];

/// The names of the domains that a node may host.
pub fn names() -> impl Iterator<Item = &'static str> {
    DOMAINS.iter().map(|entry| entry.name)
}

/// Every database, in the order in which they are migrated.
pub fn stores() -> impl Iterator<Item = Store> {
    let store = |entry: &Entry| Store { name: entry.name, migrations: entry.migrations, shards: entry.shards };
    DOMAINS.iter().map(store).chain(ON_EVERY_NODE)
}

/// The databases that a node uses which hosts these domains.
pub fn stores_of(hosted: &[String]) -> impl Iterator<Item = Store> {
    stores().filter(|store| !names().any(|name| name == store.name) || hosted.iter().any(|name| name == store.name))
}

/// How many threads of a node that hosts these domains ask their databases: its workers, where 0 is one for each core, the
/// main one, on which it begins, and those that domains have for themselves.
pub fn threads(workers: usize, hosted: &[String]) -> u32 {
    let workers = match workers {
        0 => thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let own = stores_of(hosted).map(|store| match store.shards {
        Shards::Shared => 0,
        Shards::Dedicated(threads) => threads,
    });
    u32::try_from(1 + workers + own.sum::<usize>()).unwrap_or(u32::MAX)
}

/// The variable that gives a domain a server or a database of its own.
pub fn database_variable(domain: &str) -> String {
    format!("CALLBOARD_{}_DATABASE_URL", domain.to_uppercase())
}

/// What there is to know of a domain without a node.
#[derive(Debug, Serialize)]
pub struct Description {
    /// Its one word: queue, schema and metric label.
    pub name: &'static str,
    /// Whether it is on every node, rather than where an operator places it.
    pub everywhere: bool,
    /// The threads of its own that it has on a node; without any it runs on every worker thread.
    pub threads: usize,
    /// The variable that gives it a database of its own.
    pub database_variable: String,
    /// What it answers.
    pub operations: Vec<&'static str>,
    /// The permissions that these ask for.
    pub permissions: Vec<&'static str>,
    /// The events that it reacts to.
    pub reacts_to: Vec<&'static str>,
    /// What stands before the id in the live topics of it.
    pub topics: Vec<&'static str>,
}

/// Every domain, the gateway included.
pub fn describe() -> Vec<Description> {
    stores().map(|store| description(store, contract(store.name))).collect()
}

/// What a domain answers; nothing of the gateway, which only asks.
fn contract(name: &str) -> Option<Domain> {
    let nowhere: Arc<dyn Transport> = Arc::new(Nowhere);
    match DOMAINS.iter().find(|entry| entry.name == name) {
        Some(entry) => Some((entry.remote)(nowhere)),
        None => (name == callboard_cluster::DOMAIN).then(|| callboard_cluster::contract().remote(nowhere)),
    }
}

fn description(store: Store, contract: Option<Domain>) -> Description {
    let answers: Vec<(&'static str, Access)> = contract.iter().flat_map(Domain::answers).collect();
    let mut permissions: Vec<_> = answers.iter().filter_map(|(_, access)| access.permission()).collect();
    permissions.sort_unstable();
    permissions.dedup();
    Description {
        name: store.name,
        everywhere: !names().any(|name| name == store.name),
        threads: match store.shards {
            Shards::Shared => 0,
            Shards::Dedicated(threads) => threads,
        },
        database_variable: database_variable(store.name),
        operations: answers.iter().map(|(name, _)| *name).collect(),
        permissions,
        reacts_to: contract.iter().flat_map(Domain::reacts_to).collect(),
        topics: contract.iter().flat_map(Domain::topics).map(LiveTopic::kind).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use callboard_messages::{auth::ADMINISTER, organization::Role};

    use super::*;

    #[test]
    fn every_routed_operation_is_answered_by_a_domain_of_the_list() {
        let contracts: Vec<Domain> = stores().filter_map(|store| contract(store.name)).collect();
        let answered = contracts.iter().flat_map(Domain::answers).map(|(name, _)| name);
        assert_eq!(callboard_http::unanswered(answered), [] as [&str; 0]);
    }

    #[test]
    fn a_domain_is_called_the_same_everywhere() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for store in stores() {
            let domain = contract(store.name);
            assert_eq!(domain.map_or(store.name, |domain| domain.name()), store.name);
            assert!(root.join("migrations").join(store.name).is_dir(), "migrations/{}", store.name);
        }
        let folders = fs::read_dir(root.join("actors")).unwrap().map(|entry| entry.unwrap());
        let crates: BTreeSet<String> = folders
            .filter(|entry| entry.path().join("Cargo.toml").exists())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        let listed: BTreeSet<String> = names().chain([callboard_cluster::DOMAIN]).map(str::to_owned).collect();
        assert_eq!(crates, listed, "the folders of actors/ and the domains of this list");
    }

    #[test]
    fn every_live_topic_is_documented() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
        let documented = fs::read_to_string(&path).unwrap();
        let topics: Vec<&str> = describe().into_iter().flat_map(|domain| domain.topics).collect();
        assert!(topics.contains(&"logs"), "{topics:?}");
        for topic in topics {
            assert!(
                documented.contains(&format!("| `{topic}:<")),
                "docs/api.md has no line for the topic {topic}:<id>"
            );
        }
    }

    /// The table of `docs/permissions.md`.
    fn table() -> String {
        let mut permissions: BTreeSet<&str> = describe().into_iter().flat_map(|domain| domain.permissions).collect();
        permissions.insert(ADMINISTER);
        let heads: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
        let mut table = format!("| | {} |\n|---|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
        for permission in permissions {
            let held = Role::ALL.map(|role| if role.scopes().allows(permission) { "✓" } else { " " });
            table.push_str(&format!("| `{permission}` | {} |\n", held.join(" | ")));
        }
        table
    }

    #[test]
    fn who_holds_which_permission_is_written_down() {
        const BEGIN: &str = "<!-- begin: written by a test -->\n";
        const END: &str = "<!-- end -->\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/permissions.md");
        let written = fs::read_to_string(&path).unwrap();
        let (before, rest) = written.split_once(BEGIN).expect("a beginning");
        let (found, after) = rest.split_once(END).expect("an end");
        let table = table();
        println!("{table}");
        if found != table && std::env::var_os("CALLBOARD_TEST_WRITE").is_some() {
            fs::write(&path, [before, BEGIN, &table, END, after].concat()).unwrap();
            return;
        }
        assert_eq!(
            found, table,
            "docs/permissions.md does not say who holds what; look whether the roles shall hold it \
             (messages/src/organization.rs), then run this test with CALLBOARD_TEST_WRITE=1"
        );
    }
}
