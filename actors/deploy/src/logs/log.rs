//! A log: writes each line to a journal on the disk and to a live topic, with the same id.

use std::sync::Arc;

use callboard_messages::{
    DeploymentId, ProjectId,
    deploy::{DeploymentTopic, LogTopic},
    live::Topic,
};
use callboard_supervisors::{Clock, Live, LiveEvent};

use crate::{
    logs::{
        excerpt::{SENTENCE, excerpt},
        journal::Journal,
        output::{Line, LineSink, Stream},
        terminal,
    },
    world::World,
};

/// A log to write to. Cheap to clone, for any thread.
#[derive(Clone)]
pub(crate) struct Log {
    journal: Journal,
    live: Live,
    clock: Clock,
    topic: Arc<str>,
}

impl Log {
    /// The log of a deployment: build and rollout.
    pub(crate) fn of_deployment(world: &World, id: DeploymentId, live: &Live, clock: &Clock) -> Self {
        Self::new(world.deployment_journal(id), DeploymentTopic::name(id), live, clock)
    }

    /// The log of an app: what its instances write.
    pub(crate) fn of_app(world: &World, id: ProjectId, live: &Live, clock: &Clock) -> Self {
        Self::new(world.app_journal(id), LogTopic::name(id), live, clock)
    }

    fn new(journal: Journal, topic: String, live: &Live, clock: &Clock) -> Self {
        Self { journal, live: live.clone(), clock: clock.clone(), topic: topic.into() }
    }

    /// Continues the ids after the lines of other nodes.
    pub(crate) async fn follow_on(&self) {
        if let Err(failure) = self.journal.follow_on().await {
            tracing::debug!(topic = %self.topic, %failure, "reading the last line of other nodes failed");
        }
    }

    /// Stores written lines in the object store, where other nodes can read them.
    pub(crate) async fn store(&self) {
        if let Err(failure) = self.journal.store().await {
            tracing::debug!(topic = %self.topic, %failure, "storing lines of a log failed; retrying in the background");
        }
    }

    /// Writes a line of the platform, which may quote a program's output.
    pub(crate) fn line(&self, from: &str, text: impl AsRef<str>) {
        self.write(from, terminal::plain(&excerpt(text.as_ref(), SENTENCE)));
    }

    fn write(&self, from: &str, text: String) {
        let line = self.journal.write(self.clock.now(), from, text);
        let id = line.id;
        if let Ok(data) = serde_json::to_value(line) {
            self.live.publish(&self.topic, LiveEvent { id, kind: "log".into(), data });
        }
    }

    /// A heading of the build log: what begins now.
    pub(crate) fn heading(&self, text: &str) {
        self.line("build", format!("-----> {text}"));
    }

    /// What belongs to the heading before it, line by line.
    pub(crate) fn detail(&self, text: &str) {
        for line in text.lines() {
            self.line("build", format!("       {line}"));
        }
    }

    /// What went wrong, line by line.
    pub(crate) fn trouble(&self, text: &str) {
        for line in text.lines() {
            self.line("build", format!(" !     {line}"));
        }
    }

    /// Takes the lines of a build: they belong to the heading before them.
    pub(crate) fn build_sink(&self) -> LineSink {
        let log = self.clone();
        LineSink::new(move |line: Line| log.write("build", format!("       {}", line.text)))
    }

    /// Takes the lines of an instance, `web.1`; what the platform says about it comes from `platform`.
    pub(crate) fn instance_sink(&self, from: String) -> LineSink {
        let log = self.clone();
        LineSink::new(move |line: Line| match line.stream {
            Stream::System => log.write("platform", format!("{from}: {}", line.text)),
            Stream::Stdout | Stream::Stderr => log.write(&from, line.text),
        })
    }
}
