//! Backup and restore, by the very scripts that the CronJobs of docker/kubernetes run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;

use crate::harness::servers::{Postgres, Redis};

/// The folder of backups, and the file with the server's URL beside it.
struct Backups {
    folder: TempDir,
    variable: &'static str,
    keep: u32,
}

impl Backups {
    fn of(url: &str, variable: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("url"), url).unwrap();
        Self { folder, variable, keep: 2 }
    }

    fn run(&self, script: &str, arguments: &[&Path]) -> Output {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/kubernetes/base/backup");
        let mut command = Command::new(scripts.join(script));
        command.args(arguments).env(self.variable, self.folder.path().join("url"));
        command.env("BACKUPS", self.folder.path()).env("KEEP", self.keep.to_string());
        // In a pod there is hardly room for anything but backups.
        command.env("TMPDIR", "/nonexistent").output().unwrap()
    }

    #[track_caller]
    fn succeed(&self, script: &str, arguments: &[&Path]) {
        let ran = self.run(script, arguments);
        assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    #[track_caller]
    fn fail(&self, script: &str, arguments: &[&Path]) -> String {
        let ran = self.run(script, arguments);
        assert!(!ran.status.success(), "{script} must fail");
        String::from_utf8(ran.stderr).unwrap()
    }

    /// The backups there are, the newest last.
    fn list(&self, end: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path()).unwrap().flatten().map(|entry| entry.path());
        let mut found: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|it| it == end)).collect();
        found.sort();
        found
    }
}

/// Everything in a database, as text; ours and a restored one must be the same.
async fn contents(url: &str) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let query = "SELECT coalesce(string_agg(line, E'\n' ORDER BY line), '') FROM (
        SELECT 'note ' || id || ' ' || encode(body, 'hex') || ' ' || at AS line FROM app.notes
        UNION ALL SELECT 'mark ' || id FROM marks
        UNION ALL SELECT 'constraint ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
                  WHERE connamespace IN ('app'::regnamespace, 'public'::regnamespace)
        UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname IN ('app', 'public')
        UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%') AS everything";
    sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn a_database_is_restored_as_it_was_backed_up() {
    let server = Postgres::start().await;
    let url = server.url();
    let backups = Backups::of(&url, "DATABASE_URL_FILE");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let made = "CREATE SCHEMA app;
        CREATE TABLE app.notes (id BIGINT PRIMARY KEY, body BYTEA NOT NULL, at TIMESTAMPTZ NOT NULL,
                                CONSTRAINT not_empty CHECK (length(body) > 0));
        CREATE INDEX notes_at ON app.notes (at) WHERE id > 10;
        CREATE TABLE marks (id BIGINT PRIMARY KEY);
        INSERT INTO marks SELECT generate_series(1, 10);
        INSERT INTO app.notes SELECT id, decode(md5(id::text), 'hex'), to_timestamp(id * 1000.001)
                              FROM generate_series(1, 5000) AS id";
    connection.execute(made).await.unwrap();
    let before = contents(&url).await;
    backups.succeed("backup-postgres", &[]);
    let dump = backups.list("dump").pop().expect("a dump");

    // Rows change and go, and a table and a schema come that the dump does not know.
    let changed = "UPDATE app.notes SET body = 'changed' WHERE id % 2 = 0; DELETE FROM app.notes WHERE id % 3 = 0;
        DELETE FROM marks; CREATE SCHEMA later; CREATE TABLE later.things (id BIGINT);
        ALTER TABLE app.notes DROP CONSTRAINT not_empty; DROP INDEX app.notes_at";
    connection.execute(changed).await.unwrap();
    let after = contents(&url).await;
    assert_ne!(before, after);

    let refusal = backups.fail("restore-postgres", &[&dump]);
    assert!(refusal.contains("1 others are connected"), "{refusal}");
    connection.close().await.unwrap();

    // A dump that is cut short changes nothing.
    let whole = fs::read(&dump).unwrap();
    let cut = backups.folder.path().join("postgres-1.dump.cut");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let refusal = backups.fail("restore-postgres", &[&cut]);
    assert!(refusal.contains("pg_restore"), "{refusal}");
    assert_eq!(contents(&url).await, after);

    backups.succeed("restore-postgres", &[&dump]);
    assert_eq!(contents(&url).await, before);
}

/// Sets the one number that a database keeps, or tells it.
async fn number(url: &str, set: Option<i64>) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    if let Some(number) = set {
        connection.execute("CREATE TABLE IF NOT EXISTS number (kept BIGINT)").await.unwrap();
        connection.execute("DELETE FROM number").await.unwrap();
        sqlx::query("INSERT INTO number VALUES ($1)").bind(number).execute(&mut connection).await.unwrap();
    }
    let number = sqlx::query_scalar("SELECT kept FROM number").fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    number
}

#[tokio::test]
async fn a_domain_s_own_database_is_backed_up_too_and_goes_back_to_where_it_was() {
    let server = Postgres::start().await;
    let shared = server.url();
    let mut connection = PgConnection::connect(&shared).await.unwrap();
    connection.execute("CREATE DATABASE auth").await.unwrap();
    connection.close().await.unwrap();
    let mut own = url::Url::parse(&shared).unwrap();
    own.set_path("auth");
    let backups = Backups::of(&shared, "DATABASE_URL_FILE");
    let own_file = backups.folder.path().join("auth-database-url");
    fs::write(&own_file, own.as_str()).unwrap();
    number(&shared, Some(1)).await;
    number(own.as_str(), Some(2)).await;
    backups.succeed("backup-postgres", &[]);
    let dumps = backups.list("dump");
    let named =
        |prefix: &str| dumps.iter().find(|dump| dump.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    assert_eq!(dumps.len(), 2, "{dumps:?}");
    let (of_shared, of_own) = (named("postgres-2").unwrap(), named("auth-2").unwrap());

    number(&shared, Some(-1)).await;
    number(own.as_str(), Some(-2)).await;
    backups.succeed("restore-postgres", &[of_own]);
    assert_eq!((number(&shared, None).await, number(own.as_str(), None).await), (-1, 2));
    backups.succeed("restore-postgres", &[of_shared]);
    assert_eq!((number(&shared, None).await, number(own.as_str(), None).await), (1, 2));

    // One that can't be dumped is told, and the others are dumped all the same. Where its database is not known any more,
    // its dump goes nowhere.
    fs::write(&own_file, "postgres://127.0.0.1:1/nowhere").unwrap();
    for dump in &dumps {
        fs::remove_file(dump).unwrap();
    }
    backups.fail("backup-postgres", &[]);
    assert_eq!(backups.list("dump").len(), 1);
    fs::write(of_own, fs::read(&backups.list("dump")[0]).unwrap()).unwrap();
    fs::remove_file(&own_file).unwrap();
    let refusal = backups.fail("restore-postgres", &[of_own]);
    assert!(refusal.contains("is of the database of auth"), "{refusal}");
    assert_eq!(number(&shared, None).await, 1);
}

#[tokio::test]
async fn only_the_newest_backups_are_kept_and_a_failed_one_gets_no_name() {
    let mut server = Postgres::start().await;
    let backups = Backups::of(&server.url(), "DATABASE_URL_FILE");
    for day in ["20260101T000000Z", "20260102T000000Z", "20260103T000000Z"] {
        fs::write(backups.folder.path().join(format!("postgres-{day}.dump")), "old").unwrap();
    }
    server.stop().await;
    backups.fail("backup-postgres", &[]);
    assert_eq!(backups.list("dump").len(), 3, "none was removed for one that failed");
    server.start_again().await;
    backups.succeed("backup-postgres", &[]);
    let left = backups.list("dump");
    assert_eq!(left.len(), 2);
    assert!(left[0].to_str().unwrap().contains("20260103"), "{left:?}");
    assert!(backups.list("part").is_empty());
}

#[tokio::test]
async fn redis_is_restored_as_it_was_backed_up() {
    let mut server = Redis::start().await;
    let backups = Backups::of(&server.url(), "REDIS_URL_FILE");
    for number in 0..50 {
        assert_eq!(server.ask(&format!("SET key:{number} value-{number}")).await, "+OK");
    }
    assert_eq!(server.ask("SET short lived EX 1000").await, "+OK");
    backups.succeed("backup-redis", &[]);
    let snapshot = backups.list("rdb").pop().expect("a snapshot");
    server.flush().await;

    let refusal = backups.fail("restore-redis", &[&snapshot, server.data()]);
    assert!(refusal.contains("stop it first"), "{refusal}");
    server.stop().await;
    let broken = backups.folder.path().join("broken");
    fs::write(&broken, "REDIS0009 and no more").unwrap();
    backups.fail("restore-redis", &[&broken, server.data()]);
    backups.succeed("restore-redis", &[&snapshot, server.data()]);
    server.start_again().await;
    assert_eq!(server.ask("DBSIZE").await, ":51");
    assert_eq!(server.ask("EXISTS key:0 key:49 short").await, ":3");
    let left: i64 = server.ask("TTL short").await.trim_start_matches(':').parse().unwrap();
    assert!((900..=1000).contains(&left), "{left} s");
}
