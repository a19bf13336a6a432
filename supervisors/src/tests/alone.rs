//! A process of its own, for tests of process-wide state.

use std::{env, process::Command};

const ALONE: &str = "CALLBOARD_TEST_ALONE";

/// True in a process that runs only this test. Otherwise it starts that process, and fails unless the test succeeds
/// there.
pub fn alone(test: &str) -> bool {
    if env::var_os(ALONE).is_some_and(|name| name == test) {
        return true;
    }
    // This very binary, also when its file has been replaced since.
    let mut process = Command::new("/proc/self/exe");
    let output = process.args(["--exact", test, "--nocapture"]).env(ALONE, test).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    // A wrong name would run no test, which is a success too.
    assert!(output.status.success() && stdout.contains(" 1 passed;"), "{stdout}{stderr}");
    false
}
