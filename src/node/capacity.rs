//! The connections to PostgreSQL that nodes may open, and those that its server lets in: told before the one too many is
//! refused, which nobody sees before there is load. At the start and by `callboard doctor` as a sentence, and by every node
//! as a metric, with how many there are now.

use std::collections::{BTreeMap, BTreeSet};

use callboard_supervisors::db::{Databases, Occupancy, UsedServer};
use url::Url;

use crate::{config::Settings, domains};

/// A server that lets in fewer connections than may be opened to it.
#[derive(Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

/// What is asked of one server, in databases: a node opens up to its bound to each that a domain of it is in.
#[derive(Debug, Default, PartialEq, Eq)]
struct Demand {
    /// One of the domains that are there.
    domain: String,
    /// By this node.
    one: u64,
    /// By all nodes.
    all: u64,
    /// How many these are.
    nodes: u64,
}

/// Whether the connections of nodes are those of the server: a pooler has its own, and a file none.
const fn counts(settings: &Settings) -> bool {
    settings.database.url.is_some() && !settings.database.is_pooled
}

/// Looks at every server, as if every node had as many workers and connections as this one. What can't be looked at is
/// told by whoever needs it.
pub async fn look(settings: &Settings, hosted: &[String], databases: &Databases) -> Vec<Shortage> {
    if !counts(settings) {
        return Vec::new();
    }
    let mut nodes = nodes(databases).await;
    if nodes.is_empty() {
        nodes.push(hosted.to_vec());
    }
    let mut shortages = Vec::new();
    for (server, demand) in demands(settings, hosted, &nodes) {
        let Ok(Some(Occupancy { allowed, .. })) = databases.occupancy(&demand.domain).await else { continue };
        let granted = u64::try_from(allowed).unwrap_or(0);
        shortages.extend(shortage(&server, &demand, u64::from(settings.database.bound()), granted));
    }
    shortages
}

/// The servers that this node uses, and the most connections that it opens to each.
pub fn of_this_node(settings: &Settings, hosted: &[String]) -> Vec<UsedServer> {
    if !counts(settings) {
        return Vec::new();
    }
    let connections = u64::from(settings.database.bound());
    let used = |(address, demand): (String, Demand)| UsedServer {
        address,
        domain: demand.domain,
        limit: demand.one * connections,
    };
    demands(settings, hosted, &[]).into_iter().map(used).collect()
}

/// What each node that takes part hosts; nothing where none has begun yet, or where nodes are always alone.
async fn nodes(databases: &Databases) -> Vec<Vec<String>> {
    let read = async {
        let database = databases.open(callboard_cluster::DOMAIN).await?;
        database.query("SELECT CAST(domains AS TEXT) FROM nodes WHERE state <> 'gone'").fetch_all::<(String,)>().await
    };
    let hosted = read.await.unwrap_or_default();
    hosted.iter().filter_map(|(domains,)| serde_json::from_str(domains).ok()).collect()
}

/// By the servers' addresses.
fn demands(settings: &Settings, hosted: &[String], nodes: &[Vec<String>]) -> BTreeMap<String, Demand> {
    let mut demands: BTreeMap<String, Demand> = BTreeMap::new();
    let mut add = |hosted: &[String], count: fn(&mut Demand) -> &mut u64| {
        let mut counted = BTreeSet::new();
        for store in domains::stores_of(hosted) {
            let own = settings.database.own_urls.iter().find(|(of, _)| *of == store.name).map(|(_, url)| url);
            let Some(url) = own.or(settings.database.url.as_ref()) else { continue };
            if counted.insert(url.expose()) {
                let demand = demands.entry(address(url.expose())).or_default();
                demand.domain = store.name.to_owned();
                *count(demand) += 1;
            }
        }
    };
    add(hosted, |demand| &mut demand.one);
    for domains in nodes {
        add(domains, |demand| &mut demand.all);
    }
    demands.values_mut().for_each(|demand| demand.nodes = nodes.len() as u64);
    demands
}

/// Of a URL, without its password.
fn address(url: &str) -> String {
    let Ok(url) = Url::parse(url) else { return "its server".to_owned() };
    let asked = url.query_pairs().find(|(name, _)| name == "host").map(|(_, host)| host.into_owned());
    let host = asked.or_else(|| url.host_str().map(str::to_owned)).unwrap_or_else(|| "localhost".to_owned());
    format!("{host}:{}", url.port().unwrap_or(5432))
}

fn shortage(server: &str, demand: &Demand, connections: u64, granted: u64) -> Option<Shortage> {
    let Demand { one, nodes, .. } = demand;
    let most = demand.all.max(*one);
    let (of_one, of_all) = (one * connections, most * connections);
    if of_all <= granted {
        return None;
    }
    let together = if *nodes > 1 { format!(", and all {nodes} nodes {of_all}") } else { String::new() };
    let lower = match granted / most.max(1) {
        0 => String::new(),
        affordable => {
            format!(
                ", or set CALLBOARD_DATABASE_CONNECTIONS to {affordable} on every node, which is {connections} here"
            )
        }
    };
    Some(Shortage {
        what: format!(
            "under load this node may open {of_one} connections to PostgreSQL at {server}{together}, but the server lets in \
             {granted}, and refuses those beyond"
        ),
        mend: format!("raise its max_connections by {} or more{lower}", of_all - granted),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_opened_is_compared_with_what_is_let_in() {
        let told = |nodes: u64, connections: u64, granted: u64| {
            let demand = Demand { domain: "auth".to_owned(), one: 1, all: nodes, nodes };
            shortage("db:5432", &demand, connections, granted)
        };
        assert_eq!(told(1, 64, 64), None);
        let alone = told(1, 64, 63).unwrap();
        assert!(
            alone.what.contains("open 64 connections to PostgreSQL at db:5432, but the server lets in 63"),
            "{alone:?}"
        );
        assert!(alone.mend.contains("by 1 or more"), "{alone:?}");
        assert!(alone.mend.contains("CALLBOARD_DATABASE_CONNECTIONS to 63"), "{alone:?}");
        let three = told(3, 64, 97).unwrap();
        assert!(three.what.contains("64") && three.what.contains("all 3 nodes 192"), "{three:?}");
        assert!(three.mend.contains("by 95 or more") && three.mend.contains("to 32 on every node"), "{three:?}");
        assert!(!told(98, 1, 97).unwrap().mend.contains("CALLBOARD"), "not even one each");
        assert_eq!(told(3, 32, 97), None);
    }

    #[test]
    fn a_server_is_known_by_its_address_and_no_password_is_told() {
        assert_eq!(address("postgres://user:hunter2@db/callboard"), "db:5432");
        assert_eq!(address("postgres://user@db:6432/other"), "db:6432");
        assert_eq!(address("postgres://user@localhost/other?host=/run/postgresql"), "/run/postgresql:5432");
    }
}
