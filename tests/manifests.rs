//! What docker/ tells a node, a node understands.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::cli::{self, Ran};

/// What stands for the mounted secrets.
struct Secrets(tempfile::TempDir);

impl Secrets {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made =
            Command::new(docker().join("../scripts/secrets")).arg(folder.path().join("secrets")).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(folder)
    }

    /// The configuration of a node with these variables, in which paths of a container mean ours.
    async fn config(&self, environment: &BTreeMap<String, String>, file: Option<&Path>) -> Ran {
        let mut command = cli::program(self.0.path());
        command.args(["config", "--serve"]);
        for (name, value) in environment {
            let is_secret = name.ends_with("_FILE");
            let ours = self.0.path().join("secrets").join(Path::new(value).file_name().unwrap_or_default());
            command.env(name, if is_secret { ours.into_os_string() } else { value.into() });
        }
        if let Some(file) = file {
            command.env("CALLBOARD_CONFIG", file);
        }
        cli::finish(command, "").await
    }
}

fn docker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker")
}

/// The variables of nodes in a YAML file: `NAME: value` or `- name: NAME` and `value: …` below it.
fn variables(file: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(file).unwrap();
    let mut found = BTreeMap::new();
    let mut lines = text.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("- name: ").filter(|name| name.starts_with("CALLBOARD_")) {
            // One that the cluster fills in has no value here.
            let value = lines.peek().and_then(|next| next.strip_prefix("value: ")).unwrap_or("10.1.2.3");
            found.insert(name.to_owned(), value.replace("$(POD_ADDRESS)", "10.1.2.3"));
        } else if let Some((name, value)) = line.split_once(": ").filter(|(name, _)| name.starts_with("CALLBOARD_")) {
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    found
}

#[tokio::test]
async fn a_node_understands_what_compose_and_the_manifests_tell_it() {
    let secrets = Secrets::make();
    let compose = variables(&docker().join("compose.yaml"));
    assert!(compose.len() >= 8, "{compose:?}");
    let ran = secrets.config(&compose, None).await;
    assert!(ran.success(), "compose.yaml: {ran:?}");

    let base = docker().join("kubernetes/base");
    for placement in ["gateway", "deploy"] {
        let mut told = variables(&base.join("callboard").join(format!("{placement}.yaml")));
        assert!(told.remove("CALLBOARD_CONFIG").is_some() && told.len() >= 8, "{told:?}");
        for overlay in ["overlays/local", "overlays/staging", "overlays/production"] {
            let file = docker().join("kubernetes").join(overlay).join("callboard.toml");
            let ran = secrets.config(&told, Some(&file)).await;
            assert!(ran.success(), "{overlay}, {placement}: {ran:?}");
        }
    }
}
