use std::{fs, os::unix::fs::symlink, path::PathBuf};

use callboard_messages::ProjectId;
use uuid::Uuid;

use super::*;
use crate::{folder::trash::Trash, pools::Pools};

struct Node {
    folder: tempfile::TempDir,
    caches: Caches,
}

impl Node {
    fn new(limits: CacheLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pools = Pools::default();
        let trash = Trash::new(folder.path().join("trash"), pools.clone());
        let caches = Caches::new(folder.path().join("caches"), limits, trash, pools);
        fs::create_dir(folder.path().join("work")).unwrap();
        Self { folder, caches }
    }

    /// The cache of this name in the hands of a build.
    async fn take(&self, name: &CacheName) -> Taken {
        let into = self.folder.path().join("work").join(Uuid::now_v7().to_string());
        self.caches.take(name, into, None).await.unwrap().unwrap()
    }

    /// Gives back a cache with this in it.
    async fn leave(&self, name: &CacheName, text: &str) {
        let taken = self.take(name).await;
        fs::write(taken.folder.join("tools/text"), text).unwrap();
        assert_eq!(self.caches.give_back(name, taken).await.unwrap(), None);
    }

    async fn found(&self, name: &CacheName) -> Option<String> {
        fs::read_to_string(self.take(name).await.folder.join("tools/text")).ok()
    }
}

fn git(reference: &str) -> Option<DeploymentSource> {
    Some(DeploymentSource::Git { url: "https://example.org/a".into(), reference: Some(reference.into()) })
}

#[tokio::test]
async fn a_cache_is_of_one_project_one_line_of_sources_and_one_generation() {
    let node = Node::new(CacheLimits::default());
    let (project, other) = (ProjectId::new(), ProjectId::new());
    let uploads = Some(DeploymentSource::Archive { source_id: Uuid::now_v7() });
    let main = CacheName::of(project, 0, git("main").as_ref());
    node.leave(&main, "main").await;
    let others = [
        CacheName::of(project, 0, git("feature").as_ref()),
        CacheName::of(project, 0, uploads.as_ref()),
        CacheName::of(other, 0, git("main").as_ref()),
    ];
    for name in &others {
        assert_eq!(node.found(name).await, None, "{name:?}");
    }
    let again = CacheName::of(project, 0, git("main").as_ref());
    let taken = node.take(&again).await;
    assert!(taken.is_warm && fs::read_to_string(taken.folder.join("tools/text")).unwrap() == "main");
    // Two builds at once: the second goes without.
    assert!(!node.take(&again).await.is_warm);
    assert_eq!(node.caches.give_back(&again, taken).await.unwrap(), None);
    // A cleared cache is not found any more, nor kept.
    assert_eq!(node.found(&CacheName::of(project, 1, git("main").as_ref())).await, None);
    let former = node.folder.path().join("caches").join(project.to_string()).join(&main.line);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while former.exists() {
        assert!(std::time::Instant::now() < deadline, "a cleared cache is not removed");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(node.caches.projects().await.unwrap(), [project]);
    node.caches.remove(project).await.unwrap();
    assert!(node.caches.projects().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_too_large_is_not_kept_and_what_was_used_longest_ago_makes_room() {
    let node = Node::new(CacheLimits { app: 1_000, entries: 50, node: 2_500 });
    let name = || CacheName::of(ProjectId::new(), 0, None);
    let large = name();
    let taken = node.take(&large).await;
    fs::write(taken.folder.join("tools/text"), "x".repeat(1_001)).unwrap();
    let note = node.caches.give_back(&large, taken).await.unwrap().unwrap();
    assert!(note.contains("larger than 0 MiB (CALLBOARD_BUILD_CACHE)"), "{note}");
    let many = node.take(&large).await;
    (0..51).for_each(|number| fs::write(many.folder.join(number.to_string()), "").unwrap());
    assert!(node.caches.give_back(&large, many).await.unwrap().unwrap().contains("more than 50 files"));

    let names = [name(), name(), name()];
    for name in &names {
        node.leave(name, &"x".repeat(900)).await;
        // The clock of the node may not have moved since.
        let state =
            node.folder.path().join("caches").join(name.project_id.to_string()).join(&name.line).join("state.json");
        let used_at = if name == &names[0] { 1 } else { 2 };
        let text = format!("{{\"bytes\":900,\"used_at\":{used_at}}}");
        if name != &names[2] {
            fs::write(state, text).unwrap();
        }
    }
    assert_eq!(node.found(&names[0]).await, None, "it was used longest ago");
    for name in &names[1..] {
        assert!(node.found(name).await.is_some());
    }
    let none = Node::new(CacheLimits { app: 0, ..CacheLimits::default() });
    assert!(none.caches.take(&large, none.folder.path().join("work/x"), None).await.unwrap().is_none());
}

#[tokio::test]
async fn a_cache_that_is_a_link_is_neither_used_nor_kept() {
    let node = Node::new(CacheLimits::default());
    let name = CacheName::of(ProjectId::new(), 0, None);
    let secret = node.folder.path().join("secret");
    fs::create_dir_all(secret.join("tools")).unwrap();
    fs::write(secret.join("tools/text"), "secret").unwrap();
    let taken = node.take(&name).await;
    fs::remove_dir_all(&taken.folder).unwrap();
    symlink(&secret, &taken.folder).unwrap();
    let note = node.caches.give_back(&name, taken).await.unwrap().unwrap();
    assert!(note.contains("no folder any more"), "{note}");
    node.leave(&name, "good").await;
    let content = node.folder.path().join("caches").join(name.project_id.to_string()).join(&name.line).join("content");
    fs::remove_dir_all(&content).unwrap();
    symlink(&secret, &content).unwrap();
    assert_eq!(node.found(&name).await, None);
    assert_eq!(fs::read_to_string(secret.join("tools/text")).unwrap(), "secret");
}

/// A build's folders: its app and the cache that it has taken.
fn app(files: &[&str]) -> (tempfile::TempDir, PathBuf, Taken) {
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app");
    fs::create_dir(&app).unwrap();
    for file in files {
        let path = app.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, *file).unwrap();
    }
    let cache = folder.path().join("cache");
    fs::create_dir_all(cache.join("tools")).unwrap();
    (folder, app, Taken { folder: cache, is_warm: false })
}

fn plan(key: &str, folders: &[&str]) -> Cache {
    Cache { key: key.to_owned(), folders: folders.iter().map(PathBuf::from).collect() }
}

#[test]
fn folders_of_the_app_are_kept_for_builds_of_the_same_key() {
    let (folder, app, taken) = app(&[".next/cache/a", ".next/page", "node_modules/.cache/b"]);
    let next = plan("node 22 abc", &[".next/cache", "node_modules/.cache", "missing/cache"]);
    assert_eq!(taken.collect(&Dir::open(&app).unwrap(), Path::new(""), &next).unwrap(), Vec::<String>::new());
    assert!(!app.join(".next/cache").exists() && app.join(".next/page").exists());
    let fresh = folder.path().join("fresh");
    fs::create_dir_all(fresh.join("node_modules/.cache")).unwrap();
    fs::write(fresh.join("node_modules/.cache/own"), "own").unwrap();
    // What the source brings along stays.
    assert_eq!(taken.restore(&fresh, &next, None).unwrap(), 1);
    assert_eq!(fs::read_to_string(fresh.join(".next/cache/a")).unwrap(), ".next/cache/a");
    assert!(fresh.join("node_modules/.cache/own").exists());
    // Another lock file or another version of a tool is another key.
    taken.collect(&Dir::open(&fresh).unwrap(), Path::new(""), &next).unwrap();
    assert_eq!(taken.restore(&fresh, &plan("node 24 abc", &[".next/cache"]), None).unwrap(), 0);
    taken.collect(&Dir::open(&fresh).unwrap(), Path::new(""), &plan("node 24 abc", &[".next/cache"])).unwrap();
    assert_eq!(taken.restore(&fresh, &next, None).unwrap(), 0, "those of the former key are gone");
}

#[test]
fn a_folder_behind_a_link_is_not_kept_and_nothing_is_put_behind_one() {
    let (folder, app, taken) = app(&["real/cache/a", "file"]);
    let outside = folder.path().join("outside");
    fs::create_dir_all(outside.join("cache")).unwrap();
    fs::write(outside.join("cache/secret"), "secret").unwrap();
    symlink(&outside, app.join("link")).unwrap();
    symlink(outside.join("cache"), app.join("direct")).unwrap();
    let wanted = plan("k", &["link/cache", "direct", "file", "../outside/cache", "/etc", "real/cache"]);
    let notes = taken.collect(&Dir::open(&app).unwrap(), Path::new(""), &wanted).unwrap();
    assert_eq!(notes.len(), 5, "{notes:?}");
    assert!(outside.join("cache/secret").exists());
    let lured = folder.path().join("lured");
    fs::create_dir(&lured).unwrap();
    symlink(&outside, lured.join("real")).unwrap();
    fs::remove_dir_all(outside.join("cache")).unwrap();
    assert_eq!(taken.restore(&lured, &wanted, None).unwrap(), 0);
    assert!(!outside.join("cache").exists());
}
