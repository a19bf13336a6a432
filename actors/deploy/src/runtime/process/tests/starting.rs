//! Starts of instances, and the reasons for failed ones.

use std::{
    collections::BTreeMap,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command as Run, Stdio},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Bench, COMES_UP, SERVER, until, within};
use crate::{
    build::{
        detect::{BuildConfig, Command, detect},
        tools::Tools,
    },
    runtime::{Ended, HealthCheck, InstanceSpec, Runtime as _, StartError, Unhealthy},
};

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
    let sentence = format!("web exited at once with status 3 before it listened on PORT {port}; it said: no database");
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

/// Answers as a healthy app would, on a port that an instance is given.
fn answer_on(port: u16) -> std::process::Child {
    let script = SERVER.replace("http.server.HTTPServer", "http.server.ThreadingHTTPServer");
    Run::new("python3").args(["-c", &script]).env("PORT", port.to_string()).stdout(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn whoever_has_the_port_of_an_app_is_not_taken_for_it() {
    let bench = Bench::new();
    let spec = bench.spec(Command::Exec(vec!["sleep".to_owned(), "600".to_owned()]));
    let instance = bench.runtime.spawn(spec, bench.sink()).await.unwrap();
    let address = instance.address().unwrap();
    let mut other = answer_on(address.port());
    let check = HealthCheck { grace: COMES_UP, ..HealthCheck::default() };
    until(|| TcpStream::connect(address).is_ok()).await;
    let error = instance.ready(&check, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, StartError::NeverListened { is_taken: true, .. }), "{error}");
    assert!(error.to_string().contains("another process of this machine answers there"), "{error}");
    other.kill().unwrap();
    other.wait().unwrap();
    instance.stop(Duration::ZERO).await;
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
    if TcpListener::bind("[::1]:0").is_err() {
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
    let tools = Tools::of_path(std::env::var("PATH").unwrap());
    for name in ["node", "python", "procfile"] {
        let plan = detect(&examples.join(name), &BuildConfig::default(), &tools).unwrap();
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
