use std::fs;

use super::*;
use crate::{
    build::{
        detect::Command,
        package::tests::{pack, test_packer},
    },
    process::{named, trampoline::tests::test_launcher},
};

struct Bench {
    folder: tempfile::TempDir,
    settings: BuildSettings,
    cancel: CancellationToken,
    environment: BTreeMap<String, String>,
    /// Whether it has a cache, an empty one.
    cache: bool,
    log: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("source")).unwrap();
        let launcher = Launcher::new(test_launcher(), uuid::Uuid::now_v7().to_string());
        let mut settings = BuildSettings::new(launcher, test_packer());
        settings.limits.grace = Duration::from_millis(300);
        let environment = BTreeMap::from([("OWN".to_owned(), "yes".to_owned())]);
        Self { folder, settings, cancel: CancellationToken::new(), environment, cache: false, log: Arc::default() }
    }

    async fn build(&self, lines: &[&str]) -> Result<BuildReport, BuildError> {
        let step = |line: &&str| Step { title: "Building".into(), command: Command::Shell((*line).to_owned()) };
        self.run(lines.iter().map(step).collect()).await
    }

    async fn run(&self, steps: Vec<Step>) -> Result<BuildReport, BuildError> {
        let mut plan = Plan::empty();
        plan.steps = steps;
        plan.reasons = vec!["because".into()];
        let values = self.environment.clone();
        let mask = Mask::new(values.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let environment = Variables { values, mask };
        let cache = self.cache.then(|| Taken { folder: self.folder.path().join("cache"), is_warm: false });
        if let Some(taken) = &cache {
            fs::create_dir_all(taken.folder.join("tools")).unwrap();
        }
        let sink = LineSink::new({
            let log = self.log.clone();
            move |line| log.lock().push(line.text)
        });
        let source = self.folder.path().join("source");
        let result = run_plan(&plan, &source, &environment, cache.as_ref(), &self.settings, &sink, &self.cancel).await;
        assert!(named(&self.settings.launcher.node).is_empty(), "something of the build was left running");
        // The caller's to remove, as making.rs does.
        for made in [HOME, TEMPORARY] {
            drop(fs::remove_dir_all(self.folder.path().join(made)));
        }
        result
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }
}

#[tokio::test]
async fn steps_run_in_order_with_a_live_log() {
    let bench = Bench::new();
    let built = bench.build(&["echo one > a; echo said", "cat a; echo bad >&2; printf '\\377end'"]).await.unwrap();
    assert_eq!(built.size, folder::Size { bytes: 4, entries: 1 });
    let log = bench.log();
    assert_eq!(log[1], "the build may take 15 minutes, 4096 MiB of memory and 2048 MiB of disk");
    assert_eq!([&log[0], &log[2], &log[3], &log[4]], ["because", "Building", "$ echo one > a; echo said", "said"]);
    for line in ["one", "bad", "\u{fffd}end"] {
        assert!(log.iter().any(|said| said == line), "{log:?}");
    }
}

#[tokio::test]
async fn a_build_sees_nothing_of_the_node() {
    let bench = Bench::new();
    bench.build(&["env | sort; ls /proc/self/fd | wc -l"]).await.unwrap();
    let log = bench.log();
    let names: Vec<&str> = log[4..].iter().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    let known = [
        "CALLBOARD_INSTANCE",
        "CALLBOARD_NODE",
        "CI",
        "HOME",
        "LANG",
        "NO_COLOR",
        "OWN",
        "PATH",
        "PWD",
        "TMPDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "NODE_EXTRA_CA_CERTS",
        "REQUESTS_CA_BUNDLE",
        "PIP_CERT",
        "_",
        "SHLVL",
    ];
    assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
    assert!(names.contains(&"OWN") && names.contains(&"HOME"));
    assert_eq!(log.last().unwrap().trim(), "4", "its standard three and the folder ls reads");
}

#[tokio::test]
async fn a_failed_step_ends_the_build_with_its_own_words() {
    let bench = Bench::new();
    let error = bench.build(&["echo broken >&2; exit 3", "touch never"]).await.unwrap_err();
    let BuildError::Failed { reason, output, .. } = &error else { panic!("{error:?}") };
    assert_eq!((reason.as_str(), output.last().unwrap().as_str()), ("it ended with status 3", "broken"));
    assert!(!bench.folder.path().join("source/never").exists());
    let missing = Step { title: "x".into(), command: Command::Exec(vec!["no-such-builder".into()]) };
    let error = bench.run(vec![missing]).await.unwrap_err();
    assert!(matches!(&error, BuildError::NotInstalled { program } if program == "no-such-builder"), "{error:?}");
}

#[tokio::test]
async fn a_build_that_takes_too_long_is_ended_with_everything_it_started() {
    let mut bench = Bench::new();
    bench.settings.limits.time = Duration::from_millis(800);
    let script = "trap '' TERM; (trap '' TERM; sleep 600) & setsid sh -c 'trap \"\" TERM; sleep 600' & sleep 600";
    let started = std::time::Instant::now();
    let error = bench.build(&[script]).await.unwrap_err();
    assert!(matches!(error, BuildError::TimedOut(_)), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn a_build_is_cancelled_at_once() {
    let bench = Bench::new();
    let cancelling = async {
        while !bench.log().iter().any(|line| line == "ready") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bench.cancel.cancel();
    };
    let (result, ()) = tokio::join!(bench.build(&["echo ready; sleep 600"]), cancelling);
    assert!(matches!(result, Err(BuildError::Cancelled)));
}

#[tokio::test]
async fn what_a_step_leaves_in_the_background_ends_with_it() {
    let bench = Bench::new();
    bench.build(&["sleep 600 & setsid sleep 600 & echo done"]).await.unwrap();
}

/// It hides by all means: it forks twice, leaves its session, clears its environment and ignores SIGTERM.
#[tokio::test]
async fn what_hides_from_a_build_ends_with_it() {
    for change in [|launcher| launcher, Launcher::with_cgroups] {
        let mut bench = Bench::new();
        bench.settings.launcher = change(bench.settings.launcher);
        let hide = "(env -i setsid /bin/sh -c 'trap \"\" TERM HUP; (trap \"\" TERM HUP; while :; do /bin/sleep 1; done) & \
                    echo $! > pid' &); until test -s pid; do sleep 0.01; done";
        bench.build(&[hide]).await.unwrap();
        let pid = fs::read_to_string(bench.folder.path().join("source/pid")).unwrap().trim().parse().unwrap();
        assert!(crate::process::process(pid).is_none(), "it outlives its build");
    }
}

#[tokio::test]
async fn a_build_that_uses_too_much_memory_is_ended_and_told_so() {
    for change in [|launcher| launcher, Launcher::with_cgroups] {
        let mut bench = Bench::new();
        bench.settings.launcher = change(bench.settings.launcher);
        bench.settings.limits.memory = 96 * 1024 * 1024;
        // No single process exceeds the limit.
        let hog = "python3 -c \"import time; kept = b'x' * 60_000_000; time.sleep(2)\"";
        let error =
            bench.build(&[&format!("{hog} & {hog} & {hog} & wait; echo 'Node.js v20'; exit 1")]).await.unwrap_err();
        assert!(matches!(error, BuildError::OutOfMemory(_)), "{error:?}");
        assert!(error.to_string().contains("the build used more than its 96 MiB of memory"), "{error}");
    }
}

#[tokio::test]
async fn the_home_of_a_build_counts_against_its_size() {
    let mut bench = Bench::new();
    bench.settings.limits.size = 1024 * 1024;
    let error = bench.build(&["head -c 900000 /dev/zero > $HOME/a; head -c 900000 /dev/zero > $TMPDIR/b"]).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("more than 1 MiB, the source, HOME and TMPDIR included"), "{error}");
    bench.settings.limits.entries = 50;
    let error = bench.build(&["cd $HOME; for n in $(seq 100); do : > $n; done"]).await.unwrap_err();
    assert!(error.to_string().contains("more than 50 files"), "{error}");
}

#[tokio::test]
async fn a_build_that_grows_too_large_is_ended() {
    let mut bench = Bench::new();
    bench.settings.limits.size = 1024 * 1024;
    let error = bench.build(&["head -c 900000 /dev/zero > a; head -c 900000 /dev/zero > b"]).await.unwrap_err();
    assert!(matches!(error, BuildError::OverLimit(_)), "{error:?}");
    let error = bench.build(&["head -c 2000000 /dev/zero > c"]).await.unwrap_err();
    assert!(error.to_string().contains("a file larger than 1 MiB"), "{error:?}");
}

#[tokio::test]
async fn a_build_log_has_an_end() {
    let mut bench = Bench::new();
    bench.settings.limits.log_lines = 50;
    bench.build(&["i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done"]).await.unwrap();
    let log = bench.log();
    assert_eq!(log.len(), 52, "{:?}", &log[48..]);
    assert_eq!(log[50], "the log has 50 lines; what follows is left out");
    // The steps' own lines count, too.
    assert!(log[51].ends_with("lines were left out here"), "{}", log[51]);
}

/// With packages from the registries; the release is moved to another folder before it runs.
#[tokio::test]
#[ignore = "needs the network"]
async fn real_dependencies_are_installed_and_run_from_a_moved_release() {
    use crate::build::{detect, package, tools::Tools};
    let apps: [&[(&str, &str)]; 2] = [
        &[
            ("package.json", r#"{"dependencies":{"ms":"2.1.3"},"scripts":{"start":"node x.js","build":"node -p 1"}}"#),
            ("x.js", "console.log(require('ms')(60000))"),
        ],
        &[("requirements.txt", "httpie==3.2.4\n"), ("Procfile", "web: http --version")],
    ];
    for (files, said) in apps.into_iter().zip(["1m", "3.2.4"]) {
        let mut bench = Bench::new();
        bench
            .settings
            .pass_through
            .extend(["PIP_FIND_LINKS", "PIP_INDEX_URL", "NPM_CONFIG_REGISTRY"].map(str::to_owned));
        let source = bench.folder.path().join("source");
        for (name, text) in files {
            fs::write(source.join(name), text).unwrap();
        }
        let tools = Tools::of_path(bench.settings.launcher.path.clone());
        let plan = detect::detect(&source, &detect::BuildConfig::default(), &tools).unwrap();
        let sink = LineSink::new(|line| println!("{}", line.text));
        run_plan(&plan, &source, &Variables::default(), None, &bench.settings, &sink, &bench.cancel).await.unwrap();
        let (file, release) = (bench.folder.path().join("r.tar.gz"), bench.folder.path().join("release"));
        let packed = pack(&source.join(&plan.root), &file).unwrap();
        fs::remove_dir_all(&source).unwrap();
        package::unpack(&file, &release, &packed.id).unwrap();
        let argv = plan.processes["web"].argv(&[]);
        let variables = plan.environment.variables(&release, &bench.settings.launcher.path);
        let run = std::process::Command::new(&argv[0]).args(&argv[1..]).current_dir(&release).envs(variables).output();
        let output = run.unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).trim() == said, "{output:?}");
    }
}

#[tokio::test]
async fn values_of_variables_are_not_in_the_log_nor_in_the_reason() {
    let mut bench = Bench::new();
    bench.environment =
        BTreeMap::from([("TOKEN".to_owned(), "s3cret-token".to_owned()), ("MODE".to_owned(), "fast".to_owned())]);
    let error = bench.build(&["echo token $TOKEN in mode $MODE; echo refused: $TOKEN >&2; exit 1"]).await.unwrap_err();
    let BuildError::Failed { output, .. } = &error else { panic!("{error:?}") };
    assert!(output.contains(&"refused: ***TOKEN***".to_owned()), "{output:?}");
    let log = bench.log();
    assert!(log.contains(&"token ***TOKEN*** in mode fast".to_owned()), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("s3cret")), "{log:?}");
}

#[tokio::test]
async fn a_build_that_asks_gets_no_answer_and_goes_on() {
    let bench = Bench::new();
    bench
        .build(&["echo 'Continue? [y/N]'; if read answer; then exit 9; fi; echo \"answered: $answer.\""])
        .await
        .unwrap();
    assert!(bench.log().contains(&"answered: .".to_owned()), "{:?}", bench.log());
}

#[tokio::test]
async fn the_owner_may_set_what_the_platform_sets_unless_it_is_the_platforms_own() {
    let mut bench = Bench::new();
    let own = [("NODE_ENV", "staging"), ("npm_config_cache", "/c"), ("HOME", "/root"), ("PORT", "1")];
    bench.environment = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    bench.cache = true;
    bench
        .build(&["echo \"$NODE_ENV $npm_config_cache $PORT.\"; test \"$HOME\" != /root; echo \"$PIP_CACHE_DIR\""])
        .await
        .unwrap();
    let log = bench.log();
    assert!(log.contains(&"staging /c .".to_owned()), "{log:?}");
    assert!(log.last().unwrap().ends_with("/cache/tools/pip"), "{log:?}");
}

#[tokio::test]
async fn what_a_build_keeps_in_its_cache_counts() {
    let mut bench = Bench::new();
    bench.settings.limits.size = 1024 * 1024;
    bench.cache = true;
    let error =
        bench.build(&["for i in 1 2 3; do head -c 600000 /dev/zero > $PIP_CACHE_DIR$i; done"]).await.unwrap_err();
    let BuildError::OverLimit(sentence) = &error else { panic!("{error:?}") };
    assert!(sentence.contains("build cache"), "{sentence}");
}

#[tokio::test]
async fn a_build_that_forks_without_end_is_ended() {
    let mut bench = Bench::new();
    bench.settings.limits.processes = 30;
    let error = bench.build(&["i=0; while [ $i -lt 60 ]; do sleep 600 & i=$((i + 1)); done; wait"]).await.unwrap_err();
    let BuildError::OverLimit(sentence) = &error else { panic!("{error:?}") };
    assert_eq!(sentence, "it started more than 30 processes at a time");
}
