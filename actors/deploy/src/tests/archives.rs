//! One node lets an archive go at the moment at which another begins to use the same, on both engines.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use callboard_messages::{Caller, deploy::*};
use callboard_supervisors::testing::on_both_engines;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, path::Path,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::nodes::{Pair, by_owner};
use super::stage::{App, Bench, server, until};
use crate::MIGRATIONS;

/// Where a node is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// It has found the object there.
    Found,
    /// It is about to remove it.
    Removes,
}

/// A store that stops the next node that comes to a moment of an object, until it is let on.
struct Gate {
    inner: Arc<dyn ObjectStore>,
    armed: Mutex<Option<(Moment, String)>>,
    reached: Semaphore,
    opened: Semaphore,
}

impl Gate {
    fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, armed: Mutex::default(), reached: Semaphore::new(0), opened: Semaphore::new(0) })
    }

    fn arm(&self, moment: Moment, digest: &str) {
        *self.armed.lock() = Some((moment, digest.to_owned()));
    }

    async fn pass(&self, moment: Moment, path: &Path) {
        let stops = |armed: &mut (Moment, String)| armed.0 == moment && path.as_ref().contains(&armed.1);
        if self.armed.lock().take_if(stops).is_some() {
            self.reached.add_permits(1);
            self.opened.acquire().await.unwrap().forget();
        }
    }

    async fn until_reached(&self) {
        let reached = tokio::time::timeout(super::stage::DEADLINE, self.reached.acquire()).await;
        reached.expect("nobody came to the moment").unwrap().forget();
    }

    fn open(&self) {
        self.opened.add_permits(1);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

/// The trait's own way to share a store: removals need it beyond the call.
#[derive(Debug, Clone)]
struct Gated(Arc<Gate>);

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gated")
    }
}

#[async_trait]
impl ObjectStore for Gated {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let looks = options.head;
        let found = self.0.inner.get_opts(path, options).await;
        if looks && found.is_ok() {
            self.0.pass(Moment::Found, path).await;
        }
        found
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let gate = self.0.clone();
        let paths = paths.and_then(move |path| {
            let gate = gate.clone();
            async move {
                gate.pass(Moment::Removes, &path).await;
                Ok(path)
            }
        });
        self.0.inner.delete_stream(paths.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.inner.copy_opts(from, to, options).await
    }
}

async fn digest(bench: &Bench, app: &App) -> String {
    let list = ListReleases { project_id: app.id, limit: None, cursor: None };
    bench.ask(&app.owner, list).await.unwrap().items.remove(0).digest
}

/// Waits until the store has these releases and no others.
async fn until_stored(gate: &Gate, mut expected: Vec<String>) {
    expected.sort();
    until("the store has what is needed", async || {
        let objects: Vec<ObjectMeta> = gate.inner.list(Some(&Path::from("releases"))).try_collect().await.unwrap();
        let mut names: Vec<String> =
            objects.iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect();
        names.sort();
        (names == expected).then_some(())
    })
    .await;
}

/// New instances find the archive.
async fn restarts(bench: &Bench, app: &App) {
    let restart = bench.ask(&app.owner, Restart { project_id: app.id }).await.unwrap();
    let ended = bench.ended(app, restart.id).await;
    assert_eq!(ended.status, DeploymentStatus::Completed, "{:?}", ended.error);
}

async fn on_a_pair(body: impl AsyncFn(&Pair<'_>, &Gate, &Bench, &Bench)) {
    on_both_engines(&[("deploy", &MIGRATIONS)], async |databases| {
        let folder = tempfile::tempdir().unwrap();
        let mut pair = Pair::new(&databases, folder.path());
        let gate = Gate::new(pair.objects.clone());
        pair.objects = Arc::new(Gated(gate.clone()));
        pair.change = |settings| settings.releases_kept = 1;
        let (a, b) = pair.both().await;
        body(&pair, &gate, &a, &b).await;
        a.stop().await;
        b.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn what_is_let_go_late_is_not_what_another_app_was_released_with_meanwhile() {
    on_a_pair(async |pair, gate, a, b| {
        let (shop, twin) = (pair.create("shop"), pair.create("twin"));
        a.release(&shop, "one").await;
        let one = digest(a, &shop).await;
        gate.arm(Moment::Removes, &one);
        a.release(&shop, "two").await;
        gate.until_reached().await;
        let two = digest(a, &shop).await;
        // A node of the two is about to remove the archive when the same is released as another app.
        b.release(&twin, "one").await;
        gate.open();
        until_stored(gate, vec![format!("{two}.tar.gz"), format!("{one}.1.tar.gz")]).await;
        restarts(b, &twin).await;
        let (_, serves, _) = by_owner(&twin, pair, a, b).await;
        assert_eq!(serves.get(&twin, "/").await.unwrap(), "one");
        for app in [&shop, &twin] {
            b.ask(&Caller::system(), CleanupEnvironment { project_id: app.id }).await.unwrap();
        }
        until_stored(gate, Vec::new()).await;
    })
    .await;
}

#[actix_rt::test]
async fn an_archive_that_is_let_go_after_a_builder_has_found_it_is_stored_again() {
    on_a_pair(async |pair, gate, a, b| {
        let (shop, twin) = (pair.create("shop"), pair.create("twin"));
        a.release(&shop, "one").await;
        let one = digest(a, &shop).await;
        gate.arm(Moment::Found, &one);
        let begun = b.begin(&twin, &server("one")).await.unwrap();
        gate.until_reached().await;
        // The other builder makes another release, after which nobody needs the first one.
        a.release(&shop, "two").await;
        let two = digest(a, &shop).await;
        until_stored(gate, vec![format!("{two}.tar.gz")]).await;
        gate.open();
        let ended = b.ended(&twin, begun.id).await;
        assert_eq!(ended.status, DeploymentStatus::Completed, "{:?}", ended.error);
        until_stored(gate, vec![format!("{two}.tar.gz"), format!("{one}.1.tar.gz")]).await;
        restarts(b, &twin).await;
        let (_, serves, _) = by_owner(&twin, pair, a, b).await;
        assert_eq!(serves.get(&twin, "/").await.unwrap(), "one");
    })
    .await;
}
