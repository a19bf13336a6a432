//! PgBouncer in transaction mode, as a child process of the test.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use url::Url;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running pooler. It listens on a socket in a folder of its own, so it needs no port. Ended when dropped.
#[derive(Debug)]
pub struct Pooler {
    process: Child,
    folder: PathBuf,
    url: String,
}

impl Pooler {
    /// A pooler before the database of `url`, with this many connections to it for all of its clients.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn before(url: &str, connections: u32) -> Self {
        Self::start(url, connections).unwrap_or_else(|error| panic!("pgbouncer does not start: {error}"))
    }

    fn start(url: &str, connections: u32) -> Result<Self, Box<dyn std::error::Error>> {
        let server = Url::parse(url)?;
        let folder = std::env::temp_dir().join(format!("callboard-pooler-{}", Uuid::now_v7().simple()));
        fs::create_dir(&folder)?;
        // The pooler's user must be able to listen there.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        let database = server.path().trim_start_matches('/');
        let user = if server.username().is_empty() { "postgres" } else { server.username() };
        let password = server.password().map(|password| format!(" password={password}")).unwrap_or_default();
        let socket = server.query_pairs().find(|(name, _)| name == "host").map(|(_, host)| host.into_owned());
        let host = socket.unwrap_or_else(|| server.host_str().unwrap_or("127.0.0.1").to_owned());
        let port = server.port().unwrap_or(5432);
        let configuration = format!(
            "[databases]\n{database} = host={host} port={port} user={user}{password}\n[pgbouncer]\nunix_socket_dir = {}\n\
             listen_port = 6432\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {connections}\n\
             ignore_startup_parameters = extra_float_digits\n",
            folder.display()
        );
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, configuration)?;
        // On Debian it is in a folder that is in root's PATH only.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("pgbouncer");
        command.env("PATH", path).stdin(Stdio::null()).stderr(Stdio::null());
        if fs::metadata("/proc/self")?.uid() == 0 {
            // It refuses to run as root.
            command.args(["-u", "nobody"]);
        }
        let process = command.arg(&file).spawn()?;
        let url = format!("postgres://{user}@localhost:6432/{database}?host={}", folder.display());
        let pooler = Self { process, folder, url };
        let began = Instant::now();
        while !pooler.folder.join(".s.PGSQL.6432").exists() {
            if began.elapsed() > PATIENCE {
                return Err("it does not listen".into());
            }
            std::thread::yield_now();
        }
        Ok(pooler)
    }

    /// The URL for clients.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        for outcome in [self.process.kill(), self.process.wait().map(drop), fs::remove_dir_all(&self.folder)] {
            if let Err(error) = outcome {
                eprintln!("a pgbouncer is not ended in order: {error}");
            }
        }
    }
}
