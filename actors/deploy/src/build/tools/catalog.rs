//! The list of tools: their names, how they tell their version, and how an operator gets them.

/// A program that builds or runs apps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// Node.js.
    Node,
    /// npm.
    Npm,
    /// Corepack, which brings pnpm and Yarn in the version that an app names.
    Corepack,
    /// pnpm.
    Pnpm,
    /// Yarn.
    Yarn,
    /// Bun.
    Bun,
    /// Deno.
    Deno,
    /// Python.
    Python,
    /// uv.
    Uv,
    /// Poetry.
    Poetry,
    /// Pipenv.
    Pipenv,
    /// Go.
    Go,
    /// Cargo, with the Rust compiler.
    Cargo,
    /// Ruby.
    Ruby,
    /// Bundler.
    Bundler,
    /// PHP.
    Php,
    /// Composer.
    Composer,
    /// FrankenPHP, a web server for PHP.
    FrankenPhp,
    /// Java.
    Java,
    /// Maven.
    Maven,
    /// Gradle.
    Gradle,
}

/// Names of Python interpreters; the first is the one that apps run by.
const PYTHONS: [&str; 16] = [
    "python3",
    "python",
    "python3.20",
    "python3.19",
    "python3.18",
    "python3.17",
    "python3.16",
    "python3.15",
    "python3.14",
    "python3.13",
    "python3.12",
    "python3.11",
    "python3.10",
    "python3.9",
    "python3.8",
    "python3.7",
];

/// Tells the version, the interpreter's own file, and whether it has pip.
const PYTHON_QUESTION: &str = "import sys, importlib.util as u; print('%d.%d.%d' % sys.version_info[:3]); \
                               print(sys.executable); print(u.find_spec('pip') is not None)";

impl Tool {
    /// Every tool.
    pub const ALL: [Self; 21] = [
        Self::Node,
        Self::Npm,
        Self::Corepack,
        Self::Pnpm,
        Self::Yarn,
        Self::Bun,
        Self::Deno,
        Self::Python,
        Self::Uv,
        Self::Poetry,
        Self::Pipenv,
        Self::Go,
        Self::Cargo,
        Self::Ruby,
        Self::Bundler,
        Self::Php,
        Self::Composer,
        Self::FrankenPhp,
        Self::Java,
        Self::Maven,
        Self::Gradle,
    ];

    /// The program's name.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Npm => "npm",
            Self::Corepack => "corepack",
            Self::Pnpm => "pnpm",
            Self::Yarn => "yarn",
            Self::Bun => "bun",
            Self::Deno => "deno",
            Self::Python => "python3",
            Self::Uv => "uv",
            Self::Poetry => "poetry",
            Self::Pipenv => "pipenv",
            Self::Go => "go",
            Self::Cargo => "cargo",
            Self::Ruby => "ruby",
            Self::Bundler => "bundle",
            Self::Php => "php",
            Self::Composer => "composer",
            Self::FrankenPhp => "frankenphp",
            Self::Java => "java",
            Self::Maven => "mvn",
            Self::Gradle => "gradle",
        }
    }

    /// Its name for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Node => "Node.js",
            Self::Npm => "npm",
            Self::Corepack => "Corepack",
            Self::Pnpm => "pnpm",
            Self::Yarn => "Yarn",
            Self::Bun => "Bun",
            Self::Deno => "Deno",
            Self::Python => "Python",
            Self::Uv => "uv",
            Self::Poetry => "Poetry",
            Self::Pipenv => "Pipenv",
            Self::Go => "Go",
            Self::Cargo => "Rust",
            Self::Ruby => "Ruby",
            Self::Bundler => "Bundler",
            Self::Php => "PHP",
            Self::Composer => "Composer",
            Self::FrankenPhp => "FrankenPHP",
            Self::Java => "Java",
            Self::Maven => "Maven",
            Self::Gradle => "Gradle",
        }
    }

    /// What can't be built or run without it.
    #[must_use]
    pub const fn serves(self) -> &'static str {
        match self {
            Self::Node => "Node.js apps",
            Self::Npm => "Node.js apps with dependencies",
            Self::Corepack => "the pnpm or Yarn that an app names (npm brings it instead)",
            Self::Pnpm | Self::Yarn => "its apps (npm brings it for a build instead)",
            Self::Bun => "Bun apps",
            Self::Deno => "Deno apps",
            Self::Python => "Python apps",
            Self::Uv | Self::Poetry | Self::Pipenv => "its lock files (pip brings it for a build instead)",
            Self::Go => "Go apps",
            Self::Cargo => "Rust apps",
            Self::Ruby | Self::Bundler => "Ruby apps",
            Self::Php | Self::FrankenPhp => "PHP apps",
            Self::Composer => "PHP apps with dependencies",
            Self::Java => "Java apps",
            Self::Maven => "Java apps with a pom.xml and without mvnw",
            Self::Gradle => "Java apps with a build.gradle and without gradlew",
        }
    }

    /// How to get it, as a command.
    #[must_use]
    pub const fn install(self) -> &'static str {
        match self {
            Self::Node => "apt-get install nodejs npm",
            Self::Npm => "apt-get install npm",
            Self::Corepack => "npm install --global corepack",
            Self::Pnpm => "npm install --global pnpm",
            Self::Yarn => "npm install --global yarn",
            Self::Bun => "npm install --global bun",
            Self::Deno => "npm install --global deno",
            Self::Python => "apt-get install python3 python3-pip",
            Self::Uv => "pipx install uv",
            Self::Poetry => "pipx install poetry",
            Self::Pipenv => "pipx install pipenv",
            Self::Go => "apt-get install golang-go",
            Self::Cargo => "apt-get install cargo",
            Self::Ruby => "apt-get install ruby-full",
            Self::Bundler => "apt-get install ruby-bundler",
            Self::Php => "apt-get install php-cli",
            Self::Composer => "apt-get install composer",
            Self::FrankenPhp => "https://frankenphp.dev",
            Self::Java => "apt-get install default-jdk-headless",
            Self::Maven => "apt-get install maven",
            Self::Gradle => "apt-get install gradle",
        }
    }

    /// How to get another version of it, for sentences that say "this node has …".
    #[must_use]
    pub const fn other_versions(self) -> &'static str {
        match self {
            Self::Node => "install that version, for example with `npx n <version>`",
            Self::Python => "install that version, for example with `pyenv install <version>`",
            Self::Cargo => "install that version, for example with `rustup toolchain install <version>`",
            Self::Ruby => "install that version, for example with `rbenv install <version>`",
            _ => "install that version",
        }
    }

    /// Names of the program, its own first.
    pub(super) fn programs(self) -> Vec<&'static str> {
        match self {
            Self::Python => PYTHONS.to_vec(),
            other => vec![other.program()],
        }
    }

    /// What the program is asked.
    pub(super) const fn question(self) -> &'static [&'static str] {
        match self {
            Self::Go => &["version"],
            Self::Python => &["-I", "-c", PYTHON_QUESTION],
            _ => &["--version"],
        }
    }
}
