//! What a node issues at each start: the set-up link, and the key of the command line on this machine.
//!
//! Neither is a reason not to run. What can't be issued, as on a full disk, is tried again in the background, while
//! the apps serve. Each part is issued once: a second key would end the first, which may be in use by then.

use std::{path::PathBuf, time::Duration};

use callboard_messages::{
    Caller, NodeId, Operation, Secret,
    auth::{IssueLocalKey, IssueSetupToken},
};
use callboard_supervisors::{Backoff, Runtime, retry, retry_forever};
use url::Url;

use crate::{
    client::{contexts::write_private, target},
    config::Mode,
    error::{Context, Result},
};

/// How long a start waits for auth on other nodes.
const MOMENT: Duration = Duration::from_secs(10);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pauses between the attempts of that moment.
const SOON: Backoff = Backoff::constant(Duration::from_millis(500));
/// The pauses between the attempts after it.
const LATER: Backoff =
    Backoff { first: Duration::from_secs(1), at_most: Duration::from_secs(60), factor: 2.0, jitter: 0.0 };

/// What has been issued so far.
pub struct Credentials {
    runtime: Runtime,
    node: NodeId,
    path: PathBuf,
    url: Url,
    /// The answer, which is no token when there is an administrator.
    setup: Option<Option<Secret>>,
    key: Option<Secret>,
    is_written: bool,
}

impl Credentials {
    /// Nothing yet, for the node at `url` with this data folder.
    pub fn new(runtime: Runtime, node: NodeId, data: &std::path::Path, url: Url) -> Self {
        Self { runtime, node, path: data.join(target::LOCAL_FILE), url, setup: None, key: None, is_written: false }
    }

    /// Of the set-up link, when it has been issued and somebody needs it.
    pub fn setup(&self) -> Option<&Secret> {
        self.setup.as_ref()?.as_ref()
    }

    /// Of the local operator, when it has been issued.
    pub fn key(&self) -> Option<&Secret> {
        self.key.as_ref()
    }

    /// Issues what is missing. The parts do not depend on one another.
    pub async fn issue(&mut self) -> Result {
        let setup = self.issue_setup().await;
        self.issue_key().await.and(setup)
    }

    /// Issues what is missing. A node of a cluster gives auth, which may be starting on another, a moment for it.
    pub async fn issue_soon(&mut self, mode: Mode) -> Result {
        let clock = self.runtime.clock().clone();
        let until = clock.instant() + if mode == Mode::Serve { MOMENT } else { Duration::ZERO };
        let attempt = async || self.issue().await;
        retry(&clock, SOON, attempt, |error, _| {
            let is_over = clock.instant() >= until;
            if is_over { Err(error) } else { Ok(()) }
        })
        .await
    }

    /// Issues what is missing, as soon as that can be done.
    pub async fn issue_later(&mut self) {
        let clock = self.runtime.clock().clone();
        clock.sleep(LATER.first).await;
        let attempt = async || self.issue().await;
        retry_forever(&clock, LATER, attempt, |error, pause| {
            tracing::warn!(next_seconds = pause.as_secs(), "{}", error.sentence);
        })
        .await;
        tracing::info!("the set-up link and the key of the command line are issued");
    }

    async fn issue_setup(&mut self) -> Result {
        if self.setup.is_none() {
            self.setup = Some(self.ask(IssueSetupToken { node: Some(self.node) }).await?);
        }
        Ok(())
    }

    /// Signs in the command line on this machine.
    async fn issue_key(&mut self) -> Result {
        if self.is_written {
            return Ok(());
        }
        let key = match &self.key {
            Some(key) => key.clone(),
            None => self.key.insert(self.ask(IssueLocalKey { node: Some(self.node) }).await?.secret).clone(),
        };
        let local = target::LocalNode { url: self.url.clone(), key, pid: std::process::id() };
        let json = serde_json::to_vec_pretty(&local).context(|| "write the local key".to_owned())?;
        write_private(&self.path, &json).context(|| format!("write {}", self.path.display()))?;
        self.is_written = true;
        Ok(())
    }

    /// Not for long: a node that can't be told to be ready because another is slow is no help to anybody.
    async fn ask<M: Operation>(&self, message: M) -> Result<M::Reply> {
        let caller = Caller::system().with_deadline(self.runtime.clock().instant() + PATIENCE);
        let answer = self.runtime.bus().ask(&caller, message).await;
        answer.context(|| format!("issue what the command line here is signed in with ({})", M::NAME))
    }
}
