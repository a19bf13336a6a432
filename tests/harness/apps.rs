//! Apps to deploy, and how they answer.

use std::{
    fs,
    path::{Path, PathBuf},
};

use reqwest::{Response, StatusCode};
use serde_json::Value;

use super::{Node, Ran, answered};

/// One of the examples, where it stands in the tree.
pub fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// A small web app. It answers `<version> <greeting> <pid>`; at `/slow` after 300 ms, at `/asked` with the slow
/// requests under way, and `/exit` ends it.
const WEB: &str = r#"
import os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "@version@"
slow = []

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/exit":
            os._exit(3)
        if self.path == "/slow":
            slow.append("slow")
            time.sleep(0.3)
            slow.pop()
        body = f"{VERSION} {os.environ.get('GREETING', '-')} {os.getpid()} {slow}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print(f"version {VERSION} listens", flush=True)
server.serve_forever()
print("ends", flush=True)
"#;

/// A web app that leaves its clients waiting: at `/silent` it never says anything, and at `/stream` nothing after a first
/// event. `/began` tells at which of the two clients have waited, `/left` at which they were gone first, and `/open` how many
/// wait now. `/late` takes a second, `/pid` is its process, and any other path is said back.
pub const SILENT: &str = r#"
import os, threading, time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

lock, began, left = threading.Lock(), Counter(), Counter()

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def wait(self):
        with lock:
            began[self.path] += 1
        try:
            while self.connection.recv(1):
                pass
        except OSError:
            pass
        with lock:
            left[self.path] += 1
        self.close_connection = True

    def do_HEAD(self):
        self.answer("")

    def do_GET(self):
        if self.path == "/silent":
            return self.wait()
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"9\r\ndata: 1\n\n\r\n")
            return self.wait()
        if self.path == "/late":
            time.sleep(1)
        with lock:
            told = {
                "/began": ",".join(began),
                "/left": ",".join(left),
                "/open": str(began.total() - left.total()),
                "/pid": str(os.getpid()),
            }
        self.answer(told.get(self.path, f"this is {self.path}"))

    def answer(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// What starts an app that is `app.py`.
pub const PROCFILE: &str = "web: python3 app.py\n";

/// An app in a folder of its own.
pub struct App<'a> {
    node: &'a Node,
    pub name: String,
    pub folder: PathBuf,
}

impl<'a> App<'a> {
    /// A folder with these files.
    pub fn new(node: &'a Node, name: &str, files: &[(&str, &str)]) -> Self {
        let app = Self { node, name: name.to_owned(), folder: node.scratch(name) };
        files.iter().for_each(|(file, text)| app.write(file, text));
        app
    }

    /// The small web app.
    pub fn web(node: &'a Node, name: &str, version: &str) -> Self {
        let app = Self::new(node, name, &[("Procfile", PROCFILE)]);
        app.set_version(version);
        app
    }

    /// The port of the node, by which it is visited.
    pub const fn port(&self) -> u16 {
        self.node.port
    }

    /// The app that leaves its clients waiting.
    pub fn silent(node: &'a Node, name: &str) -> Self {
        Self::new(node, name, &[("Procfile", PROCFILE), ("app.py", SILENT)])
    }

    /// A copy of an example.
    pub fn example(node: &'a Node, name: &str) -> Self {
        let app = Self::new(node, name, &[]);
        copy(&example(name), &app.folder);
        app
    }

    /// The web app answers with this from the next deploy on.
    pub fn set_version(&self, version: &str) {
        self.write("app.py", &WEB.replace("@version@", version));
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The folder as a tar.gz archive.
    pub fn packed(&self) -> Vec<u8> {
        let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut archive = tar::Builder::new(encoder);
        archive.append_dir_all(".", &self.folder).unwrap();
        archive.into_inner().unwrap().finish().unwrap()
    }

    /// Deploys the folder; it must succeed.
    pub async fn deploy(&self) -> Value {
        let deployed = self.node.cli_json(&["deploy", self.folder.to_str().unwrap(), "--app", &self.name]).await;
        assert_eq!(deployed["status"], "completed", "{deployed}");
        deployed
    }

    /// Begins a deployment and does not wait for it.
    pub async fn begin_deploy(&self) -> Value {
        self.node.cli_json(&["deploy", self.folder.to_str().unwrap(), "--app", &self.name, "--detach"]).await
    }

    /// Waits until this line is in the log of a build.
    pub async fn build_says(&self, deployment: &str, text: &str) {
        let operator = self.node.operator();
        answered(&format!("the build says {text}"), || async {
            let log = operator.look(&format!("/deployments/{deployment}/logs")).await?;
            let said = |line: &Value| line["text"].as_str().unwrap().trim() == text;
            Ok(log["items"].as_array().unwrap().iter().any(said).then_some(()))
        })
        .await;
    }

    /// Tries to begin a deployment while another one runs.
    pub async fn begin_deploy_refused(&self) -> Ran {
        self.node.cli(&["deploy", self.folder.to_str().unwrap(), "--app", &self.name, "--detach"]).await
    }

    /// Asks the app as a browser would: by its host name, on the node's port.
    pub async fn ask(&self, path: &str) -> Response {
        visit(self.node.port, &self.name, path).await.unwrap()
    }

    /// What it answers; it must answer.
    pub async fn text(&self, path: &str) -> String {
        let response = self.ask(path).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{text}");
        text
    }

    /// The version of the small web app that answers now.
    pub async fn version(&self) -> String {
        self.text("/").await.split(' ').next().unwrap_or_default().to_owned()
    }

    pub async fn ps(&self) -> Value {
        self.node.cli_json(&["ps", "--app", &self.name]).await
    }

    /// The instances of a process type, as far as they can be asked for now.
    async fn look(&self, process: &str) -> Result<Vec<Value>, String> {
        let ran = self.node.cli(&["ps", "--app", &self.name, "--json"]).await;
        if !ran.success() {
            return Err(format!("{ran:?}"));
        }
        let instances = ran.json();
        let items = instances["items"].as_array().unwrap();
        Ok(items.iter().filter(|instance| instance["process"] == process).cloned().collect())
    }

    /// Those of them that are healthy.
    pub async fn healthy(&self, process: &str) -> Result<Vec<Value>, String> {
        let mut instances = self.look(process).await?;
        instances.retain(|instance| instance["status"] == "healthy");
        Ok(instances)
    }

    /// Waits until exactly this many instances of a process type are healthy, and nothing else of it is there.
    pub async fn settle(&self, process: &str, count: usize) -> Vec<Value> {
        answered(&format!("{count} healthy {process} of {}", self.name), || async {
            let of_it = self.look(process).await?;
            let settled = of_it.len() == count && of_it.iter().all(|instance| instance["status"] == "healthy");
            Ok(settled.then_some(of_it))
        })
        .await
    }
}

/// One request to an app on a connection of its own.
pub async fn visit(port: u16, app: &str, path: &str) -> reqwest::Result<Response> {
    let client = super::http().build()?;
    client.get(format!("http://127.0.0.1:{port}{path}")).header("Host", format!("{app}.localhost:{port}")).send().await
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
