//! Building and running apps.

use std::{path::Path, time::Duration};

use callboard_deploy::{
    DeploySettings, InstanceSettings,
    build::{cache::CacheLimits, executor::BuildSettings, fetch::FetchSettings},
    process::{Launcher, trampoline::RunAs},
};

use super::{
    reader::Reader,
    value::{Size, Value},
};

/// Settings of deploy, before the node knows how it starts children and where apps answer.
#[derive(Debug)]
pub struct DeployChoice {
    /// `CALLBOARD_BUILDERS`: builds at the same time.
    pub builders: usize,
    /// `CALLBOARD_BUILD_TIME`: of one build.
    pub build_time: Duration,
    /// `CALLBOARD_BUILD_SIZE`: of all that one build keeps.
    pub build_size: Size,
    /// `CALLBOARD_BUILD_MEMORY`: of all processes of one build together.
    pub build_memory: Size,
    /// `CALLBOARD_BUILD_CACHE`: of one cache of an app.
    pub build_cache: Size,
    /// `CALLBOARD_BUILD_CACHES`: of all caches of the node.
    pub build_caches: Size,
    /// `CALLBOARD_BUILD_ENVIRONMENT`: variables of the node that builds see.
    pub build_environment: Vec<String>,
    /// `CALLBOARD_ALLOW_PRIVATE_SOURCES`: git from http:// and private addresses.
    pub allow_private_sources: bool,
    /// `CALLBOARD_RUN_AS`: the user of builds and apps.
    pub run_as: Option<RunAs>,
    /// `CALLBOARD_RELEASE_TIME`: of one run of a release command.
    pub release_time: Duration,
    /// `CALLBOARD_INSTANCE_MEMORY`: of one instance, unless its project says.
    pub memory: Size,
    /// `CALLBOARD_INSTANCE_DISK`: of one instance's own folders.
    pub disk: Size,
    /// `CALLBOARD_HEALTH_GRACE`: until a new instance is healthy, unless its project says.
    pub grace: Duration,
    /// `CALLBOARD_DRAIN`: for requests of an instance that gets no new ones.
    pub drain: Duration,
    /// `CALLBOARD_STOP_GRACE`: for an instance to end after SIGTERM.
    pub stop_grace: Duration,
    /// `CALLBOARD_RELEASES_KEPT`: besides the one that serves.
    pub releases_kept: u32,
}

impl Value for RunAs {
    fn parse(text: &str) -> Result<Self, String> {
        let parsed = text
            .trim()
            .split_once(':')
            .and_then(|(uid, gid)| Some(Self { uid: uid.parse().ok()?, gid: gid.parse().ok()? }));
        parsed.ok_or_else(|| "<user id>:<group id>, such as 65534:65534".to_owned())
    }
    fn show(&self) -> String {
        format!("{}:{}", self.uid, self.gid)
    }
}

impl DeployChoice {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let second = Duration::from_secs(1);
        let instances = InstanceSettings::default();
        Self {
            builders: reader.within("CALLBOARD_BUILDERS", "Builds at the same time.", 2, 1..=64),
            build_time: reader.within(
                "CALLBOARD_BUILD_TIME",
                "How long a build may take.",
                900 * second,
                second..=7200 * second,
            ),
            build_size: reader.within(
                "CALLBOARD_BUILD_SIZE",
                "What a build may keep: the source and all it makes of it, its `HOME` and `TMPDIR` included.",
                Size::mib(2048),
                Size::mib(1)..=Size::mib(1024 * 1024),
            ),
            build_memory: reader.within(
                "CALLBOARD_BUILD_MEMORY",
                "Memory of one build, all of its processes together.",
                Size::mib(4096),
                Size::mib(64)..=Size::mib(1024 * 1024),
            ),
            build_cache: reader.within(
                "CALLBOARD_BUILD_CACHE",
                "What a build may leave to the next one of the same app: what tools have downloaded, and folders such as `.next/cache`. With 0 nothing is kept.",
                Size::mib(1024),
                Size::mib(0)..=Size::mib(1024 * 1024),
            ),
            build_caches: reader.within(
                "CALLBOARD_BUILD_CACHES",
                "The same of all apps together; what was used longest ago makes room.",
                Size::mib(10 * 1024),
                Size::mib(0)..=Size::mib(16 * 1024 * 1024),
            ),
            build_environment: reader.value(
                "CALLBOARD_BUILD_ENVIRONMENT",
                "Variables of the node that builds see besides those that say which certificates to trust, such as HTTPS_PROXY.",
                Vec::new(),
            ),
            allow_private_sources: reader.value(
                "CALLBOARD_ALLOW_PRIVATE_SOURCES",
                "Whether git repositories may be at http:// and private addresses; for development only.",
                false,
            ),
            run_as: reader.value(
                "CALLBOARD_RUN_AS",
                "The user and group that builds and apps run as, when the node runs as root: <user id>:<group id>; nobody where that user can reach the data folder.",
                None,
            ),
            release_time: reader.within(
                "CALLBOARD_RELEASE_TIME",
                "How long the release command of an app may take.",
                instances.release_time,
                second..=7200 * second,
            ),
            memory: reader.within(
                "CALLBOARD_INSTANCE_MEMORY",
                "Memory of one instance, unless its project says.",
                Size::mib(u64::from(instances.memory_mib)),
                Size::mib(32)..=Size::mib(65_536),
            ),
            disk: reader.within(
                "CALLBOARD_INSTANCE_DISK",
                "What one instance may keep in its own folders, its release included.",
                Size::mib(2048),
                Size::mib(1)..=Size::mib(1024 * 1024),
            ),
            grace: reader.within(
                "CALLBOARD_HEALTH_GRACE",
                "How long a new instance may take until it is healthy, unless its project says.",
                instances.grace,
                second..=600 * second,
            ),
            drain: reader.within(
                "CALLBOARD_DRAIN",
                "How long requests may take to finish once an instance gets no new ones.",
                instances.drain,
                Duration::ZERO..=3600 * second,
            ),
            stop_grace: reader.within(
                "CALLBOARD_STOP_GRACE",
                "How long an instance may take to end after SIGTERM.",
                instances.stop_grace,
                Duration::ZERO..=600 * second,
            ),
            releases_kept: reader.within(
                "CALLBOARD_RELEASES_KEPT",
                "Releases whose archive is kept, besides the one that serves.",
                20,
                1..=10_000,
            ),
        }
    }

    /// As deploy takes it.
    pub fn settings(
        &self,
        folder: &Path,
        url_template: &str,
        upload_limit: u64,
        launcher: &Launcher,
        packer: Vec<String>,
    ) -> DeploySettings {
        let mut build = BuildSettings::new(launcher.clone(), packer);
        build.limits.time = self.build_time;
        build.limits.size = self.build_size.0;
        build.limits.memory = self.build_memory.0;
        build.pass_through.extend(self.build_environment.iter().cloned());
        build.run_as = self.run_as;
        let mut fetch = FetchSettings::new(launcher.clone());
        fetch.allow_private_sources = self.allow_private_sources;
        let instances = InstanceSettings {
            grace: self.grace,
            drain: self.drain,
            stop_grace: self.stop_grace,
            release_time: self.release_time,
            memory_mib: u32::try_from(self.memory.0 / Size::mib(1).0).unwrap_or(u32::MAX),
            disk_bytes: self.disk.0,
            ..InstanceSettings::default()
        };
        DeploySettings {
            builders: self.builders,
            caches: CacheLimits { app: self.build_cache.0, node: self.build_caches.0, ..CacheLimits::default() },
            instances,
            releases_kept: self.releases_kept,
            source_bytes: upload_limit,
            ..DeploySettings::new(folder, url_template, fetch, build)
        }
    }
}
