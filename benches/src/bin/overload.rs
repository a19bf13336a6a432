//! Overload of one domain: sign-ins, which cost 0.2 s of a processor each, arrive at five times the rate that auth can
//! serve. Its goodput, the time a refusal takes, and the 99th percentile of another domain's reads meanwhile.

use std::time::Duration;

use callboard_benches::{
    Outcome,
    load::{self, Answer},
    node::Node,
};
use serde_json::{Value, json};

const DURATION: Duration = Duration::from_secs(10);
const READS_PER_SECOND: f64 = 200.0;

fn main() -> Outcome {
    actix_rt::System::new().block_on(run())
}

async fn run() -> Outcome {
    let node = Node::start(None, false).await?;
    let project = node.post("/api/v1/projects", &json!({"name": "read-me"})).await?;
    let id = project.get("id").and_then(Value::as_str).ok_or("a project without an id")?;
    let read = format!(
        "GET /api/v1/projects/{id} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
        node.address, node.token
    );
    let credentials = json!({"email": "bench@example.com", "password": "a bench's long password"}).to_string();
    let sign_in = format!(
        "POST /api/v1/auth/login HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{credentials}",
        node.address,
        credentials.len()
    );
    let reads = || load::open_loop(node.address, read.clone().into_bytes(), READS_PER_SECOND, DURATION, 32);
    let sign_ins = |rate: f64| load::open_loop(node.address, sign_in.clone().into_bytes(), rate, DURATION, 512);

    let baseline = reads().await?;
    // The peak: the best goodput over offered rates around what two cores can hash.
    let mut peak = 0.0_f64;
    for rate in [3.0, 4.0, 5.0, 6.0, 8.0] {
        let goodput = goodput(&sign_ins(rate).await?);
        println!("offered {rate:>5.1}/s: {goodput:>5.2}/s signed in");
        peak = peak.max(goodput);
    }
    let (flood, during) = futures_util::try_join!(sign_ins(peak * 5.0), reads())?;
    let refused: Vec<Answer> = flood.iter().copied().filter(|answer| matches!(answer.status, 429 | 503)).collect();
    let odd = flood.iter().filter(|answer| !matches!(answer.status, 200 | 429 | 503 | 504)).count();
    let lost = during.iter().filter(|answer| answer.status != 200).count();
    let (before, under) = (milliseconds(&baseline), milliseconds(&during));
    println!("offered {:.1}/s, five times the peak of {peak:.2}/s, for {} s", peak * 5.0, DURATION.as_secs());
    println!("  goodput        {:>7.2} of the peak (goal 0.90: at least)", goodput(&flood) / peak);
    println!("  refusals       {:>7} with p99 {:.1} ms (goal 20: at most)", refused.len(), milliseconds(&refused));
    println!(
        "  project reads  p99 {before:.2} ms before, {under:.2} ms during: {:.2} (goal 1.5: at most)",
        under / before
    );
    println!("  failed reads   {lost}, sign-ins answered oddly {odd} (goal 0)");
    Ok(())
}

fn goodput(answers: &[Answer]) -> f64 {
    answers.iter().filter(|answer| answer.status == 200).count() as f64 / DURATION.as_secs_f64()
}

fn milliseconds(answers: &[Answer]) -> f64 {
    load::quantile(answers, 0.99).as_secs_f64() * 1_000.0
}
