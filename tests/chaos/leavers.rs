//! Clients that leave before they are answered: of an app that stays silent, in the middle of an upload, and while they
//! read live updates.

use std::time::Duration;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    cluster::Cluster,
    load::{LEAVER, Person, archive},
};
use crate::harness::{PROCFILE, SILENT, answered_within, visit};

/// How long an app's request may outlive its client.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

impl Person {
    /// Comes and leaves again until the campaign ends.
    pub async fn leave_again_and_again(&mut self) {
        let name = silent(&self.name);
        let Some(project) = self.deployed(&name, &archive(&[("Procfile", PROCFILE), ("app.py", SILENT)])).await else {
            return;
        };
        while self.goes_on() {
            let head = match self.random.below(3) {
                0 => format!("GET /silent HTTP/1.1\r\nHost: {name}.localhost\r\n\r\n"),
                1 => format!(
                    "POST /api/v1/projects/{project}/sources HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
                     Content-Type: application/gzip\r\nContent-Length: 1000000\r\n\r\nhalf",
                    self.token
                ),
                _ => format!(
                    "GET /api/v1/live?topics=project:{project} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
                     Accept: text/event-stream\r\n\r\n",
                    self.token
                ),
            };
            let port = self.port();
            // A node that is down takes nobody: that is not what is asked here.
            if let Ok(mut connection) = TcpStream::connect(("127.0.0.1", port)).await {
                drop(connection.write_all(head.as_bytes()).await);
                self.rest(50, 400).await;
            }
            self.rest(20, 150).await;
        }
    }
}

/// The silent app has no request any more whose client has left.
pub async fn left(cluster: &Cluster) {
    let node = &cluster.nodes[0];
    answered_within(NOTICED_WITHIN, "the requests of clients that left have ended", || async {
        let answer = visit(node.port, &silent(LEAVER), "/open").await.map_err(|error| error.to_string())?;
        let text = answer.text().await.map_err(|error| error.to_string())?;
        if text == "0" { Ok(Some(())) } else { Err(format!("the app has {text} of them")) }
    })
    .await;
}

/// The app of somebody that answers nothing.
fn silent(person: &str) -> String {
    format!("{person}-silent")
}
