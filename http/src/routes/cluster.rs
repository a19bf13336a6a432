//! `cluster`.

use callboard_messages::cluster::{
    DropDeadLetter, GetCluster, GetDeadLetter, GetNodeHealth, HoldBreaker, ListDeadLetters, ListSagas,
    ReplayDeadLetter, RetrySaga, ReviveDomain,
};

use crate::{ask::ask, table::Routes};

pub(super) fn routes() -> Routes {
    Routes::new(super::API)
        .get("/cluster", ask::<GetCluster>())
        .get("/cluster/nodes/{node_id}", ask::<GetNodeHealth>())
        .post("/cluster/nodes/{node_id}/domains/{domain}/revive", ask::<ReviveDomain>())
        .post("/cluster/nodes/{node_id}/domains/{domain}/breaker", ask::<HoldBreaker>())
        .get("/dead-letters", ask::<ListDeadLetters>().paged())
        .get("/dead-letters/{dead_letter_id}", ask::<GetDeadLetter>())
        .post("/dead-letters/{dead_letter_id}/replay", ask::<ReplayDeadLetter>())
        .delete("/dead-letters/{dead_letter_id}", ask::<DropDeadLetter>())
        .get("/sagas", ask::<ListSagas>().paged())
        .post("/sagas/{saga_id}/retry", ask::<RetrySaga>())
}
