//! An S3 server of a test's own: PyPI's moto, which `scripts/moto` installs.

use std::{path::PathBuf, process::Command};

use reqwest::Method;

use super::{Server, build_folder};

/// Keeps its objects in memory for as long as it runs.
pub struct Moto {
    server: Server,
    http: reqwest::Client,
}

/// Where `scripts/moto` puts it.
fn program() -> PathBuf {
    let program = build_folder().join("moto/venv/bin/moto_server");
    assert!(
        program.is_file(),
        "moto's S3 server is not installed at {}: run scripts/moto, which needs the network once",
        program.display()
    );
    program
}

impl Moto {
    /// It lets everybody in.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With these variables.
    pub async fn start_with(environment: &[(&str, &str)]) -> Self {
        let mut server = Server::new("moto");
        let mut command = Command::new(program());
        command.args(["-H", "127.0.0.1", "-p", &server.port.to_string()]);
        command.envs(environment.iter().copied());
        server.spawn(command);
        let http = crate::harness::http().build().unwrap();
        let url = format!("http://127.0.0.1:{}/moto-api/", server.port);
        server.until_ready(async || http.get(&url).send().await.is_ok_and(|it| it.status().is_success())).await;
        Self { server, http }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Makes a bucket.
    pub async fn make_bucket(&self, bucket: &str) {
        let made = self.ask(Method::PUT, &format!("/{bucket}")).await;
        assert!(made.contains("200"), "{made}");
    }

    /// The names of the objects in a bucket.
    pub async fn objects(&self, bucket: &str) -> Vec<String> {
        let listed = self.ask(Method::GET, &format!("/{bucket}?list-type=2")).await;
        listed.split("<Key>").skip(1).filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned())).collect()
    }

    /// How many uploads in parts have begun and not ended.
    pub async fn unfinished_uploads(&self, bucket: &str) -> usize {
        self.ask(Method::GET, &format!("/{bucket}?uploads")).await.matches("<UploadId>").count()
    }

    async fn ask(&self, method: Method, path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", self.server.port);
        let response = self.http.request(method, url).send().await.unwrap();
        format!("{} {}", response.status().as_u16(), response.text().await.unwrap())
    }
}
