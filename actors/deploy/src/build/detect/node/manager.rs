//! The package managers of Node.js: which one an app uses, and its commands.

use std::path::PathBuf;

use super::{App, Command, DetectError, OWN, Plan, Tool, Tools, package::Package};
use crate::build::tools::numbers;

/// Options of npm.
const QUIET: [&str; 3] = ["--no-audit", "--no-fund", "--no-update-notifier"];
/// Where a build puts a package manager that the node does not have.
const BROUGHT: &str = "tools";

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Npm,
    Pnpm,
    /// Yarn 1.
    YarnClassic,
    /// Yarn 2 and newer.
    YarnBerry,
    Bun,
}

impl Kind {
    pub(super) const fn tool(self) -> Tool {
        match self {
            Self::Npm => Tool::Npm,
            Self::Pnpm => Tool::Pnpm,
            Self::YarnClassic | Self::YarnBerry => Tool::Yarn,
            Self::Bun => Tool::Bun,
        }
    }
}

/// Lock files, with the package manager that writes them.
const LOCKS: [(&str, Tool); 6] = [
    ("package-lock.json", Tool::Npm),
    ("npm-shrinkwrap.json", Tool::Npm),
    ("pnpm-lock.yaml", Tool::Pnpm),
    ("yarn.lock", Tool::Yarn),
    ("bun.lock", Tool::Bun),
    ("bun.lockb", Tool::Bun),
];

/// The package manager of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manager {
    pub(super) kind: Kind,
    /// The version that `packageManager` names.
    named: Option<String>,
    /// The lock file that fixes the versions of dependencies.
    pub(super) lock: Option<&'static str>,
    /// The major version that wrote the lock file, as far as that tells.
    wrote: Option<u64>,
}

impl Manager {
    /// That of the folder whose dependencies are installed.
    pub(super) fn of(app: &App, package: &Package, plan: &mut Plan) -> Result<Self, DetectError> {
        let locks: Vec<_> = LOCKS.iter().filter(|(name, _)| app.has(name)).collect();
        let named = package.manager();
        let by_name = named.and_then(|(name, version)| {
            let tool =
                [Tool::Npm, Tool::Pnpm, Tool::Yarn, Tool::Bun].into_iter().find(|tool| tool.program() == name)?;
            Some((tool, version.to_owned()))
        });
        if let (Some((name, _)), None) = (named, &by_name) {
            let sentence = format!("`packageManager` names `{name}`; there are npm, pnpm, yarn and bun");
            return Err(DetectError::bad("package.json", sentence));
        }
        let (tool, lock) = match (&by_name, locks.as_slice()) {
            (Some((tool, _)), _) => {
                let own = locks.iter().find(|(_, of)| of == tool).map(|(name, _)| *name);
                for (other, _) in locks.iter().filter(|(_, of)| of != tool) {
                    plan.say(format!(
                        "package.json names {} as its package manager: {other} is not used",
                        tool.title()
                    ));
                }
                (*tool, own)
            }
            (None, []) => (Tool::Npm, None),
            (None, [(lock, tool), rest @ ..]) => {
                if let Some((other, _)) = rest.iter().find(|(_, of)| of != tool) {
                    return Err(DetectError::Refused(format!(
                        "{lock} and {other} are both there and may disagree; remove the one that is not used, or name \
                         the package manager in package.json: \"packageManager\": \"npm@10.9.0\""
                    )));
                }
                (*tool, Some(*lock))
            }
        };
        let named = by_name.map(|(_, version)| version);
        // It becomes part of a line of shell.
        let is_version = |letter: char| letter.is_ascii_alphanumeric() || ".-".contains(letter);
        if let Some(version) = named.as_ref().filter(|version| !version.chars().all(is_version)) {
            return Err(DetectError::bad(
                "package.json",
                format!("`packageManager` names `{version}`, which is no version"),
            ));
        }
        let wrote = lock.and_then(|lock| wrote(app, lock));
        let major = named.as_deref().and_then(|version| numbers(version).first().copied()).or(wrote);
        let kind = match tool {
            Tool::Pnpm => Kind::Pnpm,
            Tool::Bun => Kind::Bun,
            Tool::Yarn if major.is_some_and(|major| major >= 2) || (major.is_none() && app.has(".yarnrc.yml")) => {
                Kind::YarnBerry
            }
            Tool::Yarn => Kind::YarnClassic,
            _ => Kind::Npm,
        };
        Ok(Self { kind, named, lock, wrote })
    }

    /// Brings the package manager where the node has none that fits.
    pub(super) fn prepare(&self, tools: &Tools, plan: &mut Plan, is_needed_at_start: bool) -> Result<(), DetectError> {
        let tool = self.kind.tool();
        let (file, title) = (self.lock.unwrap_or("package.json"), tool.title());
        let found = tools.default(tool);
        if self.kind == Kind::Npm {
            let npm = found.ok_or_else(|| super::not_installed(tool, file))?;
            plan.depends_on(&format!("npm {}", npm.version));
            return Ok(());
        }
        if let Some(found) = found.filter(|found| found.is_default && self.fits(&found.version)) {
            plan.depends_on(&format!("{title} {}", found.version));
            return Ok(());
        }
        let folder = PathBuf::from(OWN).join(BROUGHT).join("bin");
        let name = tool.program();
        let version = self.named.clone().unwrap_or_else(|| self.range());
        plan.depends_on(&format!("{title} {version}"));
        // Corepack's stand-ins lead to the node's own folders, so they can't be part of a release.
        let by_corepack = self.named.is_some() && self.kind != Kind::Bun && !is_needed_at_start;
        if by_corepack && tools.has(Tool::Corepack) {
            plan.say(format!("`packageManager` names {title} {version}, which Corepack brings, or npm where it can't"));
            let bin = folder.display();
            let npm = self.by_npm(&version).join(" ");
            let line = format!(
                "mkdir -p {bin} && corepack enable --install-directory {bin} {name} && {name} --version 2>/dev/null || \
                 {{ echo 'Corepack could not bring {title} {version}; npm brings it' && rm -rf {OWN}/{BROUGHT} && {npm}; }}"
            );
            plan.step(format!("Preparing {title} {version}"), Command::Shell(line));
            plan.environment.variables.insert("COREPACK_ENABLE_DOWNLOAD_PROMPT".to_owned(), "0".to_owned());
        } else {
            if !tools.has(Tool::Npm) {
                return Err(super::not_installed(tool, file));
            }
            plan.say(format!("{title} {version} is not installed on this node: npm brings it for this build"));
            plan.step(format!("Preparing {title} {version}"), Command::Exec(self.by_npm(&version)));
        }
        plan.environment.path.push(folder);
        Ok(())
    }

    /// The command by which npm brings it.
    fn by_npm(&self, version: &str) -> Vec<String> {
        let package = if self.kind == Kind::YarnBerry { "@yarnpkg/cli-dist" } else { self.kind.tool().program() };
        let (prefix, what) = (format!("{OWN}/{BROUGHT}"), format!("{package}@{version}"));
        let install = ["npm", "install", "--global", "--prefix", &prefix, &what];
        install.into_iter().chain(QUIET).map(str::to_owned).collect()
    }

    /// Whether an installed version reads the lock file and is the one that is named.
    fn fits(&self, version: &str) -> bool {
        let major = numbers(version).first().copied();
        let named = self.named.as_deref().and_then(|named| numbers(named).first().copied());
        match (named, self.kind) {
            (Some(named), _) => major == Some(named),
            (None, Kind::YarnClassic) => major == Some(1),
            (None, Kind::YarnBerry) => major.is_some_and(|major| major >= self.wrote.unwrap_or(2)),
            (None, Kind::Pnpm) => match self.wrote {
                // Newer ones read the lock files of the one before, and nothing older.
                Some(wrote) => major.is_some_and(|major| major == wrote || major == wrote + 1),
                None => true,
            },
            (None, _) => true,
        }
    }

    /// The version that is brought when none is named.
    fn range(&self) -> String {
        let major = match self.kind {
            Kind::Pnpm => self.wrote.unwrap_or(10),
            Kind::YarnClassic => 1,
            Kind::YarnBerry => self.wrote.unwrap_or(4).max(3),
            Kind::Npm | Kind::Bun => return "1".to_owned(),
        };
        major.to_string()
    }

    /// Installs the dependencies, with those for developers if `dev`.
    pub(super) fn install(&self, dev: bool) -> Command {
        let locked = self.lock.is_some();
        let argv: Vec<&str> = match (self.kind, locked) {
            (Kind::Npm, true) => vec!["npm", "ci", if dev { "--include=dev" } else { "--omit=dev" }],
            (Kind::Npm, false) => vec!["npm", "install", if dev { "--include=dev" } else { "--omit=dev" }],
            (Kind::Pnpm, true) => vec!["pnpm", "install", "--frozen-lockfile"],
            (Kind::Pnpm, false) => vec!["pnpm", "install", "--no-frozen-lockfile"],
            (Kind::YarnClassic, true) => vec!["yarn", "install", "--frozen-lockfile", "--non-interactive"],
            (Kind::YarnClassic, false) => vec!["yarn", "install", "--no-lockfile", "--non-interactive"],
            (Kind::YarnBerry, true) => vec!["yarn", "install", "--immutable"],
            (Kind::YarnBerry, false) => vec!["yarn", "install", "--no-immutable"],
            (Kind::Bun, true) => vec!["bun", "install", "--frozen-lockfile"],
            (Kind::Bun, false) => vec!["bun", "install"],
        };
        let without_dev: &[&str] = match self.kind {
            Kind::Pnpm => &["--prod"],
            Kind::YarnClassic | Kind::Bun => &["--production"],
            _ => &[],
        };
        let end: &[&str] = if self.kind == Kind::Npm { &QUIET } else { &[] };
        let more = if dev { &[] } else { without_dev };
        Command::exec(&argv.into_iter().chain(more.iter().copied()).chain(end.iter().copied()).collect::<Vec<_>>())
    }

    /// Removes the dependencies that are for developers only; nothing where the package manager can't.
    pub(super) fn prune(&self) -> Option<Command> {
        Some(match self.kind {
            Kind::Npm => {
                Command::exec(&["npm", "prune", "--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier"])
            }
            Kind::Pnpm => {
                Command::exec(&["pnpm", "install", "--prod", "--frozen-lockfile", "--ignore-scripts", "--offline"])
            }
            Kind::YarnClassic => {
                let argv =
                    ["yarn", "install", "--production", "--ignore-scripts", "--prefer-offline", "--non-interactive"];
                Command::exec(&argv)
            }
            Kind::YarnBerry => Command::exec(&["yarn", "workspaces", "focus", "--all", "--production"]),
            // It installs what is missing, and removes nothing.
            Kind::Bun => {
                let line = "rm -rf node_modules && exec bun install --production --ignore-scripts";
                Command::Shell(line.to_owned())
            }
        })
        .filter(|_| self.kind != Kind::YarnBerry || self.wrote.is_none_or(|wrote| wrote >= 4))
    }

    /// Runs a script of `package.json`.
    pub(super) fn run(&self, script: &str) -> Command {
        Command::exec(&[self.kind.tool().program(), "run", script])
    }

    /// The sentence about the installation.
    pub(super) fn told(&self) -> String {
        let tool = self.kind.tool().title();
        let verb = match (self.kind, self.lock.is_some()) {
            (Kind::Npm, true) => "npm ci",
            (Kind::YarnBerry, true) => "yarn install --immutable",
            (Kind::Npm, false) => "npm install",
            (_, true) => "a frozen install",
            (_, false) => "an install",
        };
        match self.lock {
            Some(lock) if self.kind == Kind::Npm => format!("{lock} fixes the versions: {verb}"),
            Some(lock) => format!("{lock} fixes the versions: {verb} by {tool}"),
            None if self.kind == Kind::Npm => "there are dependencies and no package-lock.json: npm install".to_owned(),
            None => format!("there are dependencies and no lock file: {verb} by {tool}"),
        }
    }

    /// The step that removes a package manager that was brought for the build.
    pub(super) fn remove_brought(plan: &mut Plan) {
        let folder = PathBuf::from(OWN).join(BROUGHT);
        if plan.environment.path.contains(&folder.join("bin")) {
            let folder = folder.display().to_string();
            plan.step("Removing the build's package manager", Command::exec(&["rm", "-rf", &folder]));
        }
    }
}

/// The major version of the package manager that wrote a lock file, as far as its beginning tells.
fn wrote(app: &App, lock: &str) -> Option<u64> {
    let text = app.glance(lock)?;
    let value = |key: &str| {
        let line = text.lines().take(40).find_map(|line| line.trim().strip_prefix(key))?;
        let digits = line.trim().trim_matches(['\'', '"']).split('.').next()?;
        digits.parse::<u64>().ok()
    };
    match lock {
        "pnpm-lock.yaml" => Some(match value("lockfileVersion:")? {
            0..=5 => 7,
            6..=8 => 8,
            9 => 9,
            _ => 10,
        }),
        "yarn.lock" if text.contains("__metadata:") => Some(match value("version:")? {
            0..=5 => 2,
            6 | 7 => 3,
            _ => 4,
        }),
        "yarn.lock" => Some(1),
        _ => None,
    }
}
