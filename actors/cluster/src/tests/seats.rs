//! Two processes with the id of one node, as after a data folder was copied.

use std::time::{Duration, Instant};

use callboard_messages::{NodeId, cluster::NodeState};
use callboard_platform::cluster::Member;
use callboard_supervisors::{Clock, db::Database, testing::on_both_engines};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Node, until};
use crate::{
    ClusterSettings, DOMAIN, MIGRATIONS, Seat, SeatError, living,
    rows::{self, NodeRow},
};

const QUICK: ClusterSettings = ClusterSettings {
    watches: true,
    beat: Duration::from_millis(100),
    gone_after: Duration::from_millis(1500),
    dead_letters: 10,
};

fn member(id: NodeId) -> Member {
    Member {
        id,
        name: "first".to_owned(),
        address: "http://127.0.0.1:2".to_owned(),
        domains: vec!["deploy".to_owned()],
        version: "0.1.0".to_owned(),
        state: NodeState::Up,
        incarnation: 0,
        joined_at: DateTime::UNIX_EPOCH,
    }
}

async fn row(database: &Database, id: NodeId) -> NodeRow {
    rows::all(database).await.unwrap().into_iter().find(|row| row.id() == id).unwrap()
}

#[actix_rt::test]
async fn an_id_that_a_living_process_uses_is_not_given_to_another() {
    on_both_engines(&[(DOMAIN, &MIGRATIONS)], async |databases| {
        let database = databases.open(DOMAIN).await.unwrap();
        let first = Node::start(&databases, Clock::system(), QUICK);
        let id = first.members.me();
        until("it has joined", || first.members.incarnation() > 0).await;
        let incarnation = first.members.incarnation();
        let refused = Seat::take(&databases, id, Some(Uuid::now_v7()), &QUICK).await;
        let Err(SeatError::Taken(sentence)) = refused else { panic!("{refused:?}") };
        assert!(sentence.contains(&id.to_string()) && sentence.contains("http://127.0.0.1:1"), "{sentence}");
        assert_eq!(living(&databases, NodeId::new(), &QUICK).await.unwrap().len(), 1);
        assert!(living(&databases, id, &QUICK).await.unwrap().is_empty(), "there are no others");

        // A process that has not looked, or looked at the same moment, can't join over it.
        let second = Node::start_as(id, Seat::new(), &databases, Clock::system(), QUICK);
        let told = tokio::time::timeout(Duration::from_secs(30), second.members.displaced()).await.unwrap();
        assert!(told.contains("in use by another process"), "{told}");
        assert_eq!(second.members.incarnation(), 0);
        second.stop().await;
        assert_eq!((first.members.incarnation(), row(&database, id).await.member.state), (incarnation, NodeState::Up));
        first.stop().await;
        // It has left: its id is free at once.
        let began = Instant::now();
        assert!(Seat::take(&databases, id, None, &QUICK).await.is_ok());
        assert!(began.elapsed() < QUICK.gone_after);
    })
    .await;
}

#[actix_rt::test]
async fn an_id_is_free_when_its_process_has_ended_or_stood_still_for_its_whole_lease() {
    on_both_engines(&[(DOMAIN, &MIGRATIONS)], async |databases| {
        let database = databases.open(DOMAIN).await.unwrap();
        let (id, dead) = (NodeId::new(), Seat::new());
        let before = rows::join(&database, &member(id), dead, NodeState::Up, Utc::now()).await.unwrap().unwrap();
        // With the knowledge that it has ended, there is no wait.
        let began = Instant::now();
        let seat = Seat::take(&databases, id, Some(dead.process), &QUICK).await.unwrap();
        assert!(began.elapsed() < QUICK.gone_after / 2, "{:?}", began.elapsed());
        let joined = rows::join(&database, &member(id), seat, NodeState::Up, Utc::now()).await.unwrap();
        assert!(joined.is_some_and(|joined| joined > before));

        // Frozen for less than its lease: it renews while another waits.
        let (waiting, renewed) = tokio::join!(Seat::take(&databases, id, None, &QUICK), async {
            tokio::time::sleep(QUICK.gone_after / 2).await;
            rows::renew(&database, id, joined.unwrap(), NodeState::Up, Utc::now()).await.unwrap()
        });
        assert!(renewed && matches!(waiting, Err(SeatError::Taken(_))), "{waiting:?}");

        // Frozen for longer: another takes over, and it ends when it wakes.
        let later = Seat::take(&databases, id, None, &QUICK).await.unwrap();
        let second = Node::start_as(id, later, &databases, Clock::system(), QUICK);
        until("the second has joined", || second.members.incarnation() > 0).await;
        assert!(!rows::renew(&database, id, joined.unwrap(), NodeState::Up, Utc::now()).await.unwrap());
        assert_eq!(rows::join(&database, &member(id), seat, NodeState::Up, Utc::now()).await.unwrap(), None);
        second.stop().await;
    })
    .await;
}
