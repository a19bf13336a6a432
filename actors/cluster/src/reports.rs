//! Reports of nodes about the domains that they host.
//!
//! Only the hosts of a domain know whether it is ready. A node reports each change, and again every few seconds,
//! because live updates may be lost; without a report for a while a node's domains count as ready, as long as it takes
//! part.

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
/// Interval of checking its own domains.
const LOOK: Duration = Duration::from_secs(1);
/// Interval of reports without a change.
const AGAIN: Duration = Duration::from_secs(5);

/// A node's report.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Report {
    node: NodeId,
    /// The hosted domains that are not ready.
    away: HashMap<String, Away>,
}

/// The child that reports this node's domains, and receives the reports of others.
pub(crate) fn child(members: Members) -> ChildSpec {
    ChildSpec::new("reports", move |context| run(context, members.clone()))
}

async fn run(context: ChildContext, members: Members) -> Exit {
    let mut heard = context.live.subscribe(TOPIC, None);
    let mut last: Option<(Instant, Report)> = None;
    loop {
        let report = Report { node: members.me(), away: away(&context.bus) };
        let is_due = last.as_ref().is_none_or(|(at, before)| at.elapsed() >= AGAIN || *before != report);
        if is_due && let Ok(data) = serde_json::to_value(&report) {
            context.live.publish(TOPIC, LiveEvent::new("readiness", data));
            last = Some((Instant::now(), report));
        }
        let due = tokio::time::sleep(LOOK);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = context.stopping() => return Exit::Shutdown,
                () = &mut due => break,
                event = heard.next() => match event {
                    Some(Ok(event)) => hear(&members, &event),
                    // The next report comes soon.
                    Some(Err(_)) => {}
                    None => heard = context.live.subscribe(TOPIC, None),
                },
            }
        }
    }
}

fn hear(members: &Members, event: &LiveEvent) {
    // A newer version's report may have another form, and is ignored then.
    let Ok(report) = serde_json::from_value::<Report>(event.data.clone()) else { return };
    if report.node != members.me() {
        members.report(report.node, Instant::now(), report.away);
    }
}

/// The domains that other nodes may ask here and that are not ready.
fn away(bus: &Bus) -> HashMap<String, Away> {
    let asked = bus.hosted();
    let hosted = bus.ready().into_iter().filter(|domain| asked.iter().any(|asked| asked.name == domain.domain));
    hosted.filter_map(|domain| Some((domain.domain.to_owned(), Away::new(domain.part?, domain.reason?)))).collect()
}
