//! `callboard --help`: the verbs in groups, each under the heading of its domain.
//!
//! clap has one heading for all subcommands. So the list is made here, of the same declarations that clap parses.

use clap::{Command, Subcommand, builder::Styles};

use super::Globals;
use crate::{error::Result, output::Output};

/// The verbs of a domain. A verb is declared in one group, and so has one heading.
pub trait Group: Subcommand {
    /// What `callboard --help` prints above them.
    const HEADING: &'static str;

    /// Does what a verb says.
    ///
    /// # Errors
    /// The verb's own, with the program's exit status.
    fn run(self, globals: &Globals, output: Output) -> Result;
}

/// A heading with the verbs below it, in the order of their declaration.
pub struct Section {
    pub heading: &'static str,
    /// Name and first sentence of each verb that is not hidden.
    pub verbs: Vec<(String, String)>,
}

impl Section {
    pub fn of<G: Group>() -> Self {
        let command = G::augment_subcommands(Command::new("callboard"));
        let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        let about = |verb: &Command| verb.get_about().map(ToString::to_string).unwrap_or_default();
        Self { heading: G::HEADING, verbs: shown.map(|verb| (verb.get_name().to_owned(), about(verb))).collect() }
    }
}

/// The template of the program's help, with these sections.
pub fn template(sections: &[Section]) -> String {
    let styles = Styles::default();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let longest = sections.iter().flat_map(|section| &section.verbs).map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for section in sections {
        text += &format!("\n{header}{}:{header:#}\n", section.heading);
        for (name, about) in &section.verbs {
            text += &format!("  {literal}{name}{literal:#}{:width$}  {about}\n", "", width = longest - name.len());
        }
    }
    text + &format!("\n{header}Options:{header:#}\n{{options}}{{after-help}}")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::{Cli, sections};

    fn help() -> String {
        Cli::command().render_help().to_string()
    }

    #[test]
    fn every_verb_has_one_line_under_the_heading_of_its_group() {
        let (help, sections, command) = (help(), sections(), Cli::command());
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let name = verb.get_name();
            let groups: Vec<_> =
                sections.iter().filter(|section| section.verbs.iter().any(|(verb, _)| verb == name)).collect();
            let [group] = groups[..] else { panic!("{name} is in {} groups", groups.len()) };
            let line = format!("\n  {name} ");
            assert_eq!(help.matches(&line).count(), 1, "{name}: {help}");
            let above = &help[..help.find(&line).unwrap()];
            let heading = above.lines().rfind(|line| line.ends_with(':') && !line.starts_with(' ')).unwrap();
            assert_eq!(heading, format!("{}:", group.heading), "{name}");
        }
        assert!(help.contains("\nOptions:\n      --json "), "{help}");
        assert!(!help.contains("static-server"), "{help}");
    }

    #[test]
    fn a_verb_fits_a_line_of_a_hundred_columns() {
        let verbs: Vec<_> = sections().into_iter().flat_map(|section| section.verbs).collect();
        let longest = verbs.iter().map(|(name, _)| name.len()).max().unwrap();
        for (name, about) in verbs {
            assert!(!about.is_empty() && longest + about.chars().count() + 4 <= 100, "{name}: {about}");
        }
    }

    #[test]
    fn the_reference_lists_every_verb_under_the_same_heading() {
        let reference = include_str!("../../docs/cli.md");
        for section in sections() {
            let (_, below) = reference.split_once(&format!("\n### {}\n", section.heading)).unwrap_or_else(|| {
                panic!("docs/cli.md has no heading {}", section.heading);
            });
            let below = below.split("\n#").next().unwrap();
            for (name, _) in &section.verbs {
                let is_listed = below.contains(&format!("\n| `{name}")) || below.contains(&format!(" · `{name}"));
                assert!(is_listed, "docs/cli.md does not list {name} under {}", section.heading);
            }
        }
    }
}
