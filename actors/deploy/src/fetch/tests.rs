use std::{
    convert::Infallible,
    net::SocketAddr,
    process::{Command, Stdio},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::*;
use crate::limits::tests::test_launcher;

/// A repository, and a host on loopback that serves it as git hosts do.
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
        fs::create_dir(folder.path().join("app.git")).unwrap();
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
        host.git(&["init", "--quiet", "--initial-branch=main"]);
        host.commit("index.html", "<h1>one</h1>");
        host
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("app.git")
    }

    fn git(&self, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"];
        let output =
            Command::new("git").current_dir(self.repository()).args(identity).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, file: &str, text: &str) -> String {
        fs::write(self.repository().join(file), text).unwrap();
        self.commit_all()
    }

    fn commit_all(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "a change"]);
        self.git(&["rev-parse", "HEAD"])
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
    let Some(service) = path.strip_prefix("/app.git/") else { return Ok(status(404)) };
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let advertise = service == "info/refs";
    let mut command = tokio::process::Command::new("git");
    command.args(["-c", "uploadpack.allowReachableSHA1InWant=true", "upload-pack", "--stateless-rpc"]);
    command.args(advertise.then_some("--advertise-refs")).arg(root.join("app.git"));
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
    // No resolver on earth knows this name: only the pin leads there.
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

#[tokio::test]
async fn submodules_filters_and_hooks_of_a_repository_do_nothing() {
    let host = Host::new().await;
    fs::write(host.repository().join(".gitattributes"), "* filter=evil\n").unwrap();
    fs::write(
        host.repository().join(".gitmodules"),
        "[submodule \"s\"]\n\tpath = s\n\turl = https://127.0.0.1/s.git\n",
    )
    .unwrap();
    let head = host.git(&["rev-parse", "HEAD"]);
    host.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{head},s")]);
    host.git(&["add", ".gitattributes", ".gitmodules"]);
    host.git(&["commit", "--quiet", "--message", "a submodule"]);
    let (folder, _) = fetch(&host.source(None), &settings()).await.unwrap();
    let submodule = folder.path().join("source/s");
    assert!(fs::read_dir(submodule).is_ok_and(|mut entries| entries.next().is_none()));
}

#[tokio::test]
async fn size_is_bounded() {
    let host = Host::new().await;
    // Packs to a few kilobytes.
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
        // Those of git, not the platform's own.
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
