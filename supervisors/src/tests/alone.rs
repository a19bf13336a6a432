//! A process of its own, for a test of what a whole process has.

use std::{env, process::Command};

const ALONE: &str = "CALLBOARD_TEST_ALONE";

/// True in a process that runs nothing but this test. Elsewhere it starts that process, and fails unless the test
/// succeeds there.
pub fn alone(test: &str) -> bool {
    if env::var_os(ALONE).is_some_and(|name| name == test) {
        return true;
    }
    // This very program, also when its file has been replaced since.
    let mut process = Command::new("/proc/self/exe");
    let output = process.args(["--exact", test, "--nocapture"]).env(ALONE, test).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    // A name that is not the test's runs none, which is a success as well.
    assert!(output.status.success() && stdout.contains(" 1 passed;"), "{stdout}{stderr}");
    false
}
