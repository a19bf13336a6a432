use std::time::Duration;

use prometheus::Registry;
use uuid::Uuid;

use super::{Address, Backend, Neighbour, Route, RouteState, RoutingTable};

fn backend(port: u16) -> Backend {
    Backend { instance_id: Uuid::now_v7(), address: ([127, 0, 0, 1], port).into() }
}

fn serving(backends: &[Backend]) -> Route {
    Route { backends: backends.to_vec(), state: RouteState::Serving }
}

const SOON: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(10);

#[test]
fn unknown_and_removed_apps_have_no_route() {
    let table = RoutingTable::new();
    assert!(table.get("hello").is_none());
    table.set("hello", serving(&[backend(1)]));
    assert!(table.get("hello").is_some());
    table.remove("hello");
    assert!(table.get("hello").is_none());
}

#[test]
fn the_less_busy_of_two_is_chosen() {
    let table = RoutingTable::new();
    table.set("hello", serving(&[backend(1), backend(2)]));
    let route = table.get("hello").unwrap();
    let places: Vec<_> = (0..10).map(|_| route.acquire(&[]).unwrap()).collect();
    let busy = places.iter().filter(|place| place.address() == &Address::Instance(([127, 0, 0, 1], 1).into())).count();
    assert_eq!(busy, 5);
}

#[test]
fn a_suspect_is_passed_over_until_it_is_the_last() {
    let table = RoutingTable::new();
    let (first, second) = (backend(1), backend(2));
    table.set("hello", serving(&[first, second]));
    let route = table.get("hello").unwrap();
    route.acquire(&[second.instance_id]).unwrap().suspect(LONG);
    for _ in 0..20 {
        assert_eq!(route.acquire(&[]).unwrap().instance_id(), second.instance_id);
    }
    assert_eq!(route.acquire(&[second.instance_id]).unwrap().instance_id(), first.instance_id);
    assert!(route.acquire(&[first.instance_id, second.instance_id]).is_none());
}

#[test]
fn a_retired_instance_gets_nothing_even_from_an_old_snapshot() {
    let table = RoutingTable::new();
    let (old, new) = (backend(1), backend(2));
    table.set("hello", serving(&[old]));
    let snapshot = table.get("hello").unwrap();
    table.set("hello", serving(&[new]));
    assert!(snapshot.is_outdated());
    assert!(snapshot.acquire(&[]).is_none());
    assert_eq!(table.get("hello").unwrap().acquire(&[]).unwrap().instance_id(), new.instance_id);
}

#[actix_rt::test]
async fn drain_takes_the_instance_out_and_waits_for_its_last_request() {
    let table = RoutingTable::new();
    let only = backend(1);
    table.set("hello", serving(&[only]));
    let places: Vec<_> = (0..3).map(|_| table.get("hello").unwrap().acquire(&[]).unwrap()).collect();

    assert_eq!(table.drain(only.instance_id, SOON).await, 3);
    assert!(table.get("hello").unwrap().acquire(&[]).is_none());

    let waiting = actix_rt::spawn({
        let table = table.clone();
        async move { table.drain(only.instance_id, LONG).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(places);
    assert_eq!(waiting.await.unwrap(), 0);
    assert_eq!(table.drain(only.instance_id, SOON).await, 0, "an instance that is gone is drained");
}

#[actix_rt::test]
async fn an_instance_that_stays_keeps_its_count_and_one_that_returns_serves_again() {
    let table = RoutingTable::new();
    let (stays, leaves) = (backend(1), backend(2));
    table.set("hello", serving(&[stays, leaves]));
    let route = table.get("hello").unwrap();
    let on_stays = route.acquire(&[leaves.instance_id]).unwrap();
    let on_leaves = route.acquire(&[stays.instance_id]).unwrap();

    table.set("hello", serving(&[stays]));
    table.set("hello", serving(&[stays, leaves]));
    assert_eq!(on_stays.in_flight(), 1);
    assert!(!on_leaves.is_retired());
    assert_eq!(table.drain(leaves.instance_id, SOON).await, 1);
    assert_eq!(table.drain(stays.instance_id, SOON).await, 1);
}

#[test]
fn no_request_slips_past_a_drain_that_found_nothing() {
    let table = RoutingTable::new();
    for round in 0..500 {
        let backend = backend(1);
        table.set("hello", serving(&[backend]));
        let route = table.get("hello").unwrap();
        let place = std::thread::scope(|scope| {
            let taken = scope.spawn(|| route.acquire(&[]));
            table.take_out(backend.instance_id);
            let seen = route.endpoints[0].in_flight();
            let place = taken.join().unwrap();
            assert!(place.is_none() || seen == 1, "round {round}: a request began unseen");
            place
        });
        drop(place);
    }
}

#[test]
fn every_app_is_counted_by_status_class_until_it_is_removed() {
    let table = RoutingTable::new();
    let registry = Registry::new();
    registry.register(Box::new(table.clone())).unwrap();
    table.set("hello", serving(&[backend(1)]));
    let route = table.get("hello").unwrap();
    for status in [101, 200, 204, 302, 404, 502, 999] {
        route.metrics().answered(status);
    }
    route.metrics().took(SOON);
    assert_eq!([1, 2, 3, 4, 5].map(|class| route.metrics().count(class)), [1, 2, 1, 1, 2]);
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(text.contains(r#"callboard_router_requests_total{app="hello",class="2xx"} 2"#), "{text}");
    assert!(text.contains(r#"callboard_router_request_duration_seconds_count{app="hello"} 1"#), "{text}");
    assert!(text.contains(r#"callboard_router_backends{app="hello"} 1"#), "{text}");
    table.remove("hello");
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(!text.contains("hello"), "{text}");
}

#[test]
fn an_app_has_series_once_an_instance_of_it_has_run() {
    let table = RoutingTable::new();
    let registry = Registry::new();
    registry.register(Box::new(table.clone())).unwrap();
    let series = || {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        text.lines().filter(|line| line.contains(r#"app="hello""#)).count()
    };
    let idle = Route { backends: Vec::new(), state: RouteState::NoRelease };
    table.set("hello", idle.clone());
    let route = table.get("hello").unwrap();
    route.metrics().answered(503);
    route.metrics().took(SOON);
    assert_eq!(series(), 0);
    table.set("hello", serving(&[backend(1)]));
    table.get("hello").unwrap().metrics().answered(200);
    assert!((1..=25).contains(&series()), "{}", series());
    table.set("hello", idle);
    assert_eq!(table.get("hello").unwrap().metrics().count(2), 1, "it is remembered while it does not run");
    table.remove("hello");
    assert_eq!(series(), 0);
}

#[actix_rt::test]
async fn an_app_of_another_node_is_found_there_until_a_newer_list_says_otherwise() {
    let table = RoutingTable::new();
    let (node, gone) = (Uuid::now_v7(), Uuid::now_v7());
    let neighbour = Neighbour { id: node, address: "10.0.0.1:80".into(), incarnation: 1 };
    let ask = table.ask();
    table.set("new", Route { backends: Vec::new(), state: RouteState::NoRelease });
    let serves = |app: &str, node| (app.to_owned(), Some(node), RouteState::Serving);
    table.set_elsewhere(ask, vec![serves("shop", node), serves("lost", gone)], std::slice::from_ref(&neighbour));
    assert!(table.get("new").is_some(), "it became known after the list was asked for");
    let place = table.elsewhere("shop").unwrap().acquire().unwrap();
    assert!(place.is_node() && place.instance_id() == node);
    assert!(table.elsewhere("lost").unwrap().acquire().is_none(), "no address");

    let renewing = table.renew(LONG);
    let answering = async {
        table.wanted().await;
        table.set_elsewhere(table.ask(), vec![serves("shop", gone)], &[neighbour]);
    };
    assert!(tokio::join!(renewing, answering).0);
    assert!(table.get("new").is_none(), "nobody has it");
    assert!(table.elsewhere("shop").unwrap().acquire().is_none());
    assert!(table.elsewhere("lost").is_none());
}

#[actix_rt::test]
async fn what_was_asked_of_a_node_that_is_lost_is_given_up_until_it_comes_back() {
    let (table, node) = (RoutingTable::new(), Uuid::now_v7());
    let neighbour = Neighbour { id: node, address: "10.0.0.1:80".into(), incarnation: 1 };
    let list = |nodes: &[Neighbour]| {
        table.set_elsewhere(table.ask(), vec![("shop".to_owned(), Some(node), RouteState::Serving)], nodes);
    };
    list(std::slice::from_ref(&neighbour));
    let place = table.elsewhere("shop").unwrap().acquire().unwrap();
    let given_up = place.lost();
    assert!(!place.is_lost());
    table.lose(node);
    tokio::time::timeout(LONG, given_up).await.expect("whoever waits is told");
    assert!(place.is_lost() && place.is_retired());
    assert!(table.elsewhere("shop").unwrap().acquire().is_none(), "nothing new is asked of it");
    // At the same address, after it has joined the cluster again.
    list(&[Neighbour { incarnation: 3, ..neighbour }]);
    let again = table.elsewhere("shop").unwrap().acquire().unwrap();
    assert!(!again.is_lost() && place.is_lost());
}

#[actix_rt::test]
async fn the_answer_of_an_ask_from_before_is_no_newer_list() {
    let table = RoutingTable::new();
    let early = table.ask();
    let renewing = table.renew(LONG);
    let answering = async {
        table.wanted().await;
        table.confirm_elsewhere(early);
        let late = table.ask();
        tokio::task::yield_now().await;
        table.set_elsewhere(late, vec![("shop".to_owned(), None, RouteState::Moving)], &[]);
    };
    let renewed = async {
        assert!(renewing.await);
        assert!(table.elsewhere("shop").is_some(), "it waits for a list that was asked for after it");
    };
    tokio::join!(renewed, answering);
}
