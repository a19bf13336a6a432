//! Follows which node runs which app: asks the deploy domain, wherever it is, every two seconds, and at once after a
//! nudge or when a request found the list wrong.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use callboard_messages::{
    Caller,
    deploy::{AppRoutes, ListRoutes},
};
use callboard_platform::{
    cluster::{Member, Members},
    routing::{Neighbour, RoutingTable},
};
use callboard_supervisors::{Bus, Live};
use futures_util::{FutureExt, StreamExt};

/// The topic of the nudges.
const NUDGES: &str = "internal:routes";
const EVERY: Duration = Duration::from_secs(2);
/// Shortest interval of asking, however many requests want it.
const AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// Added to the interval for each app of the list, up to a second, because a long list costs much to make. The duration
/// of the last answer would grow on a busy machine as well, whose visitors must not wait for it.
const REST: Duration = Duration::from_micros(100);
const RESTED: Duration = Duration::from_secs(1);

/// Follows for ever.
pub(super) async fn follow(table: RoutingTable, members: Members, bus: Bus, live: Live) {
    let mut follower = Follower { table, members, bus, live, known: None, apps: 0, nodes: Vec::new() };
    loop {
        // A panic must not leave the node with an old list for ever.
        let losses = lose(follower.table.clone(), follower.members.clone());
        let followed = async {
            tokio::select! {
                () = follower.run() => {}
                () = losses => {}
            }
        };
        if AssertUnwindSafe(followed).catch_unwind().await.is_err() {
            tracing::error!("following the routes of other nodes panicked; restarting");
            tokio::time::sleep(EVERY).await;
        }
    }
}

struct Follower {
    table: RoutingTable,
    members: Members,
    bus: Bus,
    live: Live,
    /// The version of the list that was applied last.
    known: Option<String>,
    /// Number of apps in it.
    apps: u32,
    nodes: Vec<Neighbour>,
}

impl Follower {
    async fn run(&mut self) {
        let mut members = self.members.clone();
        let mut nudges = self.live.subscribe(NUDGES, None);
        loop {
            let began = Instant::now();
            self.ask().await;
            let rest = (REST * self.apps).min(RESTED);
            tokio::time::sleep(rest.max(AT_MOST_EVERY.saturating_sub(began.elapsed()))).await;
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = members.changed() => {}
                () = self.table.wanted() => {}
                nudge = nudges.next() => if nudge.is_none() {
                    nudges = self.live.subscribe(NUDGES, None);
                },
            }
            // Nudges that came together cause one request.
            while nudges.next().now_or_never().flatten().is_some() {}
        }
    }

    async fn ask(&mut self) {
        let nodes: Vec<Neighbour> = neighbours(&self.members);
        let known = self.known.clone().filter(|_| nodes == self.nodes);
        let ask = self.table.ask();
        match self.bus.ask(&Caller::system(), ListRoutes { known }).await {
            Ok(AppRoutes { items: None, .. }) => self.table.confirm_elsewhere(ask),
            Ok(AppRoutes { items: Some(items), version }) => {
                self.apps = u32::try_from(items.len()).unwrap_or(u32::MAX);
                let apps = items.into_iter().map(|route| (route.app, route.node, route.state)).collect();
                // After the answer, which may have taken its time: a node may be gone since.
                let nodes = neighbours(&self.members);
                self.table.set_elsewhere(ask, apps, &nodes);
                (self.known, self.nodes) = (Some(version), nodes);
            }
            Err(error) => {
                tracing::debug!(%error, "reading the routes of other nodes failed; the last ones stay valid")
            }
        }
    }
}

/// Fails requests at nodes that are declared gone, at once: a new list may take a moment.
async fn lose(table: RoutingTable, mut members: Members) {
    let mut before = members.all();
    loop {
        members.changed().await;
        let now = members.all();
        for lost in now.lost_since(&before) {
            table.lose(lost.id.0);
        }
        before = now;
    }
}

/// The other reachable nodes.
fn neighbours(members: &Members) -> Vec<Neighbour> {
    let all = members.all();
    let neighbour = |member: &Member| {
        let address = members.address(member.id)?;
        let address = address.strip_prefix("http://")?;
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { address.into() } else { format!("{address}:80").into() };
        Some(Neighbour { id: member.id.0, address, incarnation: member.incarnation })
    };
    all.members.iter().filter(|member| member.id != all.me).filter_map(neighbour).collect()
}
