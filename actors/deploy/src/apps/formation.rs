//! The desired formation of an app: how many instances of each process type, from one release to the next.
//!
//! A desired count lasts until somebody changes it: a release that lacks the process type keeps it for one that has it. A
//! rollback restores the formation that its release had when another replaced it.

use std::collections::BTreeMap;

use callboard_messages::deploy::DeploymentKind;
use indexmap::IndexMap;

use crate::build::detect::Command;

/// Count by process type.
pub(crate) type Counts = BTreeMap<String, u32>;

/// The desired formation of an app.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DesiredFormation {
    /// Of each process type of the release that serves; absent until the first one does.
    pub(crate) counts: Option<Counts>,
    /// Counts of process types that the serving release lacks.
    pub(crate) missing: Counts,
}

impl DesiredFormation {
    fn of(&self, process: &str) -> Option<u32> {
        self.counts.as_ref().and_then(|counts| counts.get(process)).or_else(|| self.missing.get(process)).copied()
    }

    /// Why a release with these process types must not take over unless its owner says so: it lacks one that runs.
    pub(crate) fn refuse(&self, processes: &IndexMap<String, Command>) -> Option<String> {
        let runs = |(process, count): &(&String, &u32)| **count > 0 && !processes.contains_key(*process);
        let lost: Vec<(&String, &u32)> = self.counts.iter().flatten().filter(runs).collect();
        let (first, _) = lost.first()?;
        let lost: Vec<String> = lost.iter().map(|(process, count)| format!("{process} ({count} wanted)")).collect();
        let has: Vec<&str> = processes.keys().map(String::as_str).collect();
        Some(format!(
            "the new release has no process type {}, only {}; check the names in the Procfile, or scale {first} to 0 \
             first, or deploy with --allow-missing",
            lost.join(", "),
            has.join(", ")
        ))
    }
}

/// A release as its process types are concerned.
pub(crate) struct Successor<'a> {
    pub(crate) processes: &'a IndexMap<String, Command>,
    /// What was wanted of it when it served before.
    pub(crate) formation: Option<&'a Counts>,
    /// How it comes into service.
    pub(crate) kind: DeploymentKind,
}

impl Successor<'_> {
    /// What is wanted once it serves. Its rollout began when `before` was wanted; what its owner has changed until `now`
    /// is the owner's last word.
    pub(crate) fn desired(&self, before: &DesiredFormation, now: &DesiredFormation) -> DesiredFormation {
        let restored = self.formation.filter(|_| self.kind == DeploymentKind::Rollback);
        let count = |process: &String| {
            let wanted = now.of(process);
            let restored = restored.and_then(|formation| formation.get(process).copied());
            // A process type that comes later is not started by itself, as on the first deployment only `web` is.
            restored.filter(|_| wanted == before.of(process)).or(wanted).unwrap_or(0)
        };
        let counts = match &now.counts {
            Some(_) => self.processes.keys().map(|process| (process.clone(), count(process))).collect(),
            None => self.first(),
        };
        let wanted = now.missing.iter().chain(now.counts.iter().flatten());
        let missing = wanted.filter(|(process, count)| **count > 0 && !self.processes.contains_key(*process));
        DesiredFormation {
            counts: Some(counts),
            missing: missing.map(|(process, count)| (process.clone(), *count)).collect(),
        }
    }

    /// The counts of an app's first release: one `web`, or one of each when there is no `web`.
    fn first(&self) -> Counts {
        let has_web = self.processes.contains_key(crate::WEB);
        let count = |process: &str| u32::from(!has_web || process == crate::WEB);
        self.processes.keys().map(|process| (process.clone(), count(process))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes(names: &[&str]) -> IndexMap<String, Command> {
        names.iter().map(|name| ((*name).to_owned(), Command::Shell("true".to_owned()))).collect()
    }

    fn counts(of: &[(&str, u32)]) -> Counts {
        of.iter().map(|(process, count)| ((*process).to_owned(), *count)).collect()
    }

    fn wanted(of: &[(&str, u32)], missing: &[(&str, u32)]) -> DesiredFormation {
        DesiredFormation { counts: Some(counts(of)), missing: counts(missing) }
    }

    fn follow(before: &DesiredFormation, names: &[&str]) -> DesiredFormation {
        let processes = processes(names);
        Successor { processes: &processes, formation: None, kind: DeploymentKind::Deploy }.desired(before, before)
    }

    fn roll_back(
        before: &DesiredFormation,
        now: &DesiredFormation,
        names: &[&str],
        formation: &[(&str, u32)],
    ) -> DesiredFormation {
        let (processes, formation) = (processes(names), counts(formation));
        Successor { processes: &processes, formation: Some(&formation), kind: DeploymentKind::Rollback }
            .desired(before, now)
    }

    #[test]
    fn a_first_release_runs_its_web_or_one_of_each() {
        assert_eq!(follow(&DesiredFormation::default(), &["web", "worker"]), wanted(&[("web", 1), ("worker", 0)], &[]));
        assert_eq!(follow(&DesiredFormation::default(), &["bot", "worker"]), wanted(&[("bot", 1), ("worker", 1)], &[]));
    }

    #[test]
    fn a_desired_count_outlives_releases_that_lack_its_process_type() {
        let web = wanted(&[("web", 3), ("worker", 0)], &[]);
        let without = follow(&web, &["wbe"]);
        assert_eq!(without, wanted(&[("wbe", 0)], &[("web", 3)]));
        let still = follow(&without, &["wbe", "bot"]);
        assert_eq!(still, wanted(&[("bot", 0), ("wbe", 0)], &[("web", 3)]));
        assert_eq!(follow(&still, &["web", "worker"]), wanted(&[("web", 3), ("worker", 0)], &[]));
    }

    #[test]
    fn a_rollback_runs_what_its_release_ran_and_what_its_owner_asks_for_meanwhile() {
        let before = wanted(&[("web", 5), ("bot", 2)], &[]);
        let back = |now: &DesiredFormation| roll_back(&before, now, &["web", "worker"], &[("web", 2), ("worker", 1)]);
        assert_eq!(back(&before), wanted(&[("web", 2), ("worker", 1)], &[("bot", 2)]));
        let scaled = wanted(&[("web", 4), ("bot", 2)], &[]);
        assert_eq!(back(&scaled), wanted(&[("web", 4), ("worker", 1)], &[("bot", 2)]));
    }

    #[test]
    fn only_what_runs_is_missed() {
        let before = wanted(&[("web", 1), ("worker", 0)], &[("bot", 2)]);
        assert_eq!(before.refuse(&processes(&["web"])), None);
        assert_eq!(DesiredFormation::default().refuse(&processes(&["wbe"])), None);
        let refusal = before.refuse(&processes(&["wbe", "worker"])).unwrap();
        assert!(
            refusal.starts_with("the new release has no process type web (1 wanted), only wbe, worker;"),
            "{refusal}"
        );
        assert!(refusal.contains("scale web to 0"), "{refusal}");
    }
}
