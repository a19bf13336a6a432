//! What an idle `callboard dev` with its sample app stopped, and then with a thousand projects, keeps resident.

use std::time::{Duration, Instant};

use callboard_benches::{Outcome, node::Node};
use serde_json::{Value, json};

const GOAL_MIB: f64 = 64.0;

fn main() -> Outcome {
    actix_rt::System::new().block_on(run())
}

async fn run() -> Outcome {
    let node = Node::start(None, true).await?;
    stop_sample(&node).await?;
    // Let what only the start needs be given back.
    let settled = Instant::now() + Duration::from_secs(5);
    tokio::time::sleep_until(settled.into()).await;
    let idle = resident_mib(node.pid())?;
    for number in 0..1000 {
        node.post("/api/v1/projects", &json!({"name": format!("idle-{number}")})).await?;
    }
    let with_projects = resident_mib(node.pid())?;
    let listed = node.get("/api/v1/projects?limit=100").await?;
    let rows = listed.get("items").and_then(Value::as_array).map_or(0, Vec::len);
    println!(
        "idle                      {idle:>6.1} MiB resident: {:.2} of the goal of {GOAL_MIB} MiB",
        idle / GOAL_MIB
    );
    println!("after 1,000 new projects  {with_projects:>6.1} MiB ({rows} of them listed at once)");
    Ok(())
}

/// Waits until the sample app serves, and stops it.
async fn stop_sample(node: &Node) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !node.command_line(&["ps", "--app", "sample"]).is_ok_and(|shown| shown.contains("healthy")) {
        if Instant::now() > deadline {
            return Err("the sample app did not start within 20 s".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    node.command_line(&["stop", "--app", "sample"]).map(drop)
}

fn resident_mib(pid: u32) -> Outcome<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
