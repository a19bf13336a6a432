//! What can be followed of a domain, as a gateway finds it that knows none of its types.

use callboard_messages::{
    Access, Caller, Code, Operation, Scopes,
    live::{Log, Topic},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::fixture::{Act, Perform, Refusal, TestDomain, Watch, contract, factory, node, perform};
use crate::{Bulkhead, Handle, LiveTopic, Outcome, Runtime};

/// Lines of the log of this id.
#[derive(Debug, Serialize, Deserialize)]
struct Read(Uuid, u64, u32);

impl Operation for Read {
    const NAME: &'static str = "sample.read";
    const ACCESS: Access = Access::Public;
    type Reply = Vec<u64>;
    type Error = Refusal;
}

impl Handle<Read> for TestDomain {
    async fn handle(&self, _: &Caller, Read(_, after, limit): Read) -> Outcome<Read> {
        Ok((after + 1..).take(limit as usize).collect())
    }
}

/// Which nobody may follow whose id is nil.
enum Seen {}

impl Topic for Seen {
    const KIND: &'static str = "seen";
    type Admission = Perform;
    const PERMISSION: Option<&'static str> = Some("sample:read");

    fn admission(id: Uuid) -> Perform {
        perform(if id.is_nil() { Act::Refuse } else { Act::Reply(7) })
    }
}

enum Heard {}

impl Topic for Heard {
    const KIND: &'static str = "heard";
    type Admission = Perform;
    const BEGINNING: Option<&'static str> = Some("number");

    fn admission(_: Uuid) -> Perform {
        perform(Act::Reply(7))
    }
}

impl Log for Heard {
    type Lines = Read;
    type Line = String;

    fn lines(id: Uuid, after: u64, limit: u32) -> Read {
        Read(id, after, limit)
    }

    fn kept(lines: Vec<u64>) -> Vec<(u64, String)> {
        lines.into_iter().map(|id| (id, format!("line {id}"))).collect()
    }
}

fn reader(permissions: &[&str]) -> Caller {
    Caller { scopes: Scopes::new(permissions.iter().copied()), administrator: false, ..Caller::system() }
}

#[actix_rt::test]
async fn a_topic_is_followed_by_whoever_its_domain_admits() {
    let contract = contract(Bulkhead::default()).on::<Read>().topic::<Seen>().log::<Heard>();
    let (runtime, bus, _) = node(vec![contract.shared(factory(&Watch::default())).build()]).await;
    let topics: Vec<LiveTopic> = bus.topics().collect();
    let [seen, heard] = topics[..] else { panic!("{} topics", topics.len()) };
    assert_eq!((seen.kind(), heard.kind()), ("seen", "heard"));
    assert_eq!(heard.asks().collect::<Vec<_>>(), ["sample.perform", "sample.read"]);
    let id = Uuid::now_v7();
    assert_eq!(Seen::name(id), format!("seen:{id}"));

    let (reader, stranger) = (reader(&["sample:read"]), reader(&["sample:write"]));
    assert_eq!(seen.admit(&bus, &reader, id).await.unwrap(), None);
    let refused = seen.admit(&bus, &reader, Uuid::nil()).await.unwrap_err();
    assert_eq!((refused.code(), refused.to_string()), (Code::Conflict, "no".to_owned()));
    assert_eq!(seen.admit(&bus, &stranger, id).await.unwrap_err().code(), Code::Forbidden);
    assert_eq!(heard.admit(&bus, &stranger, id).await.unwrap(), Some(("number", json!(7))));
    assert_eq!((seen.has_lines(), heard.has_lines()), (false, true));
    assert_eq!(seen.lines(&bus, &reader, id, 3, 2).await.unwrap(), []);
    assert_eq!(heard.lines(&bus, &reader, id, 3, 2).await.unwrap(), [(4, json!("line 4")), (5, json!("line 5"))]);
    runtime.stop(std::time::Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn a_name_is_that_of_one_topic() {
    let contract = contract(Bulkhead::default()).topic::<Seen>().topic::<Seen>();
    let wrong = Runtime::builder().build(vec![contract.shared(factory(&Watch::default())).build()]).err().unwrap();
    assert_eq!(wrong, ["two live topics are named seen"]);
}
