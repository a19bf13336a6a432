//! The packing child, with the rights of the build and its limits.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use callboard_supervisors::BlockingPool;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    PackageError, Packed,
    receive::{ReceiveError, receive},
    write::Order,
};
use crate::{
    build::executor::BuildSettings,
    folder::Dir,
    logs::{last_words::LastLines, output::LineSink},
    process::{CgroupLimits, End, Ended, How, Job, Program, Share, Streams, run, trampoline::Launch},
};

/// Process limit of the packing child.
const PROCESSES: u64 = 16;
const OPEN_FILES: u64 = 1_024;

/// An order to pack.
pub(crate) struct Packing<'a> {
    /// The source, opened before anything was built.
    pub(crate) source: Dir,
    /// Its path.
    pub(crate) path: &'a Path,
    /// The folder in it that becomes the release.
    pub(crate) root: &'a Path,
    /// The only folder of it that the release holds, at the same path; all of it when absent.
    pub(crate) only: Option<&'a Path>,
    /// The file to create, in a folder of the node's own.
    pub(crate) target: PathBuf,
}

/// Packs the result of a build. The child that reads it runs as the build's own user and can open no more than the
/// build could, so that nothing the build has left makes it read anything else.
///
/// # Errors
/// See [`PackageError`]. There is no file then.
pub(crate) async fn pack_by_child(
    packing: Packing<'_>,
    settings: &BuildSettings,
    pool: &BlockingPool,
    cancel: &CancellationToken,
) -> Result<Packed, PackageError> {
    let limits = &settings.limits;
    let order = serde_json::to_string(&Order { root: packing.root.to_owned(), only: packing.only.map(Path::to_owned) })
        .map_err(io::Error::from)?;
    let argv: Vec<OsString> = settings.packer.iter().map(OsString::from).chain([order.into()]).collect();
    let (from, to) = io::pipe()?;
    let said = Arc::new(Mutex::new(LastLines::default()));
    let sink = LineSink::new({
        let said = said.clone();
        move |line| said.lock().push(&line.text)
    });
    let program = Program {
        id: Uuid::now_v7(),
        launch: Launch {
            open_files: OPEN_FILES,
            data: Some(limits.memory),
            run_as: settings.run_as,
            own: vec![packing.path.to_owned()],
            nice: Share::Builds.nice(),
            ..Launch::default()
        },
        limits: CgroupLimits { processes: PROCESSES, memory: limits.memory, cpus: None, share: Share::Builds },
        argv,
        environment: Vec::new(),
        streams: Streams { stdin: Some(packing.source.into()), stdout: Some(to.into()) },
    };
    let job = Job {
        launcher: &settings.launcher,
        program,
        deadline: Instant::now() + limits.time,
        output: limits.output.clone(),
        grace: limits.grace,
    };
    let child = run(job, &sink, cancel, None);
    let received = async {
        let (folder, limits) = (packing.target.parent().unwrap_or(Path::new("")).to_owned(), limits.clone());
        pool.run(None, move || receive(from, &folder, &limits)).await
    };
    let (end, received) = tokio::join!(child, received);
    let received = match received.map_err(PackageError::Fault)? {
        // The child sees only a closed pipe.
        Err(ReceiveError::TooLarge(sentence)) => return Err(PackageError::Refused(sentence)),
        Err(ReceiveError::Disk(error)) => return Err(error.into()),
        other => other,
    };
    match end? {
        End::Exited(Ended { how: How::Status(0), .. }) => {}
        End::Exited(Ended { how, .. }) => {
            let sentence = said.lock().lines().pop();
            return Err(PackageError::Refused(sentence.unwrap_or_else(|| format!("packing ended with {how}"))));
        }
        End::OutOfMemory | End::TooManyProcesses => {
            return Err(PackageError::Refused("packing was stopped: it used more than it may".to_owned()));
        }
        End::TimedOut => return Err(PackageError::TimedOut(limits.time)),
        End::Cancelled => return Err(PackageError::Cancelled),
        End::Refused(sentence) => return Err(PackageError::Refused(format!("packing was stopped: {sentence}"))),
    }
    let received = received.map_err(|error| PackageError::Refused(error.to_string()))?;
    let target = packing.target;
    pool.run(None, move || received.keep(&target)).await.map_err(PackageError::Fault)?
}
