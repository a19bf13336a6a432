//! Taking an app on: from nobody, from a node that is gone, or from one that stops and serves on meanwhile.

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

/// In which right this node runs an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the one that does.
    Owner(Owner),
    /// It gets ready to be, while the owner, which stops, serves on.
    Heir(Owner),
}

/// An app that was just taken on.
pub(crate) struct Taken {
    pub(crate) standing: Standing,
    /// What its log shall say of it. Its own actor does that: whoever asks the object store for the lines of the node
    /// before must keep no other app waiting.
    pub(crate) news: Option<String>,
}

/// Takes the app on if it needs a node and this one may be it. `None` when it is another's, or nobody's need.
pub(crate) async fn take_on(context: &Context, row: &AppRow, rolls: bool) -> Result<Option<Taken>, Failure> {
    let me = context.nodes.me();
    if context.is_leaving() || !context.nodes.has_joined() {
        return Ok(None);
    }
    let before = match row.owner_node {
        None if row.is_wanted() || rolls => None,
        None => return Ok(None),
        // An earlier life of this node, or of its actor.
        Some(node) if node == me => None,
        Some(node) if context.nodes.is_gone(node, context.clock.instant()) => Some(node),
        Some(node) if row.offered => return inherit(context, row, Owner { node, token: row.owner_token }).await,
        Some(_) => return Ok(None),
    };
    let reason = before.map(|node| (node, format!("{} is gone", context.nodes.name(node))));
    claim(context, row, reason).await
}

/// Makes this node the heir, unless another one is.
async fn inherit(context: &Context, row: &AppRow, from: Owner) -> Result<Option<Taken>, Failure> {
    let me = context.nodes.me();
    let is_free = row.heir_node.is_none_or(|heir| heir == me || !context.nodes.is_present(heir));
    if is_free && owners::inherit(&context.database, row, me).await? {
        return Ok(Some(Taken { standing: Standing::Heir(from), news: None }));
    }
    Ok(None)
}

/// Makes this node the owner, if the row still is as it was read; tells why, when it was another's.
pub(crate) async fn claim(
    context: &Context,
    row: &AppRow,
    from: Option<(Uuid, String)>,
) -> Result<Option<Taken>, Failure> {
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
    let news = from.map(|(_, why)| {
        let sentence = format!("taken over by node {} because node {why}", context.nodes.name(me));
        tracing::warn!(app = row.name, "{sentence}");
        sentence
    });
    context.nudge_routers();
    Ok(Some(Taken { standing: Standing::Owner(owner), news }))
}
