//! Settings that the nodes of a cluster must have in common, compared before a node does anything.
//!
//! A node with another key, or with another store, would take requests that it can't answer. So the first node records
//! fingerprints in the cluster's database, and a node that differs does not start. The fingerprint of a secret is an
//! HMAC under the secret itself; that of the object store is a random name which the first node leaves in it, so that
//! two addresses of one store are the same and an empty folder of the same name is not.

use std::path::Path;

use callboard_cluster::{ClusterSettings, Fingerprints, living};
use callboard_messages::{NodeId, Secret};
use callboard_supervisors::db::{Databases, Error as DatabaseError};
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use object_store::ObjectStore;
use sha2::Sha256;

use super::objects;
use crate::{
    config::Settings,
    error::{Context, Error, Result},
};

/// The parts that have fingerprints, as `callboard fingerprints` names them.
pub const PARTS: [&str; 5] = [CLUSTER_KEY, MASTER_KEY, OBJECTS, BASE_DOMAIN, ISSUER];
const CLUSTER_KEY: &str = "cluster-key";
const MASTER_KEY: &str = "master-key";
const OBJECTS: &str = "objects";
const BASE_DOMAIN: &str = "base-domain";
const ISSUER: &str = "issuer";

/// Part of every hash, so that it is of use for nothing else.
const DOMAIN: &str = "callboard fingerprint";

/// Ending of the sentence about a difference that a node may change itself, when no other is up.
const STOP_FIRST: &str = "stop them first, or give this node what they have";

/// The settings of this node.
pub struct Mine<'a> {
    /// What the operator set.
    pub settings: &'a Settings,
    /// The data folder.
    pub data: &'a Path,
    /// The issuer of tokens.
    pub issuer: &'a str,
    /// The opened store.
    pub objects: &'a dyn ObjectStore,
}

/// A setting with its fingerprint.
struct Setting {
    part: &'static str,
    value: String,
    /// Which recorded fingerprint an operator may replace by this one.
    former: Former,
    /// The sentence when another is recorded: what differs, and how to mend it.
    sentence: String,
}

enum Former {
    /// None: data depends on it.
    None,
    /// This one, while no node that has it is up.
    Known(String),
    /// Any, while no other node is up: no stored data depends on it.
    Any,
}

impl Mine<'_> {
    /// Compares with the recorded fingerprints, and records missing ones.
    ///
    /// # Errors
    /// Everything that differs, and how to mend it.
    pub async fn check(&self, databases: &Databases, me: NodeId) -> Result {
        let recorded = Fingerprints::open(databases).await.context(unknown)?;
        let salt = recorded.salt().await.context(unknown)?;
        let mut wrong = Vec::new();
        for setting in self.settings(&salt) {
            let found = recorded.record(setting.part, &setting.value, Utc::now()).await.context(unknown)?;
            if found.fingerprint != setting.value
                && let Some(sentence) = replaced(&recorded, databases, me, &setting, &found.fingerprint).await?
            {
                wrong.push(sentence);
            }
        }
        wrong.extend(self.check_store(&recorded).await?);
        if wrong.is_empty() { Ok(()) } else { Err(crate::config::wrong(&wrong)) }
    }

    /// Compares without recording; a sentence for every difference. Empty in a cluster in which no node of this version
    /// has started yet.
    pub async fn look(&self, databases: &Databases) -> Vec<String> {
        self.try_look(databases).await.unwrap_or_default()
    }

    async fn try_look(&self, databases: &Databases) -> std::result::Result<Vec<String>, DatabaseError> {
        let recorded = Fingerprints::open(databases).await?;
        let all = recorded.all().await?;
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let find = |part: &str| all.iter().find(|recorded| recorded.part == part).map(|recorded| &recorded.fingerprint);
        let salt = recorded.salt().await?;
        let differs = |setting: &Setting| find(setting.part).is_some_and(|found| *found != setting.value);
        let mut wrong: Vec<String> =
            self.settings(&salt).into_iter().filter(differs).map(|setting| setting.sentence).collect();
        let mark = objects::mark(self.objects).await.unwrap_or_default();
        if find(OBJECTS).is_some() && find(OBJECTS) != mark.as_ref() {
            wrong.push(self.other_store());
        }
        Ok(wrong)
    }

    fn settings(&self, salt: &str) -> Vec<Setting> {
        let Self { settings, issuer, .. } = self;
        let hash = |part: &str, secret: &Option<Secret>| secret.as_ref().map(|secret| keyed(secret, part, salt));
        let former = hash(CLUSTER_KEY, &settings.cluster.key_former).map_or(Former::None, Former::Known);
        let base = &settings.router.base_domain;
        let of_secret = |part: &'static str, secret: &Option<Secret>, former: Former, sentence: &str| {
            Some(Setting { part, value: hash(part, secret)?, former, sentence: sentence.to_owned() })
        };
        let plain = |part: &'static str, value: &str, what: String| {
            let sentence = format!("{what} is not what the nodes of this cluster have; give all of them the same");
            Setting { part, value: value.to_owned(), former: Former::Any, sentence }
        };
        [
            of_secret(
                CLUSTER_KEY,
                &settings.cluster.key,
                former,
                "CALLBOARD_CLUSTER_KEY is not the key of this cluster, whose nodes would not understand this one; take \
                 the key of the other nodes, or change it on all of them as docs/cluster.md says",
            ),
            of_secret(
                MASTER_KEY,
                &settings.node.master_key,
                Former::None,
                "CALLBOARD_MASTER_KEY is not the key that the secrets of this cluster are wrapped with; take the key of \
                 the other nodes: with another one the secrets can't be read",
            ),
            Some(plain(BASE_DOMAIN, base, format!("CALLBOARD_BASE_DOMAIN ({base})"))),
            Some(plain(ISSUER, issuer, format!("CALLBOARD_PUBLIC_URL ({issuer}), by which tokens are signed,"))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Checks the mark of the store, which the first node leaves. A store without it is another, or was emptied, and is
    /// not changed.
    async fn check_store(&self, recorded: &Fingerprints) -> Result<Option<String>> {
        let cannot = || "look for the mark of the object store".to_owned();
        let found = match recorded.get(OBJECTS).await.context(unknown)? {
            Some(found) => found.fingerprint,
            None => {
                let mark = objects::leave_mark(self.objects).await.context(cannot)?;
                recorded.record(OBJECTS, &mark, Utc::now()).await.context(unknown)?.fingerprint
            }
        };
        let mark = objects::mark(self.objects).await.context(cannot)?;
        Ok((mark.as_ref() != Some(&found)).then(|| self.other_store()))
    }

    fn other_store(&self) -> String {
        format!(
            "the object store {} is not the one that has this cluster's sources, releases and logs; name that one in \
             CALLBOARD_OBJECTS_URL, and mount it if it is a folder, or see docs/cluster.md if it was moved",
            objects::shown(&self.settings.objects, self.data)
        )
    }
}

/// Records another setting if that is allowed; else returns what is wrong.
async fn replaced(
    recorded: &Fingerprints,
    databases: &Databases,
    me: NodeId,
    setting: &Setting,
    found: &str,
) -> Result<Option<String>> {
    let may_be = match &setting.former {
        Former::None => false,
        Former::Known(former) => former == found,
        Former::Any => true,
    };
    if !may_be {
        return Ok(Some(setting.sentence.clone()));
    }
    let part = setting.part;
    tracing::info!(part, "this node has another setting than the last ones had; it looks whether they are up");
    let living = living(databases, me, &ClusterSettings::default()).await.context(unknown)?;
    if !living.is_empty() {
        let (what, _) = setting.sentence.split_once("; ").unwrap_or((&setting.sentence, ""));
        return Ok(Some(format!("{what}, and other nodes are up ({}); {STOP_FIRST}", living.join(", "))));
    }
    if recorded.replace(part, found, &setting.value, Utc::now()).await.context(unknown)? {
        tracing::warn!(part, "this setting was changed for all nodes of the cluster");
        return Ok(None);
    }
    // Another starting node was quicker.
    let now = recorded.get(part).await.context(unknown)?;
    Ok(now.is_none_or(|now| now.fingerprint != setting.value).then(|| setting.sentence.clone()))
}

fn unknown() -> String {
    "compare this node with the others of its cluster".to_owned()
}

/// A hash that reveals nothing about the secret.
fn keyed(secret: &Secret, part: &str, salt: &str) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).unwrap_or_else(|_| Hmac::new(&[0; 64].into()));
    for text in [DOMAIN, part, salt] {
        mac.update(&(text.len() as u64).to_be_bytes());
        mac.update(text.as_bytes());
    }
    hex::encode(mac.finalize().into_bytes())
}

/// Removes the record of a part, which the next node to start then records. Only while no node is up.
///
/// # Errors
/// When there is no such part, or a node is up.
pub async fn forget(databases: &Databases, part: &str) -> Result {
    if !PARTS.contains(&part) {
        return Err(Error::usage(format!("there is no part {part}; the parts: {}", PARTS.join(", "))));
    }
    let living = living(databases, NodeId::new(), &ClusterSettings::default()).await.context(unknown)?;
    if !living.is_empty() {
        return Err(Error::failure(format!("nodes of this cluster are up: {}", living.join(", ")))
            .hint("stop all of them; what they have in common can't change while they work with it"));
    }
    let recorded = Fingerprints::open(databases).await.context(unknown)?;
    match recorded.forget(part).await.context(unknown)? {
        true => Ok(()),
        false => Err(Error::failure(format!("nothing is recorded of {part}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_same_for_the_same_secret_use_and_cluster_alone() {
        let secret = Secret::new("a secret that nobody may learn from what is recorded");
        let print = keyed(&secret, CLUSTER_KEY, "salt");
        assert_eq!(print, keyed(&secret, CLUSTER_KEY, "salt"));
        assert!(print.len() == 64 && !print.contains("secret"));
        for other in [
            keyed(&Secret::new("another"), CLUSTER_KEY, "salt"),
            keyed(&secret, MASTER_KEY, "salt"),
            keyed(&secret, CLUSTER_KEY, "another salt"),
        ] {
            assert_ne!(print, other);
        }
    }
}
