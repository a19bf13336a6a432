//! The shard's mailbox: an actix actor, so that its thread's arbiter drives it, which other threads post to.
//!
//! Its capacity is no bound (every clone of an address passes it), so it is none, and the places in [`Port`] are the
//! only bound. No handler of a domain runs inside actix's own machinery without `catch_unwind`: a panic would close
//! the address for good.
//!
//! [`Port`]: crate::shard::port::Port

use std::{rc::Rc, time::Instant};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use tokio::sync::oneshot;

use super::Shard;

pub(crate) struct ShardActor(pub(crate) Rc<Shard>);

impl Actor for ShardActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(0);
    }
}

/// Calls from other threads are in the inbox.
pub(crate) struct Ring;

impl Message for Ring {
    type Result = ();
}

impl Handler<Ring> for ShardActor {
    type Result = ();

    fn handle(&mut self, Ring: Ring, _: &mut Self::Context) {
        self.0.empty_inbox();
    }
}

impl Drop for ShardActor {
    /// However the actor ends, nobody waits for it in vain.
    fn drop(&mut self) {
        self.0.port.inbox.close();
    }
}

/// What the node tells a shard.
pub(crate) enum Control {
    /// End what runs until the deadline, then go.
    Stop { deadline: Instant, done: oneshot::Sender<()> },
    /// The domain is exhausted: refuse everything.
    GiveUp,
    /// The domain is given another chance: build the state anew.
    Revive,
    /// The operator wants something of the breaker.
    ShowBreaker,
    /// The shard has stopped.
    End,
}

impl Message for Control {
    type Result = ();
}

impl Handler<Control> for ShardActor {
    type Result = ();

    fn handle(&mut self, control: Control, ctx: &mut Self::Context) {
        let shard = self.0.clone();
        match control {
            Control::GiveUp => shard.give_up(),
            Control::Revive => shard.revive(),
            Control::ShowBreaker => shard.show_breaker(),
            Control::End => ctx.stop(),
            Control::Stop { deadline, done } => {
                let own = ctx.address();
                actix_rt::spawn(async move {
                    shard.stop(deadline).await;
                    let _ = done.send(());
                    #[expect(clippy::disallowed_methods, reason = "the last message of the shard, to itself")]
                    own.do_send(Control::End);
                });
            }
        }
    }
}
