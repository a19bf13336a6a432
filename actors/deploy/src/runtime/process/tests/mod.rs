//! The runtime with real processes, and what is left of them.

mod limits;
mod orphans;
mod output;
mod starting;
mod stopping;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use callboard_messages::InstanceId;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{ProcessRuntime, ProcessSettings, record::Record};
use crate::{
    build::detect::{Command, RunEnvironment},
    folder::trash::Trash,
    logs::output::{Line, LineSink, OutputLimits},
    process::{Launcher, named, trampoline::tests::test_launcher},
    runtime::{HealthCheck, InstanceLimits, InstanceSpec, RunningInstance, Runtime as _, StartError},
};

/// A server of one thread whose answers depend on its arguments.
const SERVER: &str = r#"
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(os.environ.get("STATUS", "200")))
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
port = int(os.environ.get("OTHER_PORT") or os.environ["PORT"])
server = http.server.HTTPServer(("127.0.0.1", port), Handler)
print("listening", flush=True)
server.serve_forever()
"#;

/// Enough for an interpreter to start on a busy machine; a check that fails takes all of it.
const COMES_UP: Duration = Duration::from_secs(6);

struct Bench {
    folder: tempfile::TempDir,
    runtime: ProcessRuntime,
    node: String,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl Bench {
    fn new() -> Self {
        Self::with_launcher(|launcher| launcher)
    }

    fn with_launcher(change: impl FnOnce(Launcher) -> Launcher) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("release")).unwrap();
        let node = Uuid::now_v7().simple().to_string();
        let runtime = Self::runtime(folder.path(), change(Launcher::new(test_launcher(), &node)));
        Self { folder, runtime, node, lines: Arc::default() }
    }

    fn runtime(folder: &Path, launcher: Launcher) -> ProcessRuntime {
        let settings = ProcessSettings {
            trash: Trash::new(folder.join("trash"), launcher.pools.clone()),
            launcher,
            state: folder.join("state"),
            static_server: vec!["false".to_owned()],
            output: OutputLimits::default(),
            run_as: None,
        };
        ProcessRuntime::new(settings).unwrap()
    }

    fn spec(&self, command: Command) -> InstanceSpec {
        InstanceSpec {
            id: InstanceId::new(),
            process: "web".to_owned(),
            release: self.folder.path().join("release"),
            command,
            run_environment: RunEnvironment::default(),
            environment: BTreeMap::new(),
            listens: true,
            limits: InstanceLimits::default(),
            grace: Duration::from_millis(500),
        }
    }

    fn python(&self, script: &str) -> InstanceSpec {
        self.spec(Command::Exec(vec!["python3".to_owned(), "-u".to_owned(), "-c".to_owned(), script.to_owned()]))
    }

    /// A process without a port.
    fn worker(&self, line: &str) -> InstanceSpec {
        let spec = self.spec(Command::Shell(line.to_owned()));
        InstanceSpec { process: "worker".to_owned(), listens: false, ..spec }
    }

    fn sink(&self) -> LineSink {
        let lines = self.lines.clone();
        LineSink::new(move |line| lines.lock().push(line))
    }

    async fn start(&self, spec: InstanceSpec) -> Result<RunningInstance, StartError> {
        self.start_within(spec, Duration::from_secs(20)).await
    }

    async fn start_within(&self, spec: InstanceSpec, grace: Duration) -> Result<RunningInstance, StartError> {
        let check = HealthCheck { grace, settle: Duration::from_millis(300), ..HealthCheck::default() };
        self.runtime.start(spec, check, self.sink(), CancellationToken::new()).await
    }

    fn said(&self, text: &str) -> bool {
        self.lines.lock().iter().any(|line| line.text == text)
    }

    async fn until_said(&self, text: &str) {
        until(|| self.said(text)).await;
    }

    /// The running programs of this node, without reapers and trampolines.
    fn running(&self) -> Vec<i32> {
        named(&self.node).into_iter().filter(|(_, marks)| !marks.is_ours).map(|(process, _)| process.pid).collect()
    }

    /// Asserts that no process, file or port of any instance is left.
    fn assert_clean(&self) {
        assert_eq!(named(&self.node), [], "processes are left");
        let left: Vec<_> = fs::read_dir(self.folder.path().join("state")).unwrap().collect();
        assert!(left.is_empty(), "files are left: {left:?}");
        assert!(self.runtime.ports.lock().is_empty());
    }
}

async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), waiting).await.expect("the condition did not come true");
}

async fn within<T>(seconds: u64, future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(seconds), future).await.expect("it took too long")
}
