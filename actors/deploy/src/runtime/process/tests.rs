use std::{future::Future, net::TcpStream, process::Command as Run, time::Duration};

use callboard_messages::InstanceId;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::{
    detect::{Command, RunEnvironment},
    limits::tests::test_launcher,
    output::Line,
    process::process,
    runtime::{Ended, HealthCheck, Unhealthy},
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

struct Bench {
    folder: tempfile::TempDir,
    runtime: ProcessRuntime,
    node: String,
    lines: Arc<Mutex<Vec<Line>>>,
}

/// Enough for an interpreter to begin on a busy machine; what listens is judged at its end.
const COMES_UP: Duration = Duration::from_secs(6);

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

    /// Nothing of any instance is left: no process, no file, no port.
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

#[tokio::test]
async fn an_instance_starts_answers_and_stops() {
    let bench = Bench::new();
    let instance = bench.start(bench.python(SERVER)).await.unwrap();
    assert!(TcpStream::connect(instance.address().unwrap()).is_ok());
    instance.probe(&HealthCheck::default()).await.unwrap();
    until(|| instance.usage().processes >= 1 && instance.usage().memory > 1_000_000).await;
    assert_eq!(instance.exit(), None);
    let exit = within(5, instance.stop(Duration::from_secs(3))).await;
    assert_eq!(exit.ended, Ended::Stopped { forced: false });
    assert_eq!(exit.output, ["listening"]);
    assert_eq!(instance.exited().await, exit);
    bench.assert_clean();
}

#[tokio::test]
async fn an_instance_sees_its_own_environment_only() {
    let bench = Bench::new();
    let mut spec = bench.worker("env; pwd; umask; ls /proc/self/fd | tr '\\n' ' '; echo; sleep 60");
    spec.environment = [("OWN", "a b\"c"), ("PORT", "1"), ("HOME", "/root"), ("LD_LIBRARY_PATH", "x")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    spec.run_environment.variables.insert("NODE_ENV".to_owned(), "production".to_owned());
    spec.run_environment.path.push("bin".into());
    let instance = bench.start(spec).await.unwrap();
    bench.until_said("0 1 2 3 ").await;
    let release = bench.folder.path().join("release").canonicalize().unwrap();
    let state = bench.folder.path().join("state").canonicalize().unwrap().join(instance.id().to_string());
    let path = format!("{}/bin:{}", release.display(), bench.runtime.settings.launcher.path);
    let mut expected = vec![
        format!("CALLBOARD_INSTANCE={}", instance.id()),
        format!("CALLBOARD_NODE={}", bench.node),
        format!("HOME={}/home", state.display()),
        "LANG=C.UTF-8".to_owned(),
        "LD_LIBRARY_PATH=x".to_owned(),
        "NODE_ENV=production".to_owned(),
        "OWN=a b\"c".to_owned(),
        format!("PATH={path}"),
        format!("PWD={}", release.display()),
        format!("TMPDIR={}/tmp", state.display()),
        release.display().to_string(),
        "0022".to_owned(),
        "0 1 2 3 ".to_owned(),
    ];
    expected.sort();
    let mut lines = instance.last_lines();
    lines.sort();
    assert_eq!(lines, expected);
    instance.stop(Duration::from_secs(1)).await;
    bench.assert_clean();
}

#[tokio::test]
async fn an_app_that_exits_at_once_is_told_with_its_own_words() {
    let bench = Bench::new();
    let error = bench.start(bench.python("import sys; print('no database'); sys.exit(3)")).await.unwrap_err();
    let StartError::Exited { exit, port: Some(port), .. } = &error else { panic!("{error:?}") };
    assert_eq!(exit.ended, Ended::Status(3));
    let sentence =
        format!("web exited at once with status 3 before it listened on PORT {port}; its last line: no database");
    assert_eq!(error.to_string(), sentence);
    let error = bench.start(bench.spec(Command::Exec(vec!["no-such-program".to_owned()]))).await.unwrap_err();
    assert!(error.to_string().contains("status 127") && error.to_string().contains("`no-such-program`"), "{error}");
    let error = bench.start(bench.worker("kill -SEGV $$")).await.unwrap_err();
    assert!(error.to_string().contains("was killed at once by signal 11 (SIGSEGV)"), "{error}");
    bench.assert_clean();
}

#[tokio::test]
async fn an_app_that_never_listens_is_ended() {
    let bench = Bench::new();
    let spec = bench.spec(Command::Exec(vec!["sleep".to_owned(), "600".to_owned()]));
    let error = bench.start_within(spec, Duration::from_millis(600)).await.unwrap_err();
    assert!(matches!(error, StartError::NeverListened { .. }), "{error}");
    assert!(error.to_string().contains("did not listen on PORT"), "{error}");
    bench.assert_clean();
}

#[tokio::test]
async fn an_app_on_another_port_is_told_so() {
    let bench = Bench::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut spec = bench.python(SERVER);
    spec.environment.insert("OTHER_PORT".to_owned(), port.to_string());
    let error = bench.start_within(spec, COMES_UP).await.unwrap_err();
    assert!(error.to_string().contains(&format!("it listens on {port} instead")), "{error}");
    bench.assert_clean();
}

#[tokio::test]
async fn an_unhealthy_app_is_told_by_its_answer() {
    let bench = Bench::new();
    let mut spec = bench.python(SERVER);
    spec.environment.insert("STATUS".to_owned(), "503".to_owned());
    let error = bench.start_within(spec.clone(), COMES_UP).await.unwrap_err();
    assert!(matches!(&error, StartError::Unhealthy { reason: Unhealthy::Status { status: 503, .. }, .. }), "{error}");
    // An app without a page at / is healthy all the same.
    spec.environment.insert("STATUS".to_owned(), "404".to_owned());
    drop(bench.start(spec).await.unwrap().stop(Duration::from_secs(1)).await);
    let script = "import os,socket,time\ns=socket.create_server(('127.0.0.1',int(os.environ['PORT'])))\n\
                  while True:\n c,_=s.accept(); c.send(b'SSH-2.0-x\\r\\n\\r\\n'); c.close()";
    let error = bench.start_within(bench.python(script), COMES_UP).await.unwrap_err();
    assert!(matches!(error, StartError::Unhealthy { reason: Unhealthy::NotHttp { .. }, .. }), "{error}");
    let script =
        "import os,socket,time\ns=socket.create_server(('127.0.0.1',int(os.environ['PORT'])))\ntime.sleep(600)";
    let error = bench.start_within(bench.python(script), COMES_UP).await.unwrap_err();
    assert!(matches!(error, StartError::Unhealthy { reason: Unhealthy::TimedOut { .. }, .. }), "{error}");
    bench.assert_clean();
}

#[tokio::test]
async fn an_app_that_listens_on_ipv6_only_is_found_there() {
    let bench = Bench::new();
    let script = SERVER.replace("http.server.HTTPServer((\"127.0.0.1\", port)", "V6((\"::1\", port)").replace(
        "port = int",
        "import socket\nclass V6(http.server.HTTPServer):\n    address_family = socket.AF_INET6\nport = int",
    );
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return; // no IPv6 on this machine
    }
    let instance = bench.start(bench.python(&script)).await.unwrap();
    assert!(instance.address().unwrap().is_ipv6());
    instance.stop(Duration::from_secs(1)).await;
    bench.assert_clean();
}

#[tokio::test]
async fn starting_can_be_cancelled() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    let spec = bench.spec(Command::Shell("echo up; exec sleep 600".to_owned()));
    let starting = bench.runtime.start(spec, HealthCheck::default(), bench.sink(), cancel.clone());
    let cancelling = async {
        bench.until_said("up").await;
        cancel.cancel();
    };
    let (result, ()) = within(10, async { tokio::join!(starting, cancelling) }).await;
    assert!(matches!(result, Err(StartError::Cancelled { .. })));
    bench.assert_clean();
}

#[tokio::test]
async fn a_lost_port_is_tried_again_on_another() {
    let bench = Bench::new();
    let marker = bench.folder.path().join("release/lost");
    let script = format!(
        "import os,sys\nif not os.path.exists({marker:?}):\n open({marker:?},'w'); \
         sys.exit('OSError: [Errno 98] Address already in use')\n{SERVER}"
    );
    let instance = bench.start(bench.python(&script)).await.unwrap();
    assert!(bench.lines.lock().iter().any(|line| line.text.contains("starting again on another port")));
    instance.stop(Duration::from_secs(1)).await;
    bench.assert_clean();
}

#[tokio::test]
async fn an_app_that_ignores_sigterm_is_killed_after_its_grace() {
    let bench = Bench::new();
    let instance = bench.start(bench.worker("trap '' TERM; echo up; while :; do sleep 1; done")).await.unwrap();
    bench.until_said("up").await;
    let begun = Instant::now();
    let exit = within(10, instance.stop(Duration::from_millis(700))).await;
    assert_eq!(exit.ended, Ended::Stopped { forced: true });
    assert!(begun.elapsed() >= Duration::from_millis(700));
    assert_eq!(exit.to_string(), "did not stop on SIGTERM in time and was killed");
    bench.assert_clean();
}

#[tokio::test]
async fn a_stop_can_be_made_shorter() {
    let bench = Bench::new();
    let instance = bench.start(bench.worker("trap '' TERM; echo up; while :; do sleep 1; done")).await.unwrap();
    bench.until_said("up").await;
    instance.begin_stop(Duration::from_secs(600));
    sleep(Duration::from_millis(50)).await;
    let exit = within(10, instance.stop(Duration::ZERO)).await;
    assert_eq!(exit.ended, Ended::Stopped { forced: true });
    bench.assert_clean();
}

#[tokio::test]
async fn a_graceful_stop_waits_for_the_children_too() {
    let bench = Bench::new();
    // The shell ends at once on SIGTERM; its child needs a while to finish.
    let child = "python3 -u -c \"import signal,sys,time\n\
                 def stop(*_): time.sleep(0.5); print('finished'); sys.exit(0)\n\
                 signal.signal(signal.SIGTERM, stop); print('up'); time.sleep(600)\"";
    let instance = bench.start(bench.worker(&format!("{child} & wait"))).await.unwrap();
    bench.until_said("up").await;
    let exit = within(10, instance.stop(Duration::from_secs(8))).await;
    assert_eq!(exit.ended, Ended::Stopped { forced: false });
    assert!(exit.output.contains(&"finished".to_owned()), "{:?}", exit.output);
    bench.assert_clean();
}

/// Children in the group, in a session of their own, orphaned twice over, and with an empty environment.
const BROOD: &str = "sleep 601 & (sleep 602 &) ; setsid sleep 603 & setsid sh -c 'sleep 604 & sleep 605' & \
                     (setsid sh -c '(sleep 606 &)' &) ; echo up; ";

#[tokio::test]
async fn children_end_with_their_instance_wherever_they_went() {
    let bench = Bench::new();
    for (script, stops) in [(format!("{BROOD} exec sleep 600"), true), (format!("{BROOD} sleep 0.8; exit 7"), false)] {
        bench.lines.lock().clear();
        let instance = bench.start(bench.worker(&script)).await.unwrap();
        bench.until_said("up").await;
        until(|| named(&bench.node).len() >= 7).await;
        let exit = if stops {
            within(10, instance.stop(Duration::from_secs(5))).await
        } else {
            within(10, instance.exited()).await
        };
        assert_eq!(exit.ended, if stops { Ended::Stopped { forced: false } } else { Ended::Status(7) });
        bench.assert_clean();
    }
}

#[tokio::test]
async fn a_control_group_holds_even_a_child_without_any_mark() {
    let bench = Bench::with_launcher(Launcher::with_cgroups);
    if bench.runtime.settings.launcher.cgroups.is_none() {
        return; // this machine lets us make none
    }
    let marker = format!("6{}", std::process::id());
    let script = format!("env -i setsid /bin/sleep {marker} & echo up; exec sleep 600");
    let instance = bench.start(bench.worker(&script)).await.unwrap();
    let sleeps = || {
        let output = Run::new("pgrep").args(["-fx", &format!("/bin/sleep {marker}")]).output().unwrap();
        output.status.success()
    };
    until(sleeps).await;
    within(10, instance.stop(Duration::from_secs(2))).await;
    assert!(!sleeps());
    bench.assert_clean();
    let bases: Vec<_> = bench.runtime.settings.launcher.cgroups.existing(|_| false);
    assert!(bases.is_empty(), "{bases:?}");
}

#[tokio::test]
async fn a_dropped_handle_stops_its_instance() {
    let bench = Bench::new();
    let instance = bench.start(bench.worker("sleep 600 & exec sleep 600")).await.unwrap();
    let exited = instance.exited();
    drop(instance);
    assert!(within(10, exited).await.is_stop());
    bench.assert_clean();
}

#[test]
fn a_runtime_that_ends_kills_its_instances() {
    let bench = Bench::new();
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let instance = tokio.block_on(bench.start(bench.worker("trap '' TERM; setsid sleep 600 & sleep 600"))).unwrap();
    assert!(!named(&bench.node).is_empty());
    drop(tokio);
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(until(|| named(&bench.node).is_empty()));
    assert!(matches!(tokio.block_on(instance.exited()).ended, Ended::Lost(_)));
    bench.assert_clean();
}

#[tokio::test]
async fn a_flood_of_logs_is_bounded_in_time_memory_and_size() {
    let bench = Bench::new();
    let before = resident();
    let megabytes = 64;
    let script = format!("head -c {megabytes}M /dev/zero | tr '\\0' 'x' | fold -w 99; echo done; exec sleep 600");
    let begun = Instant::now();
    let instance = bench.start(bench.worker(&script)).await.unwrap();
    until(|| instance.last_lines().last().is_some_and(|line| line.len() == 99)).await;
    // A well-behaved neighbour starts meanwhile.
    let other = bench.start(bench.python(SERVER)).await.unwrap();
    let waiting = async {
        // The last line itself may be over the budget; the end of the writers is what counts.
        while named(&bench.node).len() > 2 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    within(60, waiting).await;
    let seconds = begun.elapsed().as_secs_f64();
    let passed: usize = bench.lines.lock().iter().map(|line| line.text.len()).sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful of seconds")]
    let budget = (seconds as usize + 6) * 1024 * 1024;
    assert!(passed < budget, "{passed} bytes in {seconds:.1} s");
    assert!(bench.lines.lock().iter().any(|line| line.stream == Stream::System && line.text.contains("were dropped")));
    assert!(resident() < before + 48 * 1024 * 1024, "{} -> {}", before, resident());
    other.probe(&HealthCheck::default()).await.unwrap();
    instance.stop(Duration::from_secs(1)).await;
    other.stop(Duration::from_secs(1)).await;
    bench.assert_clean();
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn one_endless_line_is_cut() {
    let bench = Bench::new();
    let script = "head -c 20M /dev/zero | tr '\\0' 'x'; echo; echo after; sleep 600";
    let instance = bench.start(bench.worker(script)).await.unwrap();
    bench.until_said("after").await;
    let longest = bench.lines.lock().iter().map(|line| line.text.len()).max().unwrap();
    assert!((16 * 1024..17 * 1024).contains(&longest), "{longest}");
    instance.stop(Duration::from_secs(1)).await;
    bench.assert_clean();
}

#[tokio::test]
async fn a_fork_bomb_is_ended_and_its_neighbours_live() {
    for bench in [Bench::new(), Bench::with_launcher(Launcher::with_cgroups)] {
        let neighbour = bench.start(bench.python(SERVER)).await.unwrap();
        let mut spec = bench.worker("bomb() { sleep 600 & sleep 600 & sleep 600 & sleep 0.05; bomb; }; echo up; bomb");
        spec.limits.processes = 60;
        let instance = bench.start(spec).await.unwrap();
        // Where the kernel counts, it refuses the sixty-first; elsewhere the instance is ended when we count.
        let counted = bench.runtime.isolation().processes;
        let exit = if counted {
            until(|| instance.usage().processes >= 50 || instance.exit().is_some()).await;
            within(10, instance.stop(Duration::ZERO)).await
        } else {
            within(20, instance.exited()).await
        };
        assert_eq!(matches!(exit.ended, Ended::TooManyProcesses(60)), !counted, "{exit:?}");
        neighbour.probe(&HealthCheck::default()).await.unwrap();
        neighbour.stop(Duration::from_secs(1)).await;
        bench.assert_clean();
    }
}

#[tokio::test]
async fn an_instance_that_uses_too_much_memory_is_ended() {
    for bench in [Bench::new(), Bench::with_launcher(Launcher::with_cgroups)] {
        let script = "import time\nkept = []\nfor _ in range(100):\n kept.append(b'x' * 4_000_000); time.sleep(0.02)\ntime.sleep(600)";
        let spec = bench.python(script);
        let limits = InstanceLimits { memory: 64 * 1024 * 1024, ..InstanceLimits::default() };
        let spec = InstanceSpec { listens: false, limits, ..spec };
        let instance = bench.runtime.spawn(spec, bench.sink()).await.unwrap();
        let exit = within(20, instance.exited()).await;
        assert_eq!(exit.ended, Ended::OutOfMemory(64 * 1024 * 1024), "{exit:?}");
        assert!(exit.to_string().contains("more than its 64 MiB of memory"), "{exit}");
        bench.assert_clean();
    }
}

#[tokio::test]
async fn an_instance_that_fills_its_folders_is_ended() {
    const MIB: u64 = 1024 * 1024;
    let mut bench = Bench::new();
    bench.runtime.folders_measured_every = Duration::from_millis(20);
    // No file of them is large; they are spread over all that is its own.
    let script = "for at in . $HOME $TMPDIR; do head -c 2M /dev/zero > $at/part; done; echo full; sleep 600";
    let mut spec = bench.worker(script);
    spec.limits.disk = 5 * MIB;
    let exit = within(20, bench.runtime.spawn(spec, bench.sink()).await.unwrap().exited()).await;
    assert_eq!(exit.ended, Ended::OutOfDisk(5 * MIB), "{exit:?}");
    assert!(exit.is_full());
    assert!(exit.to_string().contains("it kept more than 5 MiB in its own folder"), "{exit}");
    bench.assert_clean();

    let mut spec = bench.worker("cd $TMPDIR; for n in $(seq 100); do : > $n; done; sleep 600");
    spec.limits.files = 60;
    let exit = within(20, bench.runtime.spawn(spec, bench.sink()).await.unwrap().exited()).await;
    assert_eq!(exit.ended, Ended::TooManyFiles(60), "{exit:?}");
    bench.assert_clean();

    // Within its limits it lives on.
    let mut spec = bench.worker("head -c 2M /dev/zero > $HOME/part; sleep 0.5");
    spec.limits.disk = 5 * MIB;
    let exit = within(20, bench.runtime.spawn(spec, bench.sink()).await.unwrap().exited()).await;
    assert_eq!(exit.ended, Ended::Status(0), "{exit:?}");
    bench.assert_clean();
}

#[tokio::test]
async fn node_runs_within_the_default_limits() {
    let Ok(output) = Run::new("node").arg("--version").output() else { return };
    assert!(output.status.success());
    let bench = Bench::new();
    let script = "require('http').createServer((q, r) => r.end('ok')).listen(process.env.PORT)";
    let spec = bench.spec(Command::Exec(vec!["node".to_owned(), "-e".to_owned(), script.to_owned()]));
    bench.start(spec).await.unwrap().stop(Duration::from_secs(2)).await;
    bench.assert_clean();
}

#[tokio::test]
async fn the_examples_come_up_and_stop_in_good_order() {
    let bench = Bench::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for name in ["node", "python", "procfile"] {
        let plan = crate::detect::detect(&examples.join(name), &crate::detect::BuildConfig::default()).unwrap();
        for (process, command) in plan.processes {
            let listens = process == "web";
            let environment = BTreeMap::from([("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned())]);
            let (release, run_environment) = (examples.join(name), plan.environment.clone());
            let spec = bench.spec(command);
            let spec = InstanceSpec { process, listens, environment, release, run_environment, ..spec };
            let exit = bench.start(spec).await.unwrap().stop(Duration::from_secs(10)).await;
            assert_eq!(exit.ended, Ended::Stopped { forced: false }, "{name}: {exit:?}");
        }
    }
    bench.assert_clean();
}

#[tokio::test]
async fn what_a_killed_node_left_is_found_and_ended() {
    for change in [|launcher| launcher, Launcher::with_cgroups] {
        let bench = Bench::with_launcher(change);
        // A node that is killed runs no destructor: this child is the node, and its children outlive it.
        let mut node = orphan_maker(&bench);
        until(|| named(&bench.node).len() >= 3).await;
        node.kill().unwrap();
        node.wait().unwrap();
        assert_eq!(named(&bench.node).len(), 3, "they outlive their node");
        let running = bench.start(bench.worker("exec sleep 600")).await.unwrap();
        let orphans = bench.runtime.end_orphans().await;
        assert_eq!(orphans.iter().map(|orphan| orphan.processes).sum::<usize>(), 3, "{orphans:?}");
        let left: Vec<Uuid> = named(&bench.node).into_iter().map(|(_, id)| id).collect();
        assert_eq!(left, [running.id().0], "what this node has started is no orphan");
        assert_eq!(bench.runtime.end_orphans().await, []);
        running.stop(Duration::from_secs(1)).await;
        bench.assert_clean();
    }
}

#[tokio::test]
async fn an_orphan_that_hides_its_environment_is_found_by_its_record() {
    let bench = Bench::new();
    let mut child = Run::new("sleep").arg("617").env_clear().spawn().unwrap();
    let process = process(i32::try_from(child.id()).unwrap()).unwrap();
    let id = Uuid::now_v7();
    std::mem::forget(Record::write(&bench.folder.path().join("state"), id, process.pid, process.start_time).unwrap());
    // A record whose process is another one by now.
    let innocent = Record::write(
        &bench.folder.path().join("state"),
        Uuid::now_v7(),
        i32::try_from(std::process::id()).unwrap(),
        1,
    )
    .unwrap();
    std::mem::forget(innocent);
    let orphans = bench.runtime.end_orphans().await;
    assert_eq!(orphans, [Orphan { id, processes: 1 }]);
    child.wait().unwrap();
    bench.assert_clean();
}

/// A copy of this test binary that starts an instance with children and then waits to be killed.
fn orphan_maker(bench: &Bench) -> std::process::Child {
    Run::new(std::env::current_exe().unwrap())
        .args(["--exact", "runtime::process::tests::orphan_maker_entry", "--nocapture"])
        .env("ORPHANS_IN", bench.folder.path())
        .env("ORPHANS_OF", &bench.node)
        .env("ORPHANS_CGROUPS", (!bench.runtime.settings.launcher.cgroups.is_none()).to_string())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn orphan_maker_entry() {
    let (Ok(folder), Ok(node)) = (std::env::var("ORPHANS_IN"), std::env::var("ORPHANS_OF")) else { return };
    let launcher = Launcher::new(test_launcher(), node.clone());
    let cgroups = std::env::var("ORPHANS_CGROUPS").is_ok_and(|value| value == "true");
    let launcher = if cgroups { launcher.with_cgroups() } else { launcher };
    let bench = Bench {
        // Inside the other's, which removes it: this process is killed.
        folder: tempfile::tempdir_in(&folder).unwrap(),
        runtime: Bench::runtime(Path::new(&folder), launcher),
        node,
        lines: Arc::default(),
    };
    fs::create_dir(bench.folder.path().join("release")).unwrap();
    let spec = bench.worker("trap '' PIPE; sleep 611 & setsid sleep 612 & exec sleep 613");
    let _instance = bench.runtime.spawn(spec, LineSink::none()).await.unwrap();
    sleep(Duration::from_secs(60)).await;
}
