//! What docker/ tells a node, a node understands.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use reqwest::Method;

use crate::harness::{
    Node,
    cli::{self, Ran},
    domains,
};

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
            found.insert(name.to_owned(), value.trim_matches('"').to_owned());
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

/// What `docker build` gets to see: exactly what Dockerfile.dockerignore admits, in a folder of its own.
struct Admitted(tempfile::TempDir);

impl Admitted {
    fn copy() -> Self {
        let ignored = fs::read_to_string(docker().join("Dockerfile.dockerignore")).unwrap();
        let mut lines = ignored.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(lines.next(), Some("*"), "all is ignored but what is named");
        let (source, target) = (docker().join(".."), tempfile::tempdir().unwrap());
        for line in lines {
            let path = line.strip_prefix('!').expect("an exception");
            assert!(source.join(path).exists(), "{path} is admitted and not there");
            let to = target.path().join(path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let copied = Command::new("cp").arg("-R").arg(source.join(path)).arg(to).status().unwrap();
            assert!(copied.success(), "{path}");
        }
        Self(target)
    }

    /// The Rust files that are compiled into the program, without their tests.
    fn sources(&self) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                let name = path.file_name().unwrap().to_str().unwrap();
                if path.is_dir() && name != "tests" {
                    folders.push(path);
                } else if name.ends_with(".rs") && name != "tests.rs" {
                    let text = fs::read_to_string(&path).unwrap();
                    let compiled = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
                    found.push((path, compiled));
                }
            }
        }
        found
    }
}

/// The texts in quotes that come right after `call`.
fn arguments<'a>(text: &'a str, call: &str) -> Vec<&'a str> {
    text.split(call).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next()).collect()
}

#[test]
fn the_image_is_built_from_all_that_its_sources_include() {
    let admitted = Admitted::copy();
    let mut included = 0;
    for (file, text) in admitted.sources() {
        let package = file.ancestors().skip(1).find(|folder| folder.join("Cargo.toml").exists()).unwrap();
        let files = ["include_str!(", "include_bytes!(", "include!("]
            .into_iter()
            .flat_map(|call| arguments(&text, call).into_iter().map(|path| file.parent().unwrap().join(path)));
        let migrations = arguments(&text, "migrate!(").into_iter().map(|path| package.join(path));
        for path in files.chain(migrations) {
            assert!(path.exists(), "{} includes {}, which is not admitted", file.display(), path.display());
            included += 1;
        }
    }
    assert!(included > 15, "{included} files and folders are included");

    let recipe = fs::read_to_string(docker().join("Dockerfile")).unwrap();
    let copies = recipe.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from="));
    for path in copies.flat_map(|line| line.split(' ').skip(1).filter(|word| !word.starts_with("--")).take(1)) {
        assert!(admitted.0.path().join(path).exists(), "{path} is copied and not admitted");
    }

    // Every member of the workspace, every target that a manifest names, and the lock file.
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.args(["tree", "--locked", "--offline", "--workspace", "--depth=0"]).current_dir(admitted.0.path());
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// How many connections to PostgreSQL the threads of a node may open that have asked for one.
async fn bound(node: &Node, number: usize) -> u32 {
    let api = node.member(number).operator();
    let metrics = api.send(api.raw(Method::GET, "/metrics")).await.text;
    let series = "callboard_database_connections{server=\"primary\",state=\"limit\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(series)).unwrap().parse().unwrap()
}

/// What scripts/promises.py counts on: where it says that PostgreSQL lets all nodes in, it does.
#[tokio::test]
async fn a_node_opens_no_more_connections_than_the_manifests_count_with() {
    const WORKERS: u32 = 3;
    const CONNECTIONS: u32 = 17;
    let (workers, connections) = (WORKERS.to_string(), CONNECTIONS.to_string());
    let told = [("CALLBOARD_WORKERS", workers.as_str()), ("CALLBOARD_DATABASE_CONNECTIONS", connections.as_str())];
    let node = Node::start_cluster_with(&["--no-sample"], &told).await;
    let owner = node.user("owner").await;
    owner.create_project("shop").await;
    for number in [0, 1] {
        let hosted = domains::hosted(number);
        let own = hosted.iter().map(|name| domains::all().iter().find(|domain| domain.name == *name));
        // The main one, that of the cluster, and those of domains.
        let threads = WORKERS + 2 + own.map(|domain| domain.unwrap().threads).sum::<u32>();
        let bound = bound(&node, number).await;
        assert!((threads - 1..=CONNECTIONS.max(2 * threads)).contains(&bound), "{bound} of {threads} threads");
    }
    node.finish().await;
}
