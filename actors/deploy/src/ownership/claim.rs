//! Claiming an app: one without an owner, one whose owner is gone (takeover), or, as a standby, one whose owner drains.

use callboard_messages::{
    Caller, Failure,
    deploy::{AppTakenOver, TakeoverFact},
};
use callboard_supervisors::events::emit;
use uuid::Uuid;

use crate::{
    context::Context,
    store::{
        apps::AppRow,
        owners::{self, Owner},
    },
};

/// In which role this node runs an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// It owns the app, with a fencing token.
    Owner(Owner),
    /// It starts instances while the owner, which drains, serves on.
    Standby(Owner),
}

/// An app that this node has just claimed.
pub(crate) struct Acquired {
    pub(crate) ownership: Ownership,
    /// The takeover notice for the app's log. The app's actor writes it: it reads the object store first, and must keep no
    /// other app waiting.
    pub(crate) notice: Option<String>,
}

/// Claims the app if it needs an owner and this node may be it; `None` otherwise.
pub(crate) async fn acquire(context: &Context, row: &AppRow, rolls: bool) -> Result<Option<Acquired>, Failure> {
    let me = context.nodes.me();
    if context.is_draining() || !context.nodes.has_joined() {
        return Ok(None);
    }
    let before = match row.owner_node {
        None if row.is_wanted() || rolls => None,
        None => return Ok(None),
        // Left by an earlier run of this node, or of the app's actor.
        Some(node) if node == me => None,
        Some(node) if context.nodes.is_gone(node, context.clock.instant()) => Some(node),
        Some(node) if row.offered => return stand_by(context, row, Owner { node, token: row.owner_token }).await,
        Some(_) => return Ok(None),
    };
    let reason = before.map(|node| (node, format!("{} is gone", context.nodes.name(node))));
    claim(context, row, reason).await
}

/// Makes this node the standby, unless another present node is.
async fn stand_by(context: &Context, row: &AppRow, from: Owner) -> Result<Option<Acquired>, Failure> {
    let me = context.nodes.me();
    let is_free = row.standby_node.is_none_or(|standby| standby == me || !context.nodes.is_present(standby));
    if is_free && owners::stand_by(&context.database, row, me).await? {
        return Ok(Some(Acquired { ownership: Ownership::Standby(from), notice: None }));
    }
    Ok(None)
}

/// Makes this node the owner, if the row still is as it was read; publishes a takeover when it was another's.
pub(crate) async fn claim(
    context: &Context,
    row: &AppRow,
    from: Option<(Uuid, String)>,
) -> Result<Option<Acquired>, Failure> {
    let me = context.nodes.me();
    let mut transaction = context.database.begin().await?;
    let Some(owner) = owners::claim(&mut transaction, row, me).await? else { return Ok(None) };
    if let Some((from, why)) = &from {
        let fact = TakeoverFact {
            project_id: row.project_id,
            organization_id: row.organization_id,
            app: row.name.clone(),
            from: *from,
            to: me,
            reason: why.clone(),
        };
        emit(&mut transaction, &Caller::system(), &AppTakenOver(fact)).await?;
    }
    transaction.commit().await?;
    let notice = from.map(|(_, why)| {
        let sentence = format!("taken over by node {} because node {why}", context.nodes.name(me));
        tracing::warn!(app = row.name, "{sentence}");
        sentence
    });
    context.nudge_routers();
    Ok(Some(Acquired { ownership: Ownership::Owner(owner), notice }))
}
