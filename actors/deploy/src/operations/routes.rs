//! The routes of apps, for the routers of all nodes.

use callboard_messages::{
    Caller,
    deploy::{AppRoute, AppRoutes, ListRoutes, RouteState},
};
use callboard_supervisors::{Handle, Outcome};
use sha2::{Digest, Sha256};

use super::Deploys;
use crate::{store::apps, world::idle_state};

impl Handle<ListRoutes> for Deploys {
    async fn handle(&self, _: &Caller, message: ListRoutes) -> Outcome<ListRoutes> {
        let (nodes, now) = (&self.context.nodes, self.context.clock.instant());
        let mut version = Sha256::new();
        let mut items = Vec::new();
        for (app, deploying) in apps::all(&self.context.database).await? {
            let is_gone = app.owner_node.is_some_and(|node| nodes.is_gone(node, now));
            let state = if is_gone { RouteState::Moving } else { idle_state(&app, deploying) };
            version.update(format!("{} {:?} {state:?}\n", app.name, app.owner_node));
            items.push(AppRoute { app: app.name, node: app.owner_node, state });
        }
        let version = hex::encode(version.finalize());
        let items = (message.known.as_ref() != Some(&version)).then_some(items);
        Ok(AppRoutes { version, items })
    }
}
