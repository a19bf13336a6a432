//! The same actor, bare, with others' libraries, as their documentation says it is done.

use std::{sync::mpsc, time::Duration};

use actix_rt::{Arbiter, System};
use callboard_benches::Outcome;
use tokio::{runtime, sync::oneshot};

use crate::{ActorThread, Load, race};

struct Add(u64, u64);
struct Adder;

impl actix::Actor for Adder {
    type Context = actix::Context<Self>;
}

impl actix::Message for Add {
    type Result = u64;
}

impl actix::Handler<Add> for Adder {
    type Result = u64;

    fn handle(&mut self, Add(a, b): Add, _: &mut Self::Context) -> u64 {
        a + b
    }
}

pub fn actix(load: Load) -> Outcome<Duration> {
    use actix::Actor as _;

    System::new().block_on(async {
        let arbiter = (load.thread == ActorThread::Other).then(Arbiter::new);
        let address = match &arbiter {
            None => Adder.start(),
            Some(arbiter) => Adder::start_in_arbiter(&arbiter.handle(), |_| Adder),
        };
        let took = race(load, || {
            let address = address.clone();
            actix_rt::spawn(async move {
                for n in 0..load.asks as u64 {
                    #[expect(clippy::disallowed_methods, reason = "it is what is measured")]
                    std::hint::black_box(address.send(Add(n, 1)).await?);
                }
                Ok(())
            })
        })
        .await;
        if let Some(arbiter) = arbiter {
            arbiter.stop();
            let _ = arbiter.join();
        }
        took
    })
}

/// Runs `callers` on a runtime of this thread, with the actor that `start` makes on it or on another thread's.
fn on_tokio<A: Send + 'static, S: Future<Output = Outcome<A>>>(
    load: Load,
    start: impl FnOnce() -> S + Send + 'static,
    callers: impl AsyncFnOnce(A) -> Outcome<Duration>,
) -> Outcome<Duration> {
    let local = runtime::Builder::new_current_thread().enable_all().build()?;
    if load.thread == ActorThread::Same {
        return local.block_on(async { callers(start().await?).await });
    }
    let (started, start_of) = mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let remote = runtime::Builder::new_current_thread().enable_all().build()?;
        remote.block_on(async {
            started.send(start().await).map_err(|_| "nobody waits for the actor")?;
            let _ = stopped.await;
            Outcome::Ok(())
        })
    });
    let actor = start_of.recv()??;
    let took = local.block_on(callers(actor));
    let _ = stop.send(());
    thread.join().map_err(|_| "the actor's thread panicked")??;
    took
}

enum RactorMessage {
    Add(u64, u64, ractor::RpcReplyPort<u64>),
}

impl ractor::Actor for Adder {
    type Msg = RactorMessage;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ractor::ActorRef<Self::Msg>, (): ()) -> Result<(), ractor::ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ractor::ActorRef<Self::Msg>,
        RactorMessage::Add(a, b, reply): RactorMessage,
        (): &mut (),
    ) -> Result<(), ractor::ActorProcessingErr> {
        reply.send(a + b)?;
        Ok(())
    }
}

pub fn ractor(load: Load) -> Outcome<Duration> {
    use ractor::Actor as _;

    let start = || async { Ok(Adder::spawn(None, Adder, ()).await?.0) };
    on_tokio(load, start, async |actor: ractor::ActorRef<RactorMessage>| {
        let took = race(load, || {
            let actor = actor.clone();
            tokio::spawn(async move {
                for n in 0..load.asks as u64 {
                    let reply = actor.call(|reply| RactorMessage::Add(n, 1, reply), None).await?;
                    std::hint::black_box(reply.unwrap_or(0));
                }
                Ok(())
            })
        })
        .await;
        actor.stop(None);
        took
    })
}

impl kameo::Actor for Adder {
    type Args = Self;
    type Error = std::convert::Infallible;

    async fn on_start(adder: Self, _: kameo::actor::ActorRef<Self>) -> Result<Self, Self::Error> {
        Ok(adder)
    }
}

impl kameo::message::Message<Add> for Adder {
    type Reply = u64;

    async fn handle(&mut self, Add(a, b): Add, _: &mut kameo::message::Context<Self, u64>) -> u64 {
        a + b
    }
}

pub fn kameo(load: Load) -> Outcome<Duration> {
    use kameo::actor::Spawn as _;

    let start = || async { Ok(Adder::spawn(Adder)) };
    on_tokio(load, start, async |actor: kameo::actor::ActorRef<Adder>| {
        let took = race(load, || {
            let actor = actor.clone();
            tokio::spawn(async move {
                for n in 0..load.asks as u64 {
                    let sum = actor.ask(Add(n, 1)).await.map_err(|error| error.to_string())?;
                    std::hint::black_box(sum);
                }
                Ok(())
            })
        })
        .await;
        actor.stop_gracefully().await.map_err(|error| error.to_string())?;
        took
    })
}
