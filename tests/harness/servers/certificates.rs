//! An authority of a test's own, which nobody else trusts, and the certificates of its servers.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::program;

/// The files of a server in its folder.
pub(super) const CERTIFICATE: &str = "certificate.pem";
pub(super) const KEY: &str = "key.pem";

/// Signs certificates of servers at 127.0.0.1.
pub struct Authority(TempDir);

impl Authority {
    pub fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        // By its name a certificate tells who signed it.
        let name = format!("/CN=authority {}", uuid::Uuid::now_v7());
        openssl(this.0.path(), &["-subj", &name, "-addext", "keyUsage=critical,keyCertSign"]);
        this
    }

    /// Its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.0.path().join(CERTIFICATE)
    }

    /// Makes a key and a certificate in the folder of a server.
    pub fn issue(&self, folder: &Path) {
        let (certificate, key) = (self.certificate(), self.0.path().join(KEY));
        let signer = ["-CA", certificate.to_str().unwrap(), "-CAkey", key.to_str().unwrap()];
        let names = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1"];
        openssl(folder, &[&["-subj", "/CN=server of a test"][..], &signer, &names].concat());
    }
}

/// Makes a certificate that holds for two days, with a key of its own.
fn openssl(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new(program("openssl", &[], "apt-get install openssl"));
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-keyout", KEY, "-out", CERTIFICATE]).args(arguments).current_dir(folder);
    let made = command.output().unwrap();
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
}
