//! Callboard's bridge: a runtime that hosts a domain, and one that reaches it.

use std::time::{Duration, Instant};

use actix_rt::System;
use callboard_benches::{Outcome, broker};
use callboard_bridge::{Bridge, BridgeSettings, ClusterKey};
use callboard_messages::{Access, CallError, Caller, Code, DomainError, Operation, Principal, Scopes, Secret};
use callboard_supervisors::{Bulkhead, Contract, Domain, Handle, Outcome as Answer, Runtime};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Answerer, IN_FLIGHT, Load, PAYLOAD, race};

#[derive(Serialize, Deserialize)]
struct Fetch {
    words: String,
}

#[derive(Serialize, Deserialize)]
struct Fetched {
    words: String,
}

#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("never")]
struct Never;

impl DomainError for Never {
    const CODES: &[Code] = &[Code::Invalid];

    fn code(&self) -> Code {
        Code::Invalid
    }
}

impl Operation for Fetch {
    const NAME: &'static str = "bench.fetch";
    const ACCESS: Access = Access::Permission("bench:fetch");
    type Reply = Fetched;
    type Error = Never;
}

struct Fetcher {
    words: String,
}

impl Handle<Fetch> for Fetcher {
    async fn handle(&self, _: &Caller, message: Fetch) -> Answer<Fetch> {
        std::hint::black_box(message.words);
        Ok(Fetched { words: self.words.clone() })
    }
}

fn contract() -> Contract<Fetcher> {
    let bulkhead = Bulkhead { in_flight: IN_FLIGHT, ..Bulkhead::default() };
    Domain::new("bench").bulkhead(bulkhead).answering().on::<Fetch>()
}

async fn bridge(prefix: &str, key: &ClusterKey) -> Outcome<(Bridge, Uuid)> {
    let node = Uuid::now_v7();
    let mut settings = BridgeSettings::new(Secret::new(broker::url()), node, key.clone());
    prefix.clone_into(&mut settings.prefix);
    Ok((Bridge::start(settings).await?, node))
}

async fn start(bridge: &Bridge, node: Uuid, domain: Domain) -> Outcome<Runtime> {
    let runtime = Runtime::builder()
        .workers(1)
        .node(node)
        .transport(bridge.transport())
        .build(vec![bridge.domain(), domain])
        .map_err(|wrong| wrong.join("; "))?;
    runtime.attach().await;
    let patience = Instant::now() + Duration::from_secs(10);
    while !bridge.is_connected() {
        if Instant::now() > patience {
            return Err("no connection to the broker".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(runtime)
}

pub fn measure(load: Load) -> Outcome<Duration> {
    let prefix = format!("bench-{}", Uuid::now_v7().simple());
    let key = ClusterKey::generate();
    let answerer = {
        let (prefix, key) = (prefix.clone(), key.clone());
        Answerer::start(move |ready, stop| async move {
            let (bridge, node) = bridge(&prefix, &key).await?;
            let domain = contract().shared(|_| async { Ok(Fetcher { words: "y".repeat(PAYLOAD.1 - 12) }) }).build();
            let runtime = start(&bridge, node, domain).await?;
            ready.send(())?;
            let _ = stop.await;
            runtime.stop(Duration::from_secs(1)).await;
            Ok(())
        })?
    };
    let took = System::new().block_on(async {
        let (bridge, node) = bridge(&prefix, &key).await?;
        let runtime = start(&bridge, node, contract().remote(bridge.transport())).await?;
        let bus = runtime.bus().clone();
        let took = race(load, move || {
            let bus = bus.clone();
            async move {
                let caller = Caller {
                    principal: Principal::User,
                    scopes: Scopes::new(["bench:fetch"]),
                    deadline: Some(Instant::now() + Duration::from_secs(30)),
                    ..Caller::anonymous()
                };
                let message = Fetch { words: "x".repeat(PAYLOAD.0 - 12) };
                let reply = bus.ask(&caller, message).await.map_err(|error: CallError<Never>| error.to_string())?;
                std::hint::black_box(reply.words);
                Ok(())
            }
        })
        .await;
        runtime.stop(Duration::from_secs(1)).await;
        took
    });
    answerer.stop()?;
    System::new().block_on(broker::remove(&prefix, &[]))?;
    took
}
