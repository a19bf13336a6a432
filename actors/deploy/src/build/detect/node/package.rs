//! `package.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{App, DetectError};

/// The parts of `package.json` that tell how an app is built and started. Values of the wrong kind count as absent where
/// npm takes them so.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Package {
    name: Option<Value>,
    main: Option<Value>,
    scripts: BTreeMap<String, Value>,
    dependencies: BTreeMap<String, Value>,
    dev_dependencies: BTreeMap<String, Value>,
    optional_dependencies: BTreeMap<String, Value>,
    engines: Option<Value>,
    volta: Option<Value>,
    package_manager: Option<Value>,
    workspaces: Option<Value>,
}

impl Package {
    /// That of a folder; nothing when there is none.
    pub(super) fn read(app: &App) -> Result<Option<Self>, DetectError> {
        let Some(text) = app.read("package.json")? else { return Ok(None) };
        let bad = |reason: String| DetectError::bad("package.json", reason);
        if !text.trim_start().starts_with('{') {
            return Err(bad("it is not a JSON object".to_owned()));
        }
        serde_json::from_str(&text).map(Some).map_err(|error| bad(error.to_string()))
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_ref()?.as_str()
    }

    pub(super) fn script(&self, name: &str) -> Option<&str> {
        self.scripts.get(name)?.as_str().map(str::trim).filter(|script| !script.is_empty())
    }

    pub(super) fn needs(&self, name: &str) -> bool {
        self.dependencies.contains_key(name) || self.dev_dependencies.contains_key(name)
    }

    pub(super) fn has_dependencies(&self) -> bool {
        !self.dependencies.is_empty() || !self.optional_dependencies.is_empty() || self.has_dev_dependencies()
    }

    pub(super) fn has_dev_dependencies(&self) -> bool {
        !self.dev_dependencies.is_empty()
    }

    pub(super) fn dev_dependencies(&self) -> impl Iterator<Item = &str> {
        self.dev_dependencies.keys().map(String::as_str)
    }

    /// The file that `main` names, inside the app.
    pub(super) fn main(&self) -> Option<&str> {
        let main = self.main.as_ref()?.as_str()?;
        (!main.starts_with('-') && !main.starts_with('/') && !main.contains("..")).then_some(main)
    }

    /// The Node.js that `engines` or Volta asks for, and which of them.
    pub(super) fn engine(&self) -> Option<(&'static str, &str)> {
        let engines = self.engines.as_ref().and_then(|value| value.get("node")).and_then(Value::as_str);
        let volta = self.volta.as_ref().and_then(|value| value.get("node")).and_then(Value::as_str);
        engines
            .map(|version| ("`engines.node` of package.json", version))
            .or_else(|| volta.map(|version| ("`volta.node` of package.json", version)))
    }

    /// The package manager that is named, and its version: `pnpm@9.15.0+sha512.…`.
    pub(super) fn manager(&self) -> Option<(&str, &str)> {
        let text = self.package_manager.as_ref()?.as_str()?;
        let (name, version) = text.split_once('@')?;
        Some((name, version.split('+').next().unwrap_or(version)))
    }

    /// The patterns of a workspace's members; nothing when it is none.
    pub(super) fn workspaces(&self) -> Option<Vec<String>> {
        let value = self.workspaces.as_ref()?;
        let list = value.as_array().or_else(|| value.get("packages")?.as_array())?;
        Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }
}
