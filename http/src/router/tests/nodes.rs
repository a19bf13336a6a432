//! Apps of other nodes: a second gateway with the same key answers for them.

use actix_http::RequestHead;
use callboard_messages::NodeId;
use callboard_platform::{
    cluster::{Member, Members, NodeState},
    routing::Neighbour,
};

use prometheus::core::Collector;

use super::*;
use crate::router::hop::{self, Hops};

const KEY: &[u8] = b"a key that both of the nodes have, 32 bytes or more";

fn member(id: Uuid, name: &str) -> Member {
    Member {
        id: NodeId(id),
        name: name.to_owned(),
        address: "http://127.0.0.1:1".to_owned(),
        domains: vec!["deploy".to_owned()],
        version: "0.1.0".to_owned(),
        state: NodeState::Up,
        incarnation: 1,
        joined_at: Default::default(),
    }
}

/// A node by its router.
struct Node {
    id: Uuid,
    gateway: Gateway,
}

impl Node {
    fn start(name: &str, key: &[u8]) -> Self {
        let id = Uuid::now_v7();
        let members = Members::alone(member(id, name));
        members.publish(1, vec![member(id, name), member(Uuid::from_u128(7), "lost")]);
        let gateway =
            Gateway::with_router(|table| Router::new(table, Settings::default()).among(members, key).unwrap());
        Self { id, gateway }
    }

    fn neighbour(&self) -> Neighbour {
        Neighbour { id: self.id, address: self.gateway.address.to_string().into(), incarnation: 1 }
    }

    /// The list says that `hello` is there.
    fn list(&self, node: Uuid, others: &[&Node]) {
        let nodes: Vec<_> = others.iter().map(|node| node.neighbour()).collect();
        let table = &self.gateway.table;
        table.set_elsewhere(table.ask(), vec![("hello".to_owned(), Some(node), RouteState::Serving)], &nodes);
    }
}

/// Says what it was sent.
async fn echo() -> Instance {
    Instance::answering(|request| ok(&format!("{}{}", request.head, request.text()))).await
}

#[actix_rt::test]
async fn a_request_reaches_the_node_that_runs_the_app_as_the_client_wrote_it() {
    let (near, far) = (Node::start("near", KEY), Node::start("far", KEY));
    let instance = echo().await;
    far.gateway.serve(&[&instance]);
    near.list(far.id, &[&far]);
    let answer = near
        .gateway
        .ask(
            "POST /a?b=c HTTP/1.1\r\nHost: hello.localhost\r\nX-Forwarded-For: 6.6.6.6\r\nX-Request-Id: given\r\n\
             X-Callboard-Hop: 1.ab\r\nX_Callboard_Hop: 1.ab\r\nContent-Length: 4\r\n\r\nbody",
        )
        .await;
    assert_eq!(answer.status(), 200);
    let seen = answer.text().to_ascii_lowercase();
    assert!(seen.starts_with("post /a?b=c http/1.1\r\n") && seen.ends_with("\r\n\r\nbody"), "{seen}");
    for line in [
        "host: hello.localhost",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: hello.localhost",
        "x-request-id: given",
    ] {
        assert_eq!(seen.lines().filter(|seen| *seen == line).count(), 1, "{line} in {seen}");
    }
    assert!(!seen.contains("hop"), "no app sees it: {seen}");
    assert_eq!(far.gateway.table.get("hello").unwrap().metrics().count(2), 1, "it is counted where it is answered");
}

#[actix_rt::test]
async fn a_node_whose_clock_is_far_off_is_not_believed_and_its_request_goes_no_further() {
    let (late, far) = (Node::start("late", KEY), Node::start("far", KEY));
    let instance = echo().await;
    far.gateway.serve(&[&instance]);
    let signature = |target: &str| {
        let hops = Hops::new(Members::alone(member(late.id, "late")), KEY).unwrap();
        let mut head = RequestHead::default();
        head.uri = target.parse().unwrap();
        hops.sign_at(hop::now() - 1_000, far.id, &head, "hello.localhost")
    };
    let ask = async |target: &str| {
        let signature = signature(target);
        let head = format!("GET {target} HTTP/1.1\r\nHost: hello.localhost\r\nX-Forwarded-For: 6.6.6.6\r\n");
        far.gateway.ask(&format!("{head}X-Callboard-Hop: {signature}\r\n\r\n")).await
    };
    let seen = ask("/here").await.text().to_ascii_lowercase();
    assert!(seen.contains("x-forwarded-for: 127.0.0.1\r\n"), "{seen}");
    far.gateway.table.remove("hello");
    far.list(late.id, &[&late]);
    let answer = ask("/there").await;
    assert!(answer.header("x-callboard-misdirected").is_some(), "{}", answer.text());
    let families = far.gateway.table.collect();
    let counted = families.iter().find(|family| family.name() == "callboard_router_late_hops_total").unwrap();
    assert!((counted.get_metric()[0].get_counter().get_value() - 2.0).abs() < 0.5, "{counted:?}");
}

#[actix_rt::test]
async fn only_a_node_of_the_cluster_is_believed() {
    let (near, far) = (Node::start("near", b"another key, of another cluster altogether"), Node::start("far", KEY));
    let instance = echo().await;
    far.gateway.serve(&[&instance]);
    near.list(far.id, &[&far]);
    let seen = near.gateway.get("/").await.text().to_ascii_lowercase();
    // To the far one, the near one is a client like any other.
    assert!(seen.contains("x-forwarded-for: 127.0.0.1\r\n") && !seen.contains("hop"), "{seen}");
}

#[actix_rt::test]
async fn a_request_is_forwarded_once_and_a_list_that_is_wrong_is_renewed() {
    let (near, old, new) = (Node::start("near", KEY), Node::start("old", KEY), Node::start("new", KEY));
    let instance = Instance::saying("here").await;
    new.gateway.serve(&[&instance]);
    near.list(old.id, &[&old, &new]);
    old.list(new.id, &[&near, &new]);
    let table = near.gateway.table.clone();
    let right = vec![("hello".to_owned(), Some(new.id), RouteState::Serving)];
    let nodes = [old.neighbour(), new.neighbour()];
    let renewing = actix_rt::spawn(async move {
        table.wanted().await;
        table.set_elsewhere(table.ask(), right, &nodes);
    });
    assert_eq!(near.gateway.get("/").await.text(), "here");
    soon(renewing).await.unwrap();

    // What may have been read cannot be sent again: the client is told.
    near.list(old.id, &[&old, &new]);
    let answer = near.gateway.ask(&post("body")).await;
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("2")));
    assert!(answer.header("x-callboard-misdirected").is_none());
}

#[actix_rt::test]
async fn a_node_that_has_lost_an_app_asks_where_it_went() {
    let (near, far) = (Node::start("near", KEY), Node::start("far", KEY));
    let instance = Instance::saying("there").await;
    far.gateway.serve(&[&instance]);
    // The list is older than the loss, and the app's route here is gone.
    near.list(near.id, &[&far]);
    let (table, nodes) = (near.gateway.table.clone(), [far.neighbour()]);
    let right = vec![("hello".to_owned(), Some(far.id), RouteState::Serving)];
    let renewing = actix_rt::spawn(async move {
        table.wanted().await;
        table.set_elsewhere(table.ask(), right, &nodes);
    });
    assert_eq!(near.gateway.get("/").await.text(), "there");
    soon(renewing).await.unwrap();
}

#[actix_rt::test]
async fn an_app_that_was_released_since_the_list_was_made_is_found() {
    for state in [RouteState::NoRelease, RouteState::Deploying] {
        let (near, far) = (Node::start("near", KEY), Node::start("far", KEY));
        let instance = Instance::saying("there").await;
        far.gateway.serve(&[&instance]);
        let (table, nodes) = (near.gateway.table.clone(), [far.neighbour()]);
        table.set_elsewhere(table.ask(), vec![("hello".to_owned(), None, state)], &nodes);
        let right = vec![("hello".to_owned(), Some(far.id), RouteState::Serving)];
        let renewing = actix_rt::spawn(async move {
            table.wanted().await;
            table.set_elsewhere(table.ask(), right, &nodes);
        });
        assert_eq!(near.gateway.get("/").await.text(), "there", "{state:?}");
        soon(renewing).await.unwrap();
    }
}

#[actix_rt::test]
async fn a_node_that_is_gone_is_named_in_the_answer() {
    let (near, far) = (Node::start("near", KEY), Node::start("far", KEY));
    near.list(Uuid::from_u128(7), &[&far]);
    let answer = near.gateway.get("/").await;
    assert_eq!(answer.status(), 503);
    assert!(answer.text().contains("The node lost that ran it is gone, and another one takes it over."));
    let nobody = Instance::refusing().await;
    let lost = Neighbour { id: Uuid::from_u128(7), address: nobody.backend.address.to_string().into(), incarnation: 1 };
    let table = &near.gateway.table;
    let apps = vec![("hello".to_owned(), Some(lost.id), RouteState::Serving)];
    table.set_elsewhere(table.ask(), apps, &[lost]);
    let answer = near.gateway.ask(&post("body")).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.text().contains("The node lost that runs it could not be reached: the connection was refused."));
}

#[actix_rt::test]
async fn a_websocket_and_a_stream_pass_two_nodes() {
    let (near, far) = (Node::start("near", KEY), Node::start("far", KEY));
    let instance = Instance::start(|mut connection| async move {
        let head = connection.head().await.unwrap();
        if head.to_ascii_lowercase().contains("upgrade: websocket") {
            connection
                .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                .await;
            while let Some(byte) = connection.bytes(1).await {
                connection.send(std::str::from_utf8(&byte).unwrap()).await;
            }
        } else {
            connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
            // The rest comes once the first piece has arrived, which a buffer in between would prevent.
            let _ = connection.bytes(1).await;
        }
    })
    .await;
    far.gateway.serve(&[&instance]);
    near.list(far.id, &[&far]);

    let mut client = near.gateway.client().await;
    let ask = "GET /live HTTP/1.1\r\nHost: hello.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
               Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.send(ask).await;
    assert!(soon(client.head()).await.unwrap().starts_with("HTTP/1.1 101"));
    for word in ["ping", "pong"] {
        client.send(word).await;
        assert_eq!(soon(client.bytes(4)).await.unwrap(), word.as_bytes());
    }

    let mut client = near.gateway.client().await;
    client.send(&get("/stream")).await;
    assert!(soon(client.head()).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(soon(client.chunk()).await.unwrap(), b"first");
}

#[actix_rt::test]
async fn what_is_with_a_node_that_is_declared_gone_is_given_up_and_goes_to_the_heir_if_it_may() {
    let (near, far, heir) = (Node::start("near", KEY), Node::start("far", KEY), Node::start("heir", KEY));
    let asked = Rc::new(RefCell::new(0));
    let silent = Instance::start({
        let asked = Rc::clone(&asked);
        move |mut connection| {
            let asked = Rc::clone(&asked);
            async move {
                let head = connection.head().await.unwrap().to_ascii_lowercase();
                if head.contains("upgrade: websocket") {
                    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                    connection.send(&format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}")).await;
                } else if head.starts_with("get /stream") {
                    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
                }
                *asked.borrow_mut() += 1;
                connection.rest().await;
            }
        }
    })
    .await;
    far.gateway.serve(&[&silent]);
    near.list(far.id, &[&far, &heir]);
    let send = async |request: &str| {
        let mut client = near.gateway.client().await;
        client.send(request).await;
        client
    };
    let mut repeatable = send(&get("/")).await;
    let mut not_repeatable = send(&post("body")).await;
    let mut stream = send(&get("/stream")).await;
    let mut websocket = send(
        "GET /live HTTP/1.1\r\nHost: hello.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    assert!(soon(websocket.head()).await.unwrap().starts_with("HTTP/1.1 101"));
    assert!(soon(stream.head()).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(soon(stream.chunk()).await.unwrap(), b"first");
    soon(async {
        while *asked.borrow() < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    near.gateway.table.lose(far.id);
    let given_up = not_repeatable.answer().await;
    assert_eq!(given_up.status(), 502);
    assert!(given_up.text().contains("is gone. Whether it had carried the request out, nobody can tell."));
    assert!(soon(stream.chunk()).await.is_none(), "a stream that is not whole is cut");
    assert!(soon(websocket.rest()).await.is_empty(), "a tunnel to nowhere is closed");

    // The heir is known before it knows itself, and then before it serves.
    near.list(heir.id, &[&heir]);
    assert_eq!(near.gateway.get("/").await.status(), 503, "the heir does not have the app yet");
    heir.gateway.route(&[], RouteState::Serving);
    let early = near.gateway.ask(&post("body")).await;
    assert_eq!(early.status(), 503, "only what was with the lost node waits: {}", early.text());
    assert!(early.header("x-callboard-no-instance").is_none(), "that is between routers");
    let instance = Instance::saying("the heir").await;
    heir.gateway.serve(&[&instance]);
    assert_eq!(repeatable.answer().await.text(), "the heir");
}
