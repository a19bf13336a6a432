//! Many projects that come and go at the same time, on as few connections as a node can have.

use std::time::{Duration, Instant};

use callboard_messages::{Caller, OrganizationId, ProjectId, deploy::*};
use callboard_supervisors::{db::Databases, testing::on_scarce_connections};
use futures_util::future::join_all;

use super::fixture::Bench;
use crate::MIGRATIONS;

const CLIENTS: usize = 24;
/// Of each client. `CALLBOARD_TEST_PAIRS=42` makes a thousand of them, which takes some minutes.
const PAIRS: usize = 8;
/// Of one pair: a caller has thirty seconds.
const WITHIN: Duration = Duration::from_secs(10);

async fn come_and_go(bench: &Bench, client: usize, pairs: usize) -> Duration {
    let caller = Caller::system();
    let mut longest = Duration::ZERO;
    for pair in 0..pairs {
        let (began, project_id) = (Instant::now(), ProjectId::new());
        let name = format!("app-{client}-{pair}");
        let organization_id = OrganizationId::new();
        bench.ask(&caller, SetupEnvironment { project_id, organization_id, name }).await.unwrap();
        bench.ask(&caller, CleanupEnvironment { project_id }).await.unwrap();
        longest = longest.max(began.elapsed());
    }
    longest
}

#[actix_rt::test]
async fn projects_come_and_go_at_once_and_none_waits_for_long() {
    let asked = std::env::var("CALLBOARD_TEST_PAIRS").ok().map(|pairs| pairs.parse().expect("a number of pairs"));
    let pairs = asked.unwrap_or(PAIRS);
    on_scarce_connections(&[("deploy", &MIGRATIONS)], async |databases: Databases| {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(&databases, folder.path()).await;
        let clients = (0..CLIENTS).map(|client| come_and_go(&bench, client, pairs));
        let longest = join_all(clients).await.into_iter().max().unwrap();
        assert!(longest < WITHIN, "one took {longest:?}");
        bench.stop().await;
    })
    .await;
}
