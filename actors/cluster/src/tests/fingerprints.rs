//! Tests of fingerprints.

use callboard_supervisors::testing::on_both_engines;
use chrono::Utc;

use crate::{DOMAIN, Fingerprints, MIGRATIONS};

#[actix_rt::test]
async fn the_first_node_records_what_it_has_and_the_others_find_it() {
    on_both_engines(&[(DOMAIN, &MIGRATIONS)], async |databases| {
        let (one, two) = (Fingerprints::open(&databases).await.unwrap(), Fingerprints::open(&databases).await.unwrap());
        assert_eq!(one.salt().await.unwrap(), two.salt().await.unwrap());
        assert_eq!(one.get("cluster key").await.unwrap(), None);
        assert_eq!(one.record("cluster key", "a", Utc::now()).await.unwrap().fingerprint, "a");
        assert_eq!(two.record("cluster key", "b", Utc::now()).await.unwrap().fingerprint, "a", "the first is kept");
        assert_eq!(one.all().await.unwrap().len(), 1, "the salt is of no setting");

        assert!(!two.replace("cluster key", "b", "c", Utc::now()).await.unwrap(), "not what is recorded");
        assert!(two.replace("cluster key", "a", "c", Utc::now()).await.unwrap());
        assert_eq!(one.get("cluster key").await.unwrap().unwrap().fingerprint, "c");
        assert!(one.forget("cluster key").await.unwrap() && !one.forget("cluster key").await.unwrap());
        assert_eq!(two.record("cluster key", "d", Utc::now()).await.unwrap().fingerprint, "d");
    })
    .await;
}
