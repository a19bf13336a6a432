//! Callboard's `ask`, as a domain calls it.

use std::time::Duration;

use actix_rt::System;
use callboard_benches::Outcome;
use callboard_messages::{Access, CallError, Caller, Code, DomainError, Operation, Principal, Scopes};
use callboard_supervisors::{Domain, Handle, Outcome as Answer, Runtime};
use serde::{Deserialize, Serialize};

use crate::{ActorThread, Load, race};

#[derive(Debug, Serialize, Deserialize)]
struct Add(u64, u64);

#[derive(Debug, Serialize, Deserialize)]
struct Never;

impl std::fmt::Display for Never {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("never")
    }
}

impl std::error::Error for Never {}

impl DomainError for Never {
    const CODES: &[Code] = &[Code::Invalid];

    fn code(&self) -> Code {
        Code::Invalid
    }
}

impl Operation for Add {
    const NAME: &'static str = "bench.add";
    const ACCESS: Access = Access::Permission("bench:add");
    type Reply = u64;
    type Error = Never;
}

struct Adder;

impl Handle<Add> for Adder {
    async fn handle(&self, _: &Caller, Add(a, b): Add) -> Answer<Add> {
        Ok(a + b)
    }
}

pub fn callboard(load: Load) -> Outcome<Duration> {
    System::new().block_on(async {
        let contract = Domain::new("bench").answering().on::<Add>();
        let domain = match load.thread {
            ActorThread::Same => contract.shared(|_| async { Ok(Adder) }),
            ActorThread::Other => contract.dedicated(1, |_| async { Ok(Adder) }),
        };
        let domain = domain.build();
        let runtime = Runtime::builder().workers(1).build(vec![domain]).map_err(|wrong| wrong.join("; "))?;
        runtime.attach().await;
        let actor = runtime.bus().actor("bench").ok_or("no such domain")?;
        let took = race(load, || {
            let actor = actor.clone();
            actix_rt::spawn(async move {
                let caller = Caller {
                    principal: Principal::User,
                    scopes: Scopes::new(["bench:add"]),
                    deadline: Some(std::time::Instant::now() + Duration::from_secs(30)),
                    ..Caller::anonymous()
                };
                for n in 0..load.asks as u64 {
                    let sum =
                        actor.ask(&caller, Add(n, 1)).await.map_err(|error: CallError<Never>| error.to_string())?;
                    std::hint::black_box(sum);
                }
                Ok(())
            })
        })
        .await;
        runtime.stop(Duration::from_secs(1)).await;
        took
    })
}
