//! `callboard plan`: how a folder would be built and run here, without a node.

use std::path::{Path, PathBuf};

use callboard_deploy::build::{
    archive,
    detect::{self, Plan as Planned},
    tools::Tools,
};
use clap::Args;

use super::build_config;
use crate::{
    client::pack,
    error::{Context, Error, Result},
    output::Output,
};

/// The `PATH` of a machine that has none.
const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

#[derive(Debug, Args)]
pub struct Plan {
    /// The folder of the app
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Decide it here: `--set start="node x.js" --set root=apps/web`, by the names of build-config
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

impl Plan {
    pub fn run(self, output: Output) -> Result {
        let config = build_config::of_settings(&self.settings)?;
        // What a deploy would send, and no more: what it leaves out can't be part of a plan.
        let packed = pack::pack(&self.folder)?;
        packed.notes.iter().for_each(|note| output.note(note));
        let place = tempfile::tempdir().context(|| "make a temporary folder".to_owned())?;
        let source = place.path().join("source");
        archive::unpack(packed.file.path(), &source, &archive::Limits::default())
            .map_err(|error| Error::failure(error.to_string()))?;
        let tools = Tools::of_path(std::env::var("PATH").unwrap_or_else(|_| USUAL_PATH.to_owned()));
        let plan = detect::detect(&source, &config, &tools).map_err(|error| {
            Error::failure(error.to_string())
                .hint("nothing was built; a node refuses this folder with the same sentence")
        })?;
        output.show(&plan, |plan| text(plan, output));
        Ok(())
    }
}

fn text(plan: &Planned, output: Output) -> String {
    let mut lines = vec![output.bold(&plan.heading())];
    lines.extend(plan.reasons.iter().map(|reason| format!("  {reason}")));
    let mut section = |title: &str, entries: Vec<String>| {
        if !entries.is_empty() {
            lines.push(String::new());
            lines.push(output.bold(title));
            lines.extend(entries.into_iter().map(|entry| format!("  {entry}")));
        }
    };
    let folder = |path: &Path| path.display().to_string();
    let root = if plan.root.as_os_str().is_empty() { Vec::new() } else { vec![folder(&plan.root)] };
    section("Folder", root);
    let steps = plan.steps.iter().map(|step| format!("{:<40} $ {}", step.title, step.command.shown()));
    section("Build", steps.collect());
    section("Before each rollout", plan.release.iter().map(|command| format!("$ {}", command.shown())).collect());
    section("Runs", plan.processes.iter().map(|(name, command)| format!("{name:<10} {}", command.shown())).collect());
    section("Release", plan.publish.iter().map(|publish| format!("{}/ alone", folder(publish))).collect());
    section("Kept for the next build", plan.cache.folders.iter().map(|kept| folder(kept)).collect());
    lines.join("\n")
}
