//! What the nodes tell each other of the domains that they host.
//!
//! A domain that other nodes host is as ready as they say: which server it lacks only they know. A node tells when
//! something has changed, and again every few seconds, because what is told between nodes may be lost; whoever hears
//! nothing of a node for a while takes its domains for ready, as long as it takes part.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use callboard_messages::NodeId;
use callboard_platform::cluster::Members;
use callboard_supervisors::{Away, Bus, ChildContext, ChildSpec, Exit, LiveEvent};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

const TOPIC: &str = "internal:readiness";
/// How often a node looks at its own domains.
const LOOK: Duration = Duration::from_secs(1);
/// How often it tells, when nothing has changed.
const AGAIN: Duration = Duration::from_secs(5);

/// What a node tells.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Told {
    node: NodeId,
    /// The domains that take no traffic there.
    away: HashMap<String, Away>,
}

/// Tells the others of this node's domains, and hears of theirs.
pub(crate) fn child(members: Members) -> ChildSpec {
    ChildSpec::new("reports", move |context| run(context, members.clone()))
}

async fn run(context: ChildContext, members: Members) -> Exit {
    let mut heard = context.live.subscribe(TOPIC, None);
    let mut last: Option<(Instant, Told)> = None;
    loop {
        let told = Told { node: members.me(), away: away(&context.bus) };
        let is_due = last.as_ref().is_none_or(|(at, before)| at.elapsed() >= AGAIN || *before != told);
        if is_due && let Ok(data) = serde_json::to_value(&told) {
            context.live.publish(TOPIC, LiveEvent::new("readiness", data));
            last = Some((Instant::now(), told));
        }
        let due = tokio::time::sleep(LOOK);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = context.stopping() => return Exit::Shutdown,
                () = &mut due => break,
                event = heard.next() => match event {
                    Some(Ok(event)) => hear(&members, &event),
                    // It is told again soon.
                    Some(Err(_)) => {}
                    None => heard = context.live.subscribe(TOPIC, None),
                },
            }
        }
    }
}

fn hear(members: &Members, event: &LiveEvent) {
    // What a newer version tells in other words says nothing here.
    let Ok(told) = serde_json::from_value::<Told>(event.data.clone()) else { return };
    if told.node != members.me() {
        members.report(told.node, Instant::now(), told.away);
    }
}

/// Of the domains that others may ask here.
fn away(bus: &Bus) -> HashMap<String, Away> {
    let asked = bus.hosted();
    let hosted = bus.ready().into_iter().filter(|domain| asked.iter().any(|asked| asked.name == domain.domain));
    hosted.filter_map(|domain| Some((domain.domain.to_owned(), Away::new(domain.part?, domain.reason?)))).collect()
}
