//! Logs on the disk and in the object store.

use std::io::Write as _;

use callboard_supervisors::fs;
use object_store::{
    memory::InMemory,
    throttle::{ThrottleConfig, ThrottledStore},
};
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
async fn a_link_in_the_place_of_a_log_is_neither_read_nor_written() {
    use std::os::unix::fs::symlink;
    let (folder, journals) = journals();
    let canary = journals.open("other", 1_000_000);
    canary.write(Utc::now(), "web.1", "of another app".to_owned());
    canary.read(Range::Last, 1).await.unwrap();
    let file = folder.path().join("other/current");
    let before = fs::read(&file).unwrap();
    fs::create_dir(folder.path().join("file")).unwrap();
    symlink(&file, folder.path().join("file/current")).unwrap();
    symlink(folder.path().join("other"), folder.path().join("folder")).unwrap();
    for name in ["file", "folder"] {
        let journal = journals.open(name, 1_000_000);
        journal.write(Utc::now(), "web.1", "own".to_owned());
        let read = journal.read_here(Range::Last, 9).await.unwrap_or_default();
        assert!(!texts(&read).contains(&"of another app"), "{name}");
        drop(journal);
        journals.remove(name).await.unwrap();
        assert_eq!(fs::read(&file).unwrap(), before, "{name}");
    }
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

#[actix_rt::test]
async fn what_a_node_that_ended_had_not_stored_is_handed_over_before_its_disk_forgets_it() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let objects = Objects::new(Arc::new(InMemory::new()));
    let (here, there) = (of_a_node(one.path(), &objects), of_a_node(two.path(), &objects));
    let (name, id) = (Path::new("apps").join(Uuid::from_u128(7).to_string()), Uuid::from_u128(7));
    let journal = here.open(&name, 1_000_000);
    let mut last = journal.write(Utc::now(), "web.1", "stored".to_owned());
    journal.read(Range::Last, 1).await.unwrap();
    journal.store().await.unwrap();
    (last.id, last.text) = (last.id + 1, "on the disk alone".to_owned());
    let mut file = File::options().append(true).open(one.path().join(&name).join("current")).unwrap();
    writeln!(file, "{}", serde_json::to_string(&last).unwrap()).unwrap();

    assert!(!here.store_local(&name, 1_000_000).await.unwrap(), "it is open");
    here.remove_local(&name, 1_000_000).await.unwrap();
    let read = async || texts(&there.open(&name, 1).read(Range::After(0), 9).await.unwrap()).join(", ");
    assert_eq!(
        (read().await.as_str(), here.on_disk(Path::new("apps")).await.unwrap()),
        ("stored", vec![id]),
        "it is open"
    );
    drop(journal);
    // The task that stores the line a moment later has it open too.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while here.open.lock().get(&name).is_some_and(|inner| inner.strong_count() > 0) {
        assert!(std::time::Instant::now() < deadline, "it is still open");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    here.store_local(&name, 1_000_000).await.unwrap();
    here.remove_local(&name, 1_000_000).await.unwrap();
    assert!(here.on_disk(Path::new("apps")).await.unwrap().is_empty(), "it is still there");
    assert_eq!(read().await, "stored, on the disk alone");
}

#[actix_rt::test]
async fn a_store_that_is_given_up_is_made_up_for_at_the_stop_and_all_logs_are_stored_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let wait = Duration::from_millis(300);
    let slow = ThrottleConfig { wait_put_per_call: wait, ..ThrottleConfig::default() };
    let store = Arc::new(ThrottledStore::new(InMemory::new(), slow));
    let journals = of_a_node(folder.path(), &Objects::new(store));
    let open: Vec<Journal> = (0..STORED_AT_A_TIME).map(|n| journals.open(n.to_string(), 1_000)).collect();
    for journal in &open {
        journal.write(Utc::now(), "web.1", "last words".to_owned());
    }
    // The caller is dropped in the middle.
    assert!(tokio::time::timeout(wait / 10, open[0].store()).await.is_err());
    let began = std::time::Instant::now();
    journals.store_all().await;
    assert!(began.elapsed() < wait * STORED_AT_A_TIME as u32 / 2, "{:?}", began.elapsed());
    for n in 0..STORED_AT_A_TIME {
        let stored = journals.chunks.read(Path::new(&n.to_string()), Range::After(0), 9, None).await.unwrap();
        assert_eq!(texts(&stored), ["last words"], "{n}");
    }
}

#[actix_rt::test]
async fn lines_that_come_faster_than_the_disk_takes_them_are_told_where_they_would_have_been() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::new(Arc::new(InMemory::new()));
    let journals = of_a_node(&folder.path().join("one"), &objects);
    let journal = journals.open("a", 100_000_000);
    // Nothing is written to the disk while this thread writes.
    let text = "x".repeat(64 * 1024);
    let written: Vec<LogLine> = (0..80).map(|_| journal.write(Utc::now(), "web.1", text.clone())).collect();
    let lines = journal.read(Range::Last, 1_000).await.unwrap();
    let kept = lines.len() - 1;
    assert!((60..70).contains(&kept), "{kept}");
    let notice = &lines[kept];
    assert_eq!(notice.text, format!("{} lines were dropped here: the node's disk is too slow", 80 - kept));
    assert_eq!((notice.id, notice.from.as_str()), (written[79].id, "platform"));
    let after = journal.write(Utc::now(), "web.1", "after".to_owned());
    assert_eq!(journal.read(Range::After(notice.id), 10).await.unwrap(), [after]);

    // Readers elsewhere get what was stored, with a notice that this is not all.
    journal.store().await.unwrap();
    let elsewhere = of_a_node(&folder.path().join("two"), &objects).open("a", 100_000_000);
    let lines = elsewhere.read(Range::Last, 1_000).await.unwrap();
    let notices: Vec<&str> = lines.iter().filter(|line| line.from == "platform").map(|line| &*line.text).collect();
    let [notice] = notices[..] else { panic!("{notices:?}") };
    let (dropped, why) = notice.split_once(" lines were dropped here: ").unwrap();
    assert_eq!(why, "only the node that wrote them has them on its disk");
    assert_eq!(dropped.parse::<usize>().unwrap() + lines.len() - 1, written.len() + 1);
}

#[actix_rt::test]
async fn lines_that_the_disk_did_not_take_are_told_when_it_takes_lines_again() {
    let (folder, journals) = journals();
    let in_the_way = folder.path().join("a/current");
    fs::create_dir_all(&in_the_way).unwrap();
    let journal = journals.open("a", 1_000_000);
    journal.write(Utc::now(), "web.1", "one".to_owned());
    journal.read_here(Range::Last, 10).await.unwrap_err();
    journal.write(Utc::now(), "web.1", "two".to_owned());
    journal.read_here(Range::Last, 10).await.unwrap_err();
    fs::remove_dir(&in_the_way).unwrap();
    journal.write(Utc::now(), "web.1", "three".to_owned());
    let lines = journal.read_here(Range::Last, 10).await.unwrap();
    assert_eq!(texts(&lines), ["2 lines were dropped here: the node's disk did not take them", "three"]);
}
