//! Logs on the disk and in the object store.

use object_store::memory::InMemory;
use uuid::Uuid;

use super::*;
use crate::objects::Objects;

fn journals() -> (tempfile::TempDir, Journals) {
    let folder = tempfile::tempdir().unwrap();
    let journals = of_a_node(folder.path(), &Objects::new(Arc::new(InMemory::new())));
    (folder, journals)
}

fn of_a_node(folder: &Path, objects: &Objects) -> Journals {
    let chunks = Chunks::new(objects.clone(), Uuid::now_v7());
    Journals::new(folder.to_owned(), BlockingPool::new("journals", 2, 64), chunks)
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[actix_rt::test]
async fn a_reader_sees_what_was_written_before_it_came() {
    let (_folder, journals) = journals();
    let journal = journals.open("a", 1_000_000);
    let at = Utc::now();
    let lines: Vec<LogLine> = (1..=5).map(|n| journal.write(at, "web.1", n.to_string())).collect();
    assert!(lines.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(texts(&journal.read(Range::Last, 2).await.unwrap()), ["4", "5"]);
    assert_eq!(texts(&journal.read(Range::After(lines[1].id), 2).await.unwrap()), ["3", "4"]);
    assert_eq!(journal.read(Range::After(0), 100).await.unwrap(), lines);
}

#[actix_rt::test]
async fn ids_and_lines_survive_a_restart_and_a_cut_line_is_passed_over() {
    let (folder, journals) = journals();
    let journal = journals.open("a", 1_000_000);
    let first = journal.write(Utc::now(), "web.1", "before".to_owned());
    journal.read(Range::Last, 1).await.unwrap();
    drop(journal);
    let mut file = File::options().append(true).open(folder.path().join("a/current")).unwrap();
    file.write_all(b"{\"id\":9\n").unwrap();
    let journal = journals.open("a", 1_000_000);
    let second = journal.write(Utc::now(), "web.1", "after".to_owned());
    assert!(second.id > first.id);
    assert_eq!(texts(&journal.read(Range::Last, 10).await.unwrap()), ["before", "after"]);
}

#[actix_rt::test]
async fn a_full_log_lets_the_oldest_lines_go() {
    let (folder, journals) = journals();
    let journal = journals.open("a", 2_000);
    for n in 0..200 {
        journal.write(Utc::now(), "web.1", format!("{n:050}"));
        journal.read(Range::Last, 1).await.unwrap();
    }
    let size: u64 = fs::read_dir(folder.path().join("a")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(size <= 4_000, "{size}");
    let last = journal.read(Range::Last, 3).await.unwrap();
    assert_eq!(last.last().unwrap().text, format!("{:050}", 199));
    journals.remove("a").await.unwrap();
    assert!(!folder.path().join("a").exists());
}

#[actix_rt::test]
async fn another_node_reads_what_was_stored_and_goes_on_after_it() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let objects = Objects::new(Arc::new(InMemory::new()));
    let (here, there) = (of_a_node(one.path(), &objects), of_a_node(two.path(), &objects));
    let later = Utc::now() + Duration::from_secs(60);
    let long = "x".repeat(CHUNK_BYTES / 2);
    let journal = here.open("apps/a", 10_000_000);
    for n in 0..5 {
        journal.write(later, "web.1", format!("{n} {long}"));
        journal.store().await.unwrap();
    }
    drop((journal, one));

    let journal = there.open("apps/a", 10_000_000);
    journal.follow_on().await.unwrap();
    let own = journal.write(Utc::now(), "web.1", "of a node whose clock is late".to_owned());
    let all = journal.read(Range::After(0), 100).await.unwrap();
    assert!(all.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(all.last().unwrap(), &own);
    let numbers: Vec<&str> = all.iter().filter_map(|line| line.text.split(' ').next()).collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "4", "of"]);
    let after = journal.read(Range::After(all[2].id), 2).await.unwrap();
    assert_eq!(after, all[3..5]);
    assert_eq!(journal.read(Range::Last, 3).await.unwrap(), all[3..]);
    there.remove("apps/a").await.unwrap();
    assert!(journal.read(Range::Last, 3).await.unwrap().is_empty());
}

#[actix_rt::test]
async fn the_object_store_lets_the_oldest_lines_go_too() {
    let (folder, journals) = journals();
    let bytes = CHUNK_BYTES as u64;
    let journal = journals.open("a", bytes);
    for _ in 0..8 {
        journal.write(Utc::now(), "web.1", "x".repeat(CHUNK_BYTES));
        journal.store().await.unwrap();
    }
    let stored = journals.chunks.read(Path::new("a"), Range::After(0), 100, None).await.unwrap();
    assert!((1..=2).contains(&stored.len()), "{}", stored.len());
    drop(folder);
}
