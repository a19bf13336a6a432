use std::{
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::{git::check_version, *};
use crate::process::trampoline::tests::test_launcher;

/// Repositories, and a host on loopback that serves them as git hosts do.
struct Host {
    folder: tempfile::TempDir,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Host {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let root = folder.path().to_owned();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let root = root.clone();
                let service = service_fn(move |request| answer(root.clone(), request));
                tokio::spawn(async move {
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await)
                });
            }
        });
        let host = Self { folder, address, server };
        host.make("app", "index.html", "<h1>one</h1>");
        host
    }

    /// Makes a repository with one file. Returns its commit.
    fn make(&self, name: &str, file: &str, text: &str) -> String {
        fs::create_dir(self.repository_of(name)).unwrap();
        self.git_in(name, &["init", "--quiet", "--initial-branch=main"]);
        fs::write(self.repository_of(name).join(file), text).unwrap();
        self.git_in(name, &["add", "--all"]);
        self.commit_in(name)
    }

    /// Commits the index. Returns the commit.
    fn commit_in(&self, name: &str) -> String {
        self.git_in(name, &["commit", "--quiet", "--message", "a change"]);
        self.git_in(name, &["rev-parse", "HEAD"])
    }

    /// Adds submodules to a repository: name, path, address and commit of each.
    fn with_submodules(&self, name: &str, submodules: &[(&str, &str, &str, &str)]) -> String {
        let mut text = String::new();
        for (module, path, url, commit) in submodules {
            text.push_str(&format!("[submodule \"{module}\"]\n\tpath = {path}\n\turl = {url}\n"));
            self.git_in(name, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
        }
        fs::write(self.repository_of(name).join(".gitmodules"), text).unwrap();
        self.git_in(name, &["add", ".gitmodules"]);
        self.commit_in(name)
    }

    fn repository(&self) -> PathBuf {
        self.repository_of("app")
    }

    fn repository_of(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.git"))
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.git_in("app", arguments)
    }

    fn git_in(&self, name: &str, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"];
        let output =
            Command::new("git").current_dir(self.repository_of(name)).args(identity).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, file: &str, text: &str) -> String {
        fs::write(self.repository().join(file), text).unwrap();
        self.commit_all()
    }

    fn commit_all(&self) -> String {
        self.git(&["add", "--all"]);
        self.commit_in("app")
    }

    fn source(&self, reference: Option<&str>) -> GitSource {
        GitSource { url: format!("http://{}/app.git", self.address), reference: reference.map(str::to_owned) }
    }
}

async fn answer(root: PathBuf, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let status = |code: u16| Response::builder().status(code).body(Full::default()).unwrap();
    if path.starts_with("/moved.git") {
        let mut response = status(302);
        response.headers_mut().insert("location", "http://127.0.0.1:1/app.git/info/refs".parse().unwrap());
        return Ok(response);
    }
    if path.starts_with("/silent.git") {
        return std::future::pending().await;
    }
    let known = path.trim_start_matches('/').split_once('/').filter(|(name, _)| root.join(name).is_dir());
    let Some((name, service)) = known else { return Ok(status(404)) };
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let advertise = service == "info/refs";
    let mut command = tokio::process::Command::new("git");
    command.args(["-c", "uploadpack.allowReachableSHA1InWant=true", "upload-pack", "--stateless-rpc"]);
    command.args(advertise.then_some("--advertise-refs")).arg(root.join(name));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdin.take().unwrap().write_all(&body).await);
    let output = child.wait_with_output().await.unwrap().stdout;
    let kind = if advertise { "advertisement" } else { "result" };
    let mut bytes = if advertise { b"001e# service=git-upload-pack\n0000".to_vec() } else { Vec::new() };
    bytes.extend(output);
    let response = Response::builder().header("content-type", format!("application/x-git-upload-pack-{kind}"));
    Ok(response.body(Full::new(bytes.into())).unwrap())
}

fn settings() -> FetchSettings {
    let launcher = Launcher::new(test_launcher(), uuid::Uuid::now_v7().to_string());
    FetchSettings { allow_private_sources: true, ..FetchSettings::new(launcher) }
}

async fn fetch(source: &GitSource, settings: &FetchSettings) -> Result<(tempfile::TempDir, Commit), FetchError> {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("source");
    let result = clone(source, &target, settings, &LineSink::none(), &CancellationToken::new()).await;
    assert!(crate::process::named(&settings.launcher.node).is_empty(), "git was left running");
    result.map(|commit| (folder, commit))
}

#[tokio::test]
async fn a_branch_a_tag_and_a_commit_are_fetched_without_their_history() {
    let host = Host::new().await;
    let first = host.git(&["rev-parse", "HEAD"]);
    host.git(&["tag", "v1"]);
    host.git(&["checkout", "--quiet", "-b", "feature/x"]);
    let second = host.commit("index.html", "<h1>two</h1>");
    host.git(&["checkout", "--quiet", "main"]);
    for (reference, id, text) in [
        (None, &first, "<h1>one</h1>"),
        (Some("main"), &first, "<h1>one</h1>"),
        (Some("v1"), &first, "<h1>one</h1>"),
        (Some("feature/x"), &second, "<h1>two</h1>"),
        (Some(second.as_str()), &second, "<h1>two</h1>"),
    ] {
        let (folder, commit) = fetch(&host.source(reference), &settings()).await.unwrap();
        assert_eq!((&commit.id, commit.subject.as_str()), (id, "a change"), "{reference:?}");
        assert_eq!(fs::read_to_string(folder.path().join("source/index.html")).unwrap(), text);
        assert!(!folder.path().join("source/.git").exists());
    }
}

#[tokio::test]
async fn a_name_is_fetched_from_the_address_that_was_checked() {
    let host = Host::new().await;
    let mut settings = settings();
    let address = host.address;
    settings.resolve = Arc::new(move |_, _| Box::pin(async move { Ok(vec![address]) }));
    // No resolver knows this name: only the pin leads to the host.
    let url = format!("http://app.invalid:{}/app.git", host.address.port());
    fetch(&GitSource { url, reference: None }, &settings).await.unwrap();
}

#[tokio::test]
async fn loopback_is_refused_unless_allowed() {
    let host = Host::new().await;
    let settings = FetchSettings { allow_private_sources: false, ..settings() };
    let error = fetch(&host.source(None), &settings).await.unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let host = Host::new().await;
    let error = fetch(&host.source(Some("nope")), &settings()).await.unwrap_err();
    assert!(matches!(&error, FetchError::NoReference(name) if name == "nope"), "{error}");
    let commit = "0123456789012345678901234567890123456789";
    let error = fetch(&host.source(Some(commit)), &settings()).await.unwrap_err();
    assert!(matches!(error, FetchError::NoReference(_)), "{error}");
    let url = format!("http://{}/other.git", host.address);
    let error = fetch(&GitSource { url, reference: None }, &settings()).await.unwrap_err();
    assert!(matches!(error, FetchError::NotFound(_)), "{error}");
}

#[tokio::test]
async fn git_whose_reaper_is_killed_is_told() {
    // A reaper that reports that its program runs, and is killed.
    let script = "printf '{\"Started\":{\"pid\":%d,\"start_time\":1}}\\n' $$ >&0; kill -KILL $$";
    let launcher =
        Launcher::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec(), uuid::Uuid::now_v7().to_string());
    let settings = FetchSettings { allow_private_sources: true, ..FetchSettings::new(launcher) };
    let error = fetch(&Host::new().await.source(None), &settings).await.unwrap_err();
    assert!(error.to_string().contains("the process that supervises it was killed"), "{error}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let host = Host::new().await;
    let url = format!("http://{}/moved.git", host.address);
    let error = fetch(&GitSource { url, reference: None }, &settings()).await.unwrap_err();
    assert!(matches!(error, FetchError::Redirected(_)), "{error}");
}

#[tokio::test]
async fn links_out_of_the_repository_are_refused() {
    let host = Host::new().await;
    std::os::unix::fs::symlink("/etc/passwd", host.repository().join("passwd")).unwrap();
    host.commit_all();
    let error = fetch(&host.source(None), &settings()).await.unwrap_err();
    assert!(matches!(error, FetchError::Link(_)), "{error}");
}

/// Fetches a source. Returns where it is, and what the log says.
async fn fetch_and_listen(source: &GitSource) -> (tempfile::TempDir, PathBuf, String) {
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = LineSink::new({
        let said = said.clone();
        move |line| said.lock().push(line.text)
    });
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("source");
    clone(source, &target, &settings(), &sink, &CancellationToken::new()).await.unwrap();
    let said = said.lock().join("\n");
    (folder, target, said)
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[tokio::test]
async fn submodules_are_fetched_with_theirs() {
    let host = Host::new().await;
    let deep = host.make("deep", "deep.txt", "deep");
    host.make("lib", "lib.txt", "lib");
    let lib = host.with_submodules("lib", &[("d", "inner/deep", "../deep.git", &deep)]);
    // The branch moves on, the commit stays.
    host.with_submodules("lib", &[]);
    let absolute = format!("http://{}/lib.git", host.address);
    let modules = [("one", "libs/one", "../lib.git", lib.as_str()), ("a b.c", "two words", &absolute, &lib)];
    host.with_submodules("app", &modules);
    let (_folder, target, said) = fetch_and_listen(&host.source(None)).await;
    assert_eq!(read(&target, "index.html"), "<h1>one</h1>");
    for place in ["libs/one", "two words"] {
        assert_eq!(read(&target, &format!("{place}/lib.txt")), "lib", "{said}");
        assert_eq!(read(&target, &format!("{place}/inner/deep/deep.txt")), "deep", "{said}");
        assert!(!target.join(place).join(".git").exists() && !target.join(place).join("inner/deep/.git").exists());
    }
    assert!(!said.contains("not fetched"), "{said}");
}

#[tokio::test]
async fn submodules_that_can_not_be_fetched_are_named() {
    let host = Host::new().await;
    let lib = host.make("lib", "lib.txt", "lib");
    let unknown = "0123456789012345678901234567890123456789";
    let modules = [
        ("scp", "scp", "git@127.0.0.1:lib.git", lib.as_str()),
        ("ext", "ext", "ext::sh -c touch% ran", &lib),
        ("file", "file", "file:///etc", &lib),
        ("path", "path", "/etc", &lib),
        ("user", "user", "https://me:secret@127.0.0.1/lib.git", &lib),
        ("out", "out", "../../lib.git", &lib),
        ("gone", "gone", "../gone.git", &lib),
        ("unknown", "unknown", "../lib.git", unknown),
        ("good", "good", "../lib.git", &lib),
    ];
    host.with_submodules("app", &modules);
    host.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{lib},nameless")]);
    host.commit_in("app");
    let (_folder, target, said) = fetch_and_listen(&host.source(None)).await;
    assert_eq!(read(&target, "good/lib.txt"), "lib");
    let named = modules.iter().map(|(_, path, ..)| *path).filter(|path| *path != "good").chain(["nameless"]);
    for path in named {
        assert!(said.contains(&format!("The submodule `{path}` is not fetched")), "{path}: {said}");
        assert!(fs::read_dir(target.join(path)).unwrap().next().is_none(), "{path}");
    }
    assert!(!said.contains("secret"), "{said}");
    assert!(!target.join("ext").join("ran").exists() && !target.join("ran").exists());
}

#[tokio::test]
async fn submodules_are_fetched_so_deep_and_no_deeper() {
    let host = Host::new().await;
    let mut commit = host.make("chain", "end.txt", "end");
    // A repository that is its own submodule, on every level.
    for _ in 0..6 {
        commit = host.with_submodules("chain", &[("next", "next", "../chain.git", &commit)]);
    }
    let source = GitSource { url: format!("http://{}/chain.git", host.address), reference: None };
    let (_folder, target, said) = fetch_and_listen(&source).await;
    assert_eq!(read(&target, "next/next/next/next/end.txt"), "end");
    assert!(said.contains("`next/next/next/next/next` is not fetched"), "{said}");
    assert!(fs::read_dir(target.join("next/next/next/next/next")).unwrap().next().is_none());
}

#[tokio::test]
async fn a_submodule_that_may_come_the_next_time_fails_the_fetch() {
    let host = Host::new().await;
    let lib = host.make("lib", "lib.txt", "lib");
    // A port on which nothing listens.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/lib.git", listener.local_addr().unwrap());
    drop(listener);
    host.with_submodules("app", &[("lib", "lib", &url, &lib)]);
    let error = fetch(&host.source(None), &settings()).await.unwrap_err();
    assert!(matches!(&error, FetchError::Submodule { path, .. } if path == "lib"), "{error}");
}

#[tokio::test]
async fn filters_hooks_and_settings_of_a_repository_do_nothing() {
    let host = Host::new().await;
    let ran = host.folder.path().join("ran");
    let program = format!("!touch {}", ran.display());
    let lib = host.make("lib", "lib.txt", "lib");
    fs::write(host.repository().join(".gitattributes"), "* filter=evil diff=evil merge=evil\n").unwrap();
    fs::write(host.repository().join(".lfsconfig"), "[lfs]\n\turl = http://127.0.0.1:1/\n").unwrap();
    host.commit_all();
    host.with_submodules("app", &[("lib", "lib", "../lib.git", &lib)]);
    let modules = format!(
        "[submodule \"lib\"]\n\tpath = lib\n\turl = ../lib.git\n\tupdate = {program}\n[core]\n\tfsmonitor = {program}\n\
         [include]\n\tpath = /etc/passwd\n"
    );
    host.commit(".gitmodules", &modules);
    // git may refuse such a file; then nothing is fetched.
    match fetch(&host.source(None), &settings()).await {
        Ok((folder, _)) => assert!(folder.path().join("source/lib").is_dir()),
        Err(error) => assert!(matches!(error, FetchError::Failed(_)), "{error}"),
    }
    assert!(!ran.exists());
}

#[tokio::test]
async fn names_of_submodules_that_lead_elsewhere_are_refused() {
    for (name, path, url) in [("../../evil", "s", "../lib.git"), ("s", "s", "-uexec=touch /tmp/x")] {
        let host = Host::new().await;
        let lib = host.make("lib", "lib.txt", "lib");
        host.with_submodules("app", &[(name, path, url, &lib)]);
        let error = fetch(&host.source(None), &settings()).await.unwrap_err();
        assert!(matches!(error, FetchError::Failed(_)), "{name}: {error}");
    }
}

#[tokio::test]
async fn size_is_bounded() {
    let host = Host::new().await;
    // Compresses to a few kilobytes.
    host.commit("large", &"x".repeat(4 * 1024 * 1024));
    let settings = FetchSettings { size_limit: 1024 * 1024, ..settings() };
    let error = fetch(&host.source(None), &settings).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge(_)), "{error}");
    let settings = FetchSettings { size_limit: 6 * 1024 * 1024, ..settings };
    fetch(&host.source(None), &settings).await.unwrap();
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_given_up() {
    let host = Host::new().await;
    let silent = GitSource { url: format!("http://{}/silent.git", host.address), reference: None };
    let settings = FetchSettings { time_limit: Duration::from_millis(700), ..settings() };
    let error = fetch(&silent, &settings).await.unwrap_err();
    assert!(matches!(error, FetchError::TimedOut(_)), "{error}");

    let cancel = CancellationToken::new();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("source");
    let settings = FetchSettings { time_limit: Duration::from_secs(60), ..settings };
    let sink = LineSink::none();
    let fetching = clone(&silent, &target, &settings, &sink, &cancel);
    let cancelling = async {
        // Processes of git, without reapers and trampolines.
        let is_gits = |(_, marks): &(_, crate::process::Marks)| !marks.is_ours;
        while crate::process::named(&settings.launcher.node).iter().filter(|it| is_gits(it)).count() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(fetching, cancelling);
    assert!(matches!(result, Err(FetchError::Cancelled)));
    assert!(crate::process::named(&settings.launcher.node).is_empty());
}

#[tokio::test]
async fn a_node_without_git_says_so() {
    let mut settings = settings();
    settings.launcher.path = "/nonexistent".to_owned();
    let source = GitSource { url: "https://192.0.2.1/app.git".to_owned(), reference: None };
    let error = fetch(&source, &settings).await.unwrap_err();
    assert!(error.to_string().contains("git is not installed"), "{error}");
    assert!(check_version("git version 2.47.3", false).is_ok());
    assert!(check_version("git version 2.30.2", false).is_err());
}
