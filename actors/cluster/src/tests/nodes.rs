//! Tests of joining, watching and fencing.

use std::time::{Duration, Instant};

use callboard_messages::{
    Caller, Code, NodeId,
    cluster::{BreakerHold, GetCluster, GetNodeHealth, HoldBreaker, NodeState, ReviveDomain},
};
use callboard_platform::cluster::Member;
use callboard_supervisors::{Clock, db::Database, testing::on_both_engines};
use chrono::{DateTime, TimeDelta, Utc};

use super::{Node, until};
use crate::{
    ClusterSettings, DOMAIN, MIGRATIONS, Seat,
    membership::Sightings,
    rows::{self, NodeRow},
};

const QUICK: ClusterSettings = ClusterSettings {
    watches: true,
    beat: Duration::from_millis(100),
    gone_after: Duration::from_millis(1500),
    dead_letters: 10,
};

fn member(name: &str) -> Member {
    Member {
        id: NodeId::new(),
        name: name.to_owned(),
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
async fn nodes_see_each_other_come_drain_and_leave() {
    on_both_engines(&[(DOMAIN, &MIGRATIONS)], async |databases| {
        let one = Node::start(&databases, Clock::system(), QUICK);
        let two = Node::start(&databases, Clock::system(), QUICK);
        let (first, second) = (one.members.me(), two.members.me());
        until("both see both", || one.members.is_up(second) && two.members.is_up(first)).await;
        assert_eq!(one.members.address(second).as_deref(), Some("http://127.0.0.1:1"));
        two.members.drain();
        until("it drains", || !one.members.is_up(second)).await;
        assert!(one.members.is_present(second));
        two.stop().await;
        until("it has left", || !one.members.is_present(second)).await;
        assert_eq!(one.members.address(second), None);
        one.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_node_that_shows_no_sign_of_life_is_declared_gone_and_fenced() {
    on_both_engines(&[(DOMAIN, &MIGRATIONS)], async |databases| {
        let database = databases.open(DOMAIN).await.unwrap();
        let dead = member("dead");
        let seat = Seat::new();
        let incarnation = rows::join(&database, &dead, seat, NodeState::Up, Utc::now()).await.unwrap().unwrap();
        let one = Node::start(&databases, Clock::system(), QUICK);
        until("it is seen", || one.members.is_present(dead.id)).await;
        until("it is gone", || one.members.all().get(dead.id).is_some_and(|dead| dead.state == NodeState::Gone)).await;
        // A renewal under the old incarnation is refused; it joins under a newer one.
        assert!(!rows::renew(&database, dead.id, incarnation, NodeState::Up, Utc::now()).await.unwrap());
        let known = Member { incarnation, ..dead.clone() };
        let joined = rows::join(&database, &known, seat, NodeState::Up, Utc::now()).await.unwrap();
        assert!(joined.is_some_and(|joined| joined > incarnation + 1), "{joined:?}");
        one.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_fenced_node_joins_anew_and_says_so() {
    on_both_engines(&[(DOMAIN, &MIGRATIONS)], async |databases| {
        let database = databases.open(DOMAIN).await.unwrap();
        let one = Node::start(&databases, Clock::system(), QUICK);
        until("it has joined", || one.members.incarnation() > 0).await;
        let (before, fenced) = (one.members.incarnation(), one.members.fenced());
        loop {
            let seen = row(&database, one.members.me()).await;
            if rows::declare_gone(&database, &seen, Utc::now()).await.unwrap() {
                break;
            }
        }
        tokio::time::timeout(Duration::from_secs(60), fenced).await.unwrap();
        assert!(one.members.incarnation() > before + 1);
        until("it is up again", || one.members.is_up(one.members.me())).await;
        one.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn an_incarnation_grows_also_when_the_row_was_forgotten() {
    on_both_engines(&[(DOMAIN, &MIGRATIONS)], async |databases| {
        let database = databases.open(DOMAIN).await.unwrap();
        let node = member("node");
        let now = Utc::now();
        let seat = Seat::new();
        let incarnation = rows::join(&database, &node, seat, NodeState::Up, now).await.unwrap().unwrap();
        rows::leave(&database, node.id, incarnation, now).await.unwrap();
        assert_eq!(rows::forget(&database, now).await.unwrap(), 0);
        assert_eq!(rows::forget(&database, now + TimeDelta::seconds(1)).await.unwrap(), 1);
        let known = Member { incarnation: 7, ..node };
        assert_eq!(rows::join(&database, &known, seat, NodeState::Up, now).await.unwrap(), Some(8));
    })
    .await;
}

/// Looks at times in seconds; the number of overdue nodes.
struct Looks {
    sightings: Sightings,
    began: Instant,
    me: NodeId,
}

impl Looks {
    fn look(&mut self, second: f64, rows: &[NodeRow]) -> usize {
        self.slow_look(second, second, rows)
    }

    fn slow_look(&mut self, began: f64, ended: f64, rows: &[NodeRow]) -> usize {
        let at = [began, ended].map(|second| self.began + Duration::from_secs_f64(second));
        self.sightings.overdue(rows, self.me, at.into(), &ClusterSettings::default()).len()
    }
}

#[actix_rt::test]
async fn only_time_during_which_the_observer_looked_counts() {
    on_both_engines(&[(DOMAIN, &MIGRATIONS)], async |databases| {
        let database = databases.open(DOMAIN).await.unwrap();
        let other = member("other");
        let joined = rows::join(&database, &other, Seat::new(), NodeState::Up, Utc::now()).await.unwrap();
        let incarnation = joined.unwrap();
        let seen = rows::all(&database).await.unwrap();
        let mut looks = Looks { sightings: Sightings::default(), began: Instant::now(), me: NodeId::new() };
        for second in 0..4 {
            assert_eq!(looks.look(f64::from(second), &seen), 0);
        }
        assert_eq!(looks.look(4.0, &seen), 1, "four seconds without a sign of life");
        // The observer was stopped, or the database was away for all.
        assert_eq!(looks.look(40.0, &seen), 0);
        assert_eq!(looks.look(43.0, &seen), 0, "another gap");
        assert_eq!(looks.look(44.0, &seen), 0);
        assert!(rows::renew(&database, other.id, incarnation, NodeState::Up, Utc::now()).await.unwrap());
        let renewed = rows::all(&database).await.unwrap();
        assert_eq!(looks.look(45.0, &renewed), 0);
        assert_eq!(looks.look(47.0, &renewed), 0);
        assert_eq!(looks.look(49.0, &renewed), 1);
        let mut own = Looks { me: other.id, sightings: Sightings::default(), began: Instant::now() };
        for second in 0..9 {
            assert_eq!(own.look(f64::from(second), &renewed), 0, "nobody declares itself gone");
        }
    })
    .await;
}

#[actix_rt::test]
async fn a_slow_database_hides_no_dead_node_and_a_stopped_observer_declares_nobody_gone_at_once() {
    on_both_engines(&[(DOMAIN, &MIGRATIONS)], async |databases| {
        let database = databases.open(DOMAIN).await.unwrap();
        let other = member("other");
        rows::join(&database, &other, Seat::new(), NodeState::Up, Utc::now()).await.unwrap().unwrap();
        let seen = rows::all(&database).await.unwrap();
        let new = || Looks { sightings: Sightings::default(), began: Instant::now(), me: NodeId::new() };
        let mut looks = new();
        let slow = [(0.0, 1.9), (2.9, 4.8), (5.8, 7.7)];
        assert_eq!(slow.map(|(began, ended)| looks.slow_look(began, ended, &seen)), [0, 0, 1]);

        // Stopped between two looks, and during one.
        for (began, ended) in [(60.0, 60.0), (4.0, 60.0)] {
            let mut looks = new();
            for second in [0.0, 1.0, 2.0, 3.0, 3.9] {
                assert_eq!(looks.look(second, &seen), 0);
            }
            assert_eq!(looks.slow_look(began, ended, &seen), 0);
            assert_eq!(looks.look(61.0, &seen), 0);
            assert_eq!(looks.look(62.0, &seen), 1, "it has stood for two beats more");
        }
    })
    .await;
}

#[actix_rt::test]
async fn a_node_tells_how_it_is_and_an_operator_may_hold_a_breaker() {
    on_both_engines(&[(DOMAIN, &MIGRATIONS)], async |databases| {
        let settings = ClusterSettings { watches: false, ..ClusterSettings::default() };
        let node = Node::start(&databases, Clock::system(), settings);
        let (bus, me, operator) = (node.runtime.bus().clone(), node.members.me(), Caller::system());
        let view = bus.ask(&operator, GetCluster {}).await.unwrap();
        assert_eq!((view.answered_by, view.nodes.len()), (me, 1));
        let health = view.nodes[0].health.clone().unwrap();
        assert_eq!(health.domains[0].domain, DOMAIN);
        assert_eq!(health.tree["kind"], "node");
        let elsewhere = GetNodeHealth { node_id: NodeId::new() };
        assert_eq!(bus.ask(&operator, elsewhere).await.unwrap_err().code(), Code::NotFound);

        let hold = |hold| HoldBreaker { node_id: me, domain: DOMAIN.to_owned(), hold };
        assert_eq!(bus.ask(&operator, hold(BreakerHold::Open)).await.unwrap_err().code(), Code::Invalid);
        bus.ask(&operator, hold(BreakerHold::Closed)).await.unwrap();
        let breaker = async || {
            bus.ask(&operator, GetNodeHealth { node_id: me }).await.unwrap().tree["children"][0]["breaker"].clone()
        };
        assert_eq!(breaker().await, "forced_closed");
        bus.ask(&operator, hold(BreakerHold::Released)).await.unwrap();
        assert_eq!(breaker().await, "closed");
        let revive = |domain: &str| ReviveDomain { node_id: me, domain: domain.to_owned() };
        assert_eq!(bus.ask(&operator, revive(DOMAIN)).await.unwrap_err().code(), Code::Conflict);
        assert_eq!(bus.ask(&operator, revive("nothing")).await.unwrap_err().code(), Code::NotFound);
        let somebody = Caller { administrator: false, ..operator };
        assert_eq!(bus.ask(&somebody, GetCluster {}).await.unwrap_err().code(), Code::Forbidden);
        node.stop().await;
    })
    .await;
}
