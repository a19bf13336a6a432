//! Settings of the deploy domain, filled in by the binary.

use std::{path::PathBuf, time::Duration};

use callboard_supervisors::Backoff;

use crate::build::{archive, cache::CacheLimits, executor::BuildSettings, fetch::FetchSettings};

/// Settings of the domain. Each bound has a default.
#[derive(Clone)]
pub struct DeploySettings {
    /// The domain's folder of work in progress, running instances and logs; created if it does not exist.
    pub folder: PathBuf,
    /// URL of an app; `{app}` stands for its name: `http://{app}.localhost:8080`.
    pub url_template: String,
    /// The largest upload, in bytes. Default: 512 MiB.
    pub source_bytes: u64,
    /// Limits of an uploaded archive.
    pub archive: archive::Limits,
    /// Settings of fetching git repositories.
    pub fetch: FetchSettings,
    /// Settings of builds.
    pub build: BuildSettings,
    /// Bounds of what is kept between the builds of an app.
    pub caches: CacheLimits,
    /// Builds at the same time. Default: 2.
    pub builders: usize,
    /// Settings of rollouts and instances.
    pub instances: InstanceSettings,
    /// Half the size of one app's run log, in bytes. Default: 4 MiB.
    pub app_log_bytes: u64,
    /// Half the size of one deployment's log, in bytes. Default: 2 MiB.
    pub build_log_bytes: u64,
    /// Releases whose archive is kept, besides the one that serves. Default: 20.
    pub releases_kept: u32,
    /// Deployments whose log is kept. Default: 50.
    pub build_logs_kept: u32,
    /// Uploads kept for another deployment. Default: 3.
    pub sources_kept: u32,
    /// Interval of removing logs from the node's own disk that it need not keep. Default: an hour.
    pub disk_swept_every: Duration,
}

/// Settings of rollouts and instances.
#[derive(Debug, Clone)]
pub struct InstanceSettings {
    /// New instances of a process type that a rollout starts at a time. Default: 1.
    pub surge: usize,
    /// Interval of checking a new instance's health. Default: 100 ms.
    pub probe_new_every: Duration,
    /// Interval of checking a healthy instance. Default: 10 s.
    pub probe_every: Duration,
    /// Time limit of a check. Default: 5 s.
    pub probe_timeout: Duration,
    /// How long a new instance may take until it is healthy, unless its project configures it. Default: 60 s.
    pub grace: Duration,
    /// How long a process without a port must run until it counts as healthy. Default: 1 s.
    pub settle: Duration,
    /// Failed checks in a row after which an instance gets no more requests. Default: 3.
    pub unhealthy_after: u32,
    /// Failed checks in a row after which an instance is restarted. Default: 6.
    pub restart_after: u32,
    /// How long open requests may take once an instance gets no new ones. Default: 30 s.
    pub drain: Duration,
    /// The same when the whole node stops. Default: 2 s.
    pub drain_at_stop: Duration,
    /// Time between SIGTERM and SIGKILL of an instance. Default: 10 s.
    pub stop_grace: Duration,
    /// Pauses before restarts after crashes. Default: 100 ms to 30 s.
    pub backoff: Backoff,
    /// How long the release command may take. Default: 10 minutes.
    pub release_time: Duration,
    /// Memory of one instance, in MiB, unless its project configures it. Default: 512.
    pub memory_mib: u32,
    /// Size limit of an instance's own folders, in bytes: the release, its home and its temporary files. Default: 2
    /// GiB.
    pub disk_bytes: u64,
}

impl Default for InstanceSettings {
    fn default() -> Self {
        Self {
            surge: 1,
            probe_new_every: Duration::from_millis(100),
            probe_every: Duration::from_secs(10),
            probe_timeout: Duration::from_secs(5),
            grace: Duration::from_secs(60),
            settle: Duration::from_secs(1),
            unhealthy_after: 3,
            restart_after: 6,
            drain: Duration::from_secs(30),
            drain_at_stop: Duration::from_secs(2),
            stop_grace: Duration::from_secs(10),
            backoff: Backoff::default(),
            release_time: Duration::from_secs(600),
            memory_mib: 512,
            disk_bytes: 2 * 1024 * 1024 * 1024,
        }
    }
}

impl DeploySettings {
    /// The defaults.
    pub fn new(
        folder: impl Into<PathBuf>,
        url_template: impl Into<String>,
        fetch: FetchSettings,
        build: BuildSettings,
    ) -> Self {
        Self {
            folder: folder.into(),
            url_template: url_template.into(),
            source_bytes: 512 * 1024 * 1024,
            archive: archive::Limits::default(),
            fetch,
            build,
            caches: CacheLimits::default(),
            builders: 2,
            instances: InstanceSettings::default(),
            app_log_bytes: 4 * 1024 * 1024,
            build_log_bytes: 2 * 1024 * 1024,
            releases_kept: 20,
            build_logs_kept: 50,
            sources_kept: 3,
            disk_swept_every: Duration::from_secs(3_600),
        }
    }

    /// The URL of the app of this name.
    #[must_use]
    pub fn url(&self, app: &str) -> String {
        self.url_template.replace("{app}", app)
    }

    /// The trash, on the same disk as instances and work in progress.
    #[must_use]
    pub fn trash_folder(&self) -> PathBuf {
        self.folder.join("trash")
    }

    /// Checks all settings.
    ///
    /// # Errors
    /// A sentence for each invalid one.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let instances = &self.instances;
        let rules = [
            (self.url_template.contains("{app}"), "deploy: the URL template must hold {app}"),
            ((1..=64).contains(&self.builders), "deploy: builders must be 1 to 64"),
            ((1..=100).contains(&instances.surge), "deploy: surge must be 1 to 100"),
            (instances.unhealthy_after >= 1, "deploy: unhealthy_after must be at least 1"),
            (
                instances.restart_after >= instances.unhealthy_after,
                "deploy: restart_after must be at least unhealthy_after",
            ),
            (instances.disk_bytes >= 1024 * 1024, "deploy: disk_bytes must be at least 1 MiB"),
            (!instances.probe_every.is_zero(), "deploy: probe_every must be longer than zero"),
            (!instances.probe_new_every.is_zero(), "deploy: probe_new_every must be longer than zero"),
            (self.releases_kept >= 1, "deploy: releases_kept must be at least 1"),
        ];
        let wrong: Vec<String> =
            rules.iter().filter(|(holds, _)| !holds).map(|(_, sentence)| (*sentence).to_owned()).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}
