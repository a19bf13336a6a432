//! What the programs that run need of the build's tools.

use super::{package::Package, script};

/// Why dependencies for developers stay in the release: the start script needs one.
pub(super) fn of_start(package: &Package) -> Option<String> {
    let script = package.script("start")?;
    let mut words = script::commands(package, script);
    for hook in ["prestart", "poststart"] {
        words.extend(package.script(hook).map(|script| script::commands(package, script)).unwrap_or_default());
    }
    of_commands(package, &words)
}

/// Programs whose name is not that of their package.
const PROGRAMS: [(&str, &str); 8] = [
    ("nest", "@nestjs/cli"),
    ("ng", "@angular/cli"),
    ("tsc", "typescript"),
    ("sequelize", "sequelize-cli"),
    ("sequelize-cli", "sequelize-cli"),
    ("remix-serve", "@remix-run/serve"),
    ("react-router-serve", "@react-router/serve"),
    ("babel-node", "@babel/node"),
];

pub(super) fn of_commands(package: &Package, commands: &[Vec<String>]) -> Option<String> {
    let words = commands.iter().flatten();
    let mut found = words.flat_map(|word| {
        // `-r ts-node/register`, `--import=tsx`, `node_modules/.bin/tsx`.
        word.split(['=', ',']).map(|part| part.trim_start_matches("./").trim_start_matches("node_modules/"))
    });
    let needed = found.find_map(|word| {
        let word = word.trim_start_matches(".bin/");
        let by_program = PROGRAMS.iter().find(|(program, _)| *program == word).map(|(_, name)| *name);
        package.dev_dependencies().find(|name| {
            Some(*name) == by_program
                || word == *name
                || word.strip_prefix(*name).is_some_and(|rest| rest.starts_with('/'))
        })
    })?;
    Some(format!("what runs needs {needed}: the dependencies for developers stay in the release"))
}

/// The package manager that scripts run at the start call by its name.
pub(super) fn calls_manager(package: &Package) -> Option<&'static str> {
    let hooks = ["prestart", "start", "poststart"].iter().filter_map(|name| package.script(name));
    let words: Vec<&str> = hooks.flat_map(str::split_whitespace).collect();
    ["pnpm", "yarn", "bun"].into_iter().find(|name| words.contains(name))
}
