//! Visitors of an app who never stop asking while something happens to it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;

/// What the visitors saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub answers: usize,
    pub failures: Vec<String>,
    /// The first word of each answer: the version.
    pub versions: BTreeSet<String>,
}

/// Several visitors, half of them on kept connections, half on a new one for each request.
pub struct Visitors {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Seen>>,
}

impl Visitors {
    /// They begin at once.
    pub fn come(port: u16, app: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..4)
            .map(|number| {
                let path = if number == 3 { "/slow" } else { "/" };
                tokio::spawn(visit(port, app.to_owned(), path, number % 2 == 0, stop.clone()))
            })
            .collect();
        Self { stop, tasks }
    }

    /// They finish what they asked, and tell.
    pub async fn leave(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for task in self.tasks {
            let seen = task.await.unwrap();
            all.answers += seen.answers;
            all.failures.extend(seen.failures);
            all.versions.extend(seen.versions);
        }
        all
    }

    /// They leave, and nobody may have seen a failure.
    pub async fn leave_content(self) -> Seen {
        let seen = self.leave().await;
        assert!(seen.failures.is_empty(), "{} of {}: {:?}", seen.failures.len(), seen.answers, seen.failures.first());
        assert!(seen.answers > 0, "nobody asked");
        seen
    }
}

async fn visit(port: u16, app: String, path: &'static str, keep: bool, stop: Arc<AtomicBool>) -> Seen {
    let connections = if keep { 4 } else { 0 };
    let client = super::http().pool_max_idle_per_host(connections).build().unwrap();
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        let request =
            client.get(format!("http://127.0.0.1:{port}{path}")).header("Host", format!("{app}.localhost:{port}"));
        match answer(request).await {
            Ok(version) => drop(seen.versions.insert(version)),
            Err(failure) => seen.failures.push(failure),
        }
        seen.answers += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    seen
}

async fn answer(request: reqwest::RequestBuilder) -> Result<String, String> {
    let response = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let text = response.text().await.map_err(|error| format!("{error:?}"))?;
    if !status.is_success() {
        return Err(format!("{status}: {text}"));
    }
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}
