//! What a new deployment waits for, said in its log before anybody can wonder.

use callboard_messages::{DeploymentId, OrganizationId};

use super::Deploys;
use crate::{
    ownership::work::Work,
    store::steps::{self, Ahead},
};

/// Builds that are looked at; of more it says that there are more.
const LOOKED_AT: i64 = 100;
/// Builds that are named.
const NAMED: usize = 5;

impl Deploys {
    pub(super) async fn tell_if_it_waits(&self, id: DeploymentId, organization_id: OrganizationId) {
        let (context, builders) = (&self.context, self.context.settings.builders);
        let me = context.nodes.me();
        let node = context.nodes.name(me);
        if context.disk.is_full() {
            let sentence = format!("Waiting: the disk of the node {node} is full; it builds again when there is room");
            return context.deployment_log(id).heading(&sentence);
        }
        let ahead = match steps::ahead(&context.database, id, LOOKED_AT).await {
            Ok(ahead) => ahead,
            Err(error) => {
                tracing::debug!(%id, %error, "counting the builds before a deployment failed; the log does not say what it waits for");
                return;
            }
        };
        let queued = ahead.iter().filter(|build| !build.building).count();
        let building = context.work.all();
        // A builder was free, and has it already.
        if building.contains(&(id, Work::Build)) {
            return;
        }
        let builds = building.into_iter().filter(|(_, work)| *work == Work::Build).count();
        if builds + queued < builders {
            return;
        }
        let busy = match builders {
            1 => format!("the only builder of the node {node} is busy"),
            _ => format!("all {builders} builders of the node {node} are busy"),
        };
        let place = match queued {
            0 => "this deployment is the next one".to_owned(),
            1 => "one other deployment comes before this one".to_owned(),
            _ => format!("{queued} other deployments come before this one"),
        };
        // Those of other nodes end without making room here.
        let before: Vec<&Ahead> =
            ahead.iter().filter(|build| !build.building || build.builder_node == Some(me)).collect();
        let log = context.deployment_log(id);
        log.heading(&format!("Waiting: {busy}; {place}"));
        who_is_ahead(&before, organization_id).iter().for_each(|sentence| log.detail(sentence));
    }
}

/// Whose the builds before this one are, and who may cancel them. Apps of other organizations are only counted.
fn who_is_ahead(before: &[&Ahead], organization_id: OrganizationId) -> Vec<String> {
    let mut sentences = Vec::new();
    match before.len() {
        0 => return sentences,
        1 => sentences.push("1 build is ahead:".to_owned()),
        count if i64::try_from(count).is_ok_and(|count| count >= LOOKED_AT) => {
            sentences.push(format!("{count} builds or more are ahead:"));
        }
        count => sentences.push(format!("{count} builds are ahead:")),
    }
    let (own, others): (Vec<&Ahead>, Vec<&Ahead>) =
        before.iter().partition(|build| build.organization_id == organization_id);
    for build in own.iter().take(NAMED) {
        let name = &build.name;
        let what = if build.building { "is being built" } else { "waits as well" };
        sentences.push(format!("{name} {what}; you may end it: callboard cancel --app {name}"));
    }
    let more = own.len().saturating_sub(NAMED);
    if more > 0 {
        sentences.push(format!("{more} more of your organization"));
    }
    match others.len() {
        0 => {}
        1 => sentences.push("1 of another organization, which its members may cancel".to_owned()),
        count => sentences.push(format!("{count} of other organizations, which their members may cancel")),
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_builds_are_named_and_those_of_others_are_counted() {
        let (own, other) = (OrganizationId::new(), OrganizationId::new());
        let build = |name: &str, organization_id, building| Ahead {
            name: name.to_owned(),
            organization_id,
            builder_node: None,
            building,
        };
        let all = [build("shop", own, true), build("secret", other, true), build("blog", own, false)];
        let sentences = who_is_ahead(&all.iter().collect::<Vec<_>>(), own);
        assert_eq!(
            sentences,
            [
                "3 builds are ahead:",
                "shop is being built; you may end it: callboard cancel --app shop",
                "blog waits as well; you may end it: callboard cancel --app blog",
                "1 of another organization, which its members may cancel",
            ]
        );
        assert!(who_is_ahead(&[], own).is_empty());
    }
}
