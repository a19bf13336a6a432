//! A node that is busy with an app at the moment at which another one takes it over.

use callboard_supervisors::testing::on_both_engines;

use super::nodes::{GONE, Pair, UP, by_owner, owner, running_here};
use crate::MIGRATIONS;

const NEVER_LISTENS: [(&str, &str); 1] = [("Procfile", "web: sleep 1000\n")];

#[actix_rt::test]
async fn a_node_that_lost_an_app_does_not_wait_for_its_new_release_before_it_ends_it() {
    on_both_engines(&[("deploy", &MIGRATIONS)], async |databases| {
        let folder = tempfile::tempdir().unwrap();
        let pair = Pair::new(&databases, folder.path());
        let (a, b) = pair.both().await;
        let app = pair.create("shop");
        a.release(&app, "one").await;
        let (at, first, second) = by_owner(&app, &pair, &a, &b).await;
        // The new release would be waited for long after the end of this test.
        first.configure(&app, |kept| kept.build.health_check_grace_seconds = Some(600));
        first.begin(&app, &NEVER_LISTENS).await.unwrap();
        first.until("both releases run", async || (running_here(first, &app).await.len() == 2).then_some(())).await;
        let mut states = [UP, UP];
        states[at] = GONE;
        pair.tell(&second.members, states);
        second
            .until("the other one has it", async || (owner(second, &app).await == Some(pair.ids[1 - at])).then_some(()))
            .await;
        first
            .until("nothing of it runs any more", async || running_here(first, &app).await.is_empty().then_some(()))
            .await;
        assert_eq!(owner(first, &app).await, Some(pair.ids[1 - at]));
        a.stop().await;
        b.stop().await;
    })
    .await;
}
