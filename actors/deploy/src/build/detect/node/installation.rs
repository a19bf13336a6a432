//! The steps of a Node.js app: its Node.js, its dependencies, its build, and what is removed and kept afterwards.

use std::path::Path;

use super::{
    App, Asked, Command, DetectError, Plan, Scene, Tool, choose, framework,
    manager::{self, Manager},
    needs,
    package::Package,
    workspace,
};

/// Scripts that npm runs when it installs, for which dependencies for developers may be needed.
const INSTALL_SCRIPTS: [&str; 4] = ["preinstall", "install", "postinstall", "prepare"];

/// The folder whose dependencies are installed: the app's own, or its workspace's root.
pub(super) struct Installation<'a> {
    pub(super) scene: &'a Scene<'a>,
    pub(super) workspace: &'a App,
    pub(super) package: &'a Package,
}

impl Installation<'_> {
    /// Adds the steps that install, build and remove what only the build needs; a reason in `needs_tools` keeps that.
    pub(super) fn add_steps(
        &self,
        package: &Package,
        plan: &mut Plan,
        is_site_alone: bool,
        needs_tools: Option<String>,
    ) -> Result<(), DetectError> {
        let (app, tools) = (self.scene.app, self.scene.tools);
        let is_member = self.workspace.root != app.root;
        let is_workspace = is_member || workspace::patterns(self.workspace, self.package)?.is_some();
        let has_dependencies = is_workspace || package.has_dependencies();
        let builds = package.script("build").is_some();
        let has_scripts = INSTALL_SCRIPTS.iter().any(|name| self.package.script(name).is_some());
        let has_dev = is_workspace || package.has_dev_dependencies();
        // What npm runs as it installs is often a tool for developers, such as husky.
        let dev = builds || needs_tools.is_some() || (has_dev && has_scripts);
        let calls = needs::calls_manager(package);
        if has_dependencies || builds {
            let manager = Manager::of(self.workspace, self.package, plan)?;
            manager.prepare(tools, plan, calls.is_some() && !is_site_alone)?;
            if manager.kind == manager::Kind::YarnBerry {
                // Without it Yarn links packages by a loader of its own, which Node.js would have to be started with.
                plan.environment.variables.insert("YARN_NODE_LINKER".to_owned(), "node-modules".to_owned());
            }
            if let Some(lock) = manager.lock
                && let Some(digest) = self.workspace.digest(lock)?
            {
                plan.depends_on(&format!("{lock} {digest}"));
            }
            if has_dependencies {
                plan.say(manager.told());
                plan.step("Installing dependencies", manager.install(dev));
            }
            self.build(package, &manager, plan);
            self.remove(&manager, plan, dev && has_dev && !is_site_alone, needs_tools, calls.is_some());
        }
        self.cache(package, plan);
        Ok(())
    }

    fn build(&self, package: &Package, manager: &Manager, plan: &mut Plan) {
        if package.script("build").is_none() {
            return;
        }
        plan.say("package.json has a build script");
        let inside = self.scene.app.root.strip_prefix(&self.workspace.root).unwrap_or(Path::new(""));
        let shown = format!("./{}", inside.display());
        let command = if inside.as_os_str().is_empty() {
            manager.run("build")
        } else if self.package.needs("turbo") && self.workspace.has("turbo.json") {
            Command::exec(&["node_modules/.bin/turbo", "run", "build", &format!("--filter={{{shown}}}...")])
        } else if manager.kind == manager::Kind::Pnpm {
            // With the packages that it depends on, in order.
            Command::exec(&["pnpm", "--filter", &format!("{{{shown}}}..."), "run", "build"])
        } else {
            manager.run("build").within(inside)
        };
        plan.step("Building", command);
    }

    fn remove(
        &self,
        manager: &Manager,
        plan: &mut Plan,
        has_tools: bool,
        needs_tools: Option<String>,
        calls_manager: bool,
    ) {
        match needs_tools {
            Some(reason) => plan.say(reason),
            None if has_tools => {
                if let Some(command) = manager.prune() {
                    plan.step("Removing what only the build needs", command);
                }
            }
            None => {}
        }
        if !calls_manager {
            Manager::remove_brought(plan);
        }
    }

    /// What the build's tools keep for the next one.
    fn cache(&self, package: &Package, plan: &mut Plan) {
        let inside = self.scene.app.root.strip_prefix(&self.workspace.root).unwrap_or(Path::new(""));
        if package.script("build").is_none() {
            return;
        }
        plan.cache.folders.push(inside.join("node_modules/.cache"));
        let own = framework::of(package).map(|framework| framework.cache).unwrap_or_default();
        plan.cache.folders.extend(own.iter().map(|folder| inside.join(folder)));
    }
}

/// Chooses the Node.js that the app asks for.
pub(super) fn node_version(
    scene: &Scene<'_>,
    workspace: &App,
    root: &Package,
    package: &Package,
    plan: &mut Plan,
) -> Result<(), DetectError> {
    let asked = asked_version(scene, workspace, root, package)?;
    let (node, sentences) = choose(scene.tools, Tool::Node, "package.json", asked.as_ref())?;
    plan.reasons.extend(sentences);
    plan.depends_on(&format!("Node.js {}", node.version));
    if !node.is_default
        && let Some(folder) = node.path.parent()
    {
        plan.environment.path.push(folder.to_owned());
    }
    Ok(())
}

fn asked_version(
    scene: &Scene<'_>,
    workspace: &App,
    root: &Package,
    package: &Package,
) -> Result<Option<Asked>, DetectError> {
    if let Some(asked) = scene.asked("node") {
        return Ok(Some(asked));
    }
    for folder in [scene.app, workspace] {
        for file in [".nvmrc", ".node-version"] {
            let text = folder.read(file)?.unwrap_or_default();
            let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
            if let Some(asked) = line.and_then(|line| Asked::new(format!("`{file}`"), line)) {
                return Ok(Some(asked));
            }
        }
    }
    let engine = package.engine().or_else(|| root.engine());
    Ok(engine.and_then(|(by, version)| Asked::new(by, version)))
}
