//! wrk, the load generator of Debian's package of that name.

use std::{path::Path, process::Command, time::Duration};

use crate::Outcome;

/// What one run measured.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Answers a second.
    pub requests_per_second: f64,
    /// The time within which 99 % were answered, in milliseconds.
    pub p99_milliseconds: f64,
    /// Answers other than 2xx and 3xx.
    pub failed: u64,
}

/// One run: two threads and `connections` keep-alive connections for `duration`.
///
/// # Errors
/// When wrk is not installed or prints something else than expected.
pub fn run(
    url: &str,
    script: Option<&Path>,
    headers: &[(&str, &str)],
    connections: u32,
    duration: Duration,
) -> Outcome<Measured> {
    let mut command = Command::new("wrk");
    command.args(["-t2", &format!("-c{connections}"), &format!("-d{}s", duration.as_secs().max(1)), "--latency"]);
    for (name, value) in headers {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    if let Some(script) = script {
        command.arg("-s").arg(script);
    }
    let output = command
        .arg(url)
        .output()
        .map_err(|error| format!("wrk can't be run ({error}); install it: apt-get install wrk"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("wrk failed: {text}{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let after = |mark: &str| text.lines().find_map(|line| line.trim().strip_prefix(mark).map(str::trim));
    Ok(Measured {
        requests_per_second: after("Requests/sec:").ok_or("wrk told no rate")?.parse()?,
        p99_milliseconds: milliseconds(after("99%").ok_or("wrk told no percentiles")?)?,
        failed: after("Non-2xx or 3xx responses:").map_or(Ok(0), str::parse)?,
    })
}

fn milliseconds(text: &str) -> Outcome<f64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).ok_or("a time without its unit")?;
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        other => return Err(format!("wrk told a time in {other}").into()),
    };
    Ok(number.parse::<f64>()? * factor)
}
