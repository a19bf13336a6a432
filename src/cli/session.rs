//! What every verb that talks to a node needs: the client, the output, and how an app is found by its name.

use std::time::Duration;

use callboard_messages::{
    DeploymentId, Page, ProjectId,
    deploy::{Deployment, DeploymentTopic, LogLine, LogLines, LogTopic},
    live::Topic,
    project::Project,
};
use callboard_supervisors::Backoff;

use super::{AppArgs, Globals};
use crate::{
    client::{
        Client,
        live::{Update, Updates},
        pack, target,
    },
    error::{Error, Result, Status},
    output::Output,
};

/// How long a lost connection is tried again before the verb gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pauses between the attempts.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(200), at_most: Duration::from_millis(3_200), factor: 2.0, jitter: 0.2 };
/// Lines asked for at once.
const LINES: usize = 1000;

/// A verb's surroundings.
pub struct Session {
    pub client: Client,
    pub output: Output,
}

impl Session {
    /// A session with the node that the command line, the environment or a saved context names.
    pub fn open(globals: &Globals, output: Output) -> Result<Self> {
        Ok(Self { client: target::find(globals)?, output })
    }

    /// The app with this name; nothing when there is none.
    pub async fn find(&self, name: &str) -> Result<Option<Project>> {
        let query: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
        let page: Page<Project> = self.client.get(&format!("/projects?name={query}")).await?;
        Ok(page.items.into_iter().next())
    }

    /// The app a verb is about.
    pub async fn app(&self, args: &AppArgs) -> Result<Project> {
        let name = match &args.app {
            Some(name) => name.clone(),
            None => pack::folder_name(".".as_ref())?,
        };
        let named = args.app.is_some();
        self.find(&name).await?.ok_or_else(|| {
            let error = Error::failure(format!("there is no app {name}"));
            match named {
                true => error.hint("your apps: callboard projects"),
                false => error.hint("say which with --app NAME; your apps: callboard projects"),
            }
        })
    }

    /// All rows of a list, whose path may have a query.
    pub async fn all<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        let and = if path.contains('?') { '&' } else { '?' };
        let mut cursor = String::new();
        loop {
            let page: Page<T> = self.client.get(&format!("{path}{and}limit=100{cursor}")).await?;
            rows.extend(page.items);
            match page.next {
                Some(next) => cursor = format!("&cursor={}", next.0),
                None => return Ok(rows),
            }
        }
    }

    /// Follows a deployment to its end, through lost connections, and prints its log as it grows.
    pub async fn follow(&self, deployment: &Deployment, print: &mut dyn FnMut(&LogLine)) -> Result<Deployment> {
        let id = deployment.id;
        let mut after = 0;
        let mut lost = Retry::default();
        loop {
            let round = self.follow_connection(id, &mut after, print).await;
            match round {
                Ok(Some(deployment)) => return Ok(deployment),
                Ok(None) => lost.wait(None).await?,
                Err(error) if error.status == Status::Unreachable => lost.wait(Some(error)).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// One connection's worth: the stream is open before the log is read, so that no line falls between the two.
    async fn follow_connection(
        &self,
        id: DeploymentId,
        after: &mut u64,
        print: &mut dyn FnMut(&LogLine),
    ) -> Result<Option<Deployment>> {
        let mut updates = self.client.updates(&DeploymentTopic::name(id)).await?;
        loop {
            let deployment: Deployment = self.client.get(&format!("/deployments/{id}")).await?;
            self.catch_up(&format!("/deployments/{id}/logs"), after, print).await?;
            if deployment.status.is_final() {
                return Ok(Some(deployment));
            }
            if !until_final(&mut updates, after, print).await {
                return Ok(None);
            }
        }
    }

    /// Prints the lines after `after` that the node has.
    pub async fn catch_up(&self, path: &str, after: &mut u64, print: &mut dyn FnMut(&LogLine)) -> Result {
        loop {
            let lines: LogLines = self.client.get(&format!("{path}?after={after}&limit={LINES}")).await?;
            for line in &lines.items {
                print_new(line, after, print);
            }
            if lines.items.len() < LINES {
                return Ok(());
            }
        }
    }

    /// Prints an app's log as it grows, until the program is ended.
    pub async fn tail(&self, project: ProjectId, mut after: u64, print: &mut dyn FnMut(&LogLine)) -> Result {
        let mut lost = Retry::default();
        loop {
            match self.tail_connection(project, &mut after, print).await {
                Ok(()) => lost.wait(None).await?,
                Err(error) if error.status == Status::Unreachable => lost.wait(Some(error)).await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn tail_connection(&self, project: ProjectId, after: &mut u64, print: &mut dyn FnMut(&LogLine)) -> Result {
        let mut updates = self.client.updates(&LogTopic::name(project)).await?;
        self.catch_up(&format!("/projects/{project}/logs"), after, print).await?;
        while let Some(update) = updates.next().await {
            if let Update::Log(line) = update {
                print_new(&line, after, print);
            }
        }
        Ok(())
    }
}

/// Prints lines until the deployment has ended; false when the connection ends first.
async fn until_final(updates: &mut Updates, after: &mut u64, print: &mut dyn FnMut(&LogLine)) -> bool {
    while let Some(update) = updates.next().await {
        match update {
            Update::Log(line) => print_new(&line, after, print),
            Update::Deployment(deployment) if deployment.status.is_final() => return true,
            Update::Deployment(_) | Update::Other => {}
        }
    }
    false
}

/// A line is printed once, though the log and the stream both tell it.
fn print_new(line: &LogLine, after: &mut u64, print: &mut dyn FnMut(&LogLine)) {
    if line.id > *after {
        *after = line.id;
        print(line);
    }
}

/// Waits between attempts, longer each time.
#[derive(Default)]
struct Retry {
    attempts: u32,
    since: Option<tokio::time::Instant>,
}

impl Retry {
    async fn wait(&mut self, error: Option<Error>) -> Result {
        let now = tokio::time::Instant::now();
        let pause = match error {
            // It was connected: a new series begins.
            None => {
                *self = Self::default();
                Duration::from_millis(100)
            }
            Some(error) => {
                let since = *self.since.get_or_insert(now);
                if now.duration_since(since) > PATIENCE {
                    return Err(error);
                }
                let pause = PAUSES.delay(self.attempts);
                self.attempts += 1;
                pause
            }
        };
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
