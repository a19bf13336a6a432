//! Verbs about apps: projects, deployments, instances, variables and logs.

mod build_config;
mod build_log;
mod cache;
mod deploy;
mod destroy;
mod env;
mod lifecycle;
mod logs;
mod open;
mod plan;
mod projects;
mod ps;
mod releases;

use clap::Subcommand;

use super::{Globals, block_on, help::Group, session::Session};
use crate::{error::Result, output::Output};

#[derive(Debug, Subcommand)]
pub enum AppVerb {
    /// List your apps
    Projects(projects::Projects),
    /// Create an app without deploying it
    Create(projects::Create),
    /// Build a folder or a git repository and bring it into service
    Deploy(deploy::Deploy),
    /// Show how a folder would be built and run, without a node
    Plan(plan::Plan),
    /// Show, set and unset how an app is built and run
    BuildConfig(build_config::BuildConfig),
    /// Show what an app's instances wrote
    Logs(logs::Logs),
    /// Show the build log of a deployment
    BuildLog(build_log::BuildLog),
    /// List an app's instances
    Ps(ps::Ps),
    /// Set how many instances of each process type run: `scale web=3 worker=1`
    Scale(lifecycle::Scale),
    /// List an app's releases
    Releases(releases::Releases),
    /// Bring a release back: the one that served before, or `v3`
    Rollback(lifecycle::Rollback),
    /// Replace every instance, without a gap in service
    Restart(lifecycle::Restart),
    /// Stop every instance
    Stop(lifecycle::Stop),
    /// End the deployment that is in progress; what serves now serves on
    Cancel(lifecycle::Cancel),
    /// Empty what an app's builds keep for the next one
    Cache(cache::Cache),
    /// Set, unset and list environment variables
    Env(env::Env),
    /// Open the app in the browser
    Open(open::Open),
    /// Take an app down and remove all of it
    Destroy(destroy::Destroy),
}

impl Group for AppVerb {
    const HEADING: &'static str = "Apps";

    fn run(self, globals: &Globals, output: Output) -> Result {
        // The only one that talks to no node.
        let verb = match self {
            Self::Plan(verb) => return verb.run(output),
            verb => verb,
        };
        block_on(async {
            let session = Session::open(globals, output)?;
            match verb {
                Self::Projects(verb) => verb.run(&session).await,
                Self::Create(verb) => verb.run(&session).await,
                Self::Deploy(verb) => verb.run(&session).await,
                Self::Plan(verb) => verb.run(output),
                Self::BuildConfig(verb) => verb.run(&session).await,
                Self::Logs(verb) => verb.run(&session).await,
                Self::BuildLog(verb) => verb.run(&session).await,
                Self::Ps(verb) => verb.run(&session).await,
                Self::Scale(verb) => verb.run(&session).await,
                Self::Releases(verb) => verb.run(&session).await,
                Self::Rollback(verb) => verb.run(&session).await,
                Self::Restart(verb) => verb.run(&session).await,
                Self::Stop(verb) => verb.run(&session).await,
                Self::Cancel(verb) => verb.run(&session).await,
                Self::Cache(verb) => verb.run(&session).await,
                Self::Env(verb) => verb.run(&session).await,
                Self::Open(verb) => verb.run(&session).await,
                Self::Destroy(verb) => verb.run(&session).await,
            }
        })
    }
}
