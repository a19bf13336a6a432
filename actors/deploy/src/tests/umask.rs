//! A node of root whose umask lets nobody else in.

use std::{fs, os::unix::fs::PermissionsExt};

use nix::sys::stat::{Mode, umask};

use super::fixture::{Bench, on_sqlite, server};
use super::projects::Projects;
use crate::process::trampoline::RunAs;

const OTHER: RunAs = RunAs { uid: 65_534, gid: 65_534 };

#[actix_rt::test]
async fn apps_are_built_and_run_as_another_user_whatever_the_nodes_umask_is() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("only root runs children as somebody else; nothing is tested");
        return;
    }
    // Of this process, which is this test's alone.
    umask(Mode::from_bits_truncate(0o077));
    on_sqlite(async |databases, folder| {
        // The way to the node's folder is its operator's to open.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).unwrap();
        let bench = Bench::start_with(databases, folder, Projects::default(), |settings| {
            settings.build.run_as = Some(OTHER);
        })
        .await;
        let app = bench.create("shop");
        bench.configure(&app, |kept| kept.build.build_command = Some("id -u > VERSION".to_owned()));
        let deployment = bench.deploy(&app, &server("one")).await;
        let log = bench.build_log(&app, deployment.id).await;
        assert_eq!(bench.get(&app, "/").await.as_deref(), Ok("65534"), "{:?}\n{log}", deployment.error);
        let mode = |path: &str| fs::metadata(folder.join("deploy").join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(""), mode("work"), mode("instances"), mode("logs")], [0o711, 0o711, 0o711, 0o700]);
        bench.stop().await;
    })
    .await;
}
