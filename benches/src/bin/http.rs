//! `GET` and `PATCH /api/v1/projects/{id}` and `POST /api/v1/projects` on PostgreSQL, through the gateway and through a bare
//! actix-web and sqlx server: requests a second and the 99th percentile, in turns, median of the rounds.
//!
//! The bare server's POST is one insert. Ours is a saga of three transactions in two domains, with its log and its event
//! (`ARCHITECTURE.md`): a fourth of the inserts is what it should reach. Ours of PATCH tells of the change, too: its event is
//! written in the same transaction and then published.

use std::{io::Write, net::SocketAddr, path::PathBuf, time::Duration};

use callboard_benches::{
    Outcome, bare,
    children::Running,
    free_port, median,
    node::{Node, TemporaryDatabase},
    wrk::{self, Measured},
};
use serde_json::{Value, json};

const ROUNDS: usize = 5;
const CONNECTIONS: u32 = 64;
const DURATION: Duration = Duration::from_secs(5);

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, address, database, modulus, exponent] = arguments.as_slice()
        && role == "bare"
    {
        return bare::serve(address.parse()?, database, modulus, exponent);
    }
    actix_rt::System::new().block_on(compare())
}

async fn compare() -> Outcome {
    let database = TemporaryDatabase::create().await?;
    let outcome = compare_on(&database.url()).await;
    database.remove().await?;
    outcome
}

async fn compare_on(database: &str) -> Outcome {
    let node = Node::start(Some(database), false).await?;
    let jwks = node.get("/.well-known/jwks.json").await?;
    let key = |field: &str| {
        let value = jwks.pointer("/keys/0").and_then(|key| key.get(field)).and_then(Value::as_str);
        value.map(str::to_owned).ok_or("the node tells no key")
    };
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let mut bare = Running::start_self(&["bare", &address.to_string(), database, &key("n")?, &key("e")?])?;
    bare.wait_for(address)?;

    let mut ids = Vec::new();
    for number in 0..1000 {
        let body = json!({"name": format!("seed-{number}"), "description": "a row to read"});
        let project = node.post("/api/v1/projects", &body).await?;
        ids.push(project.get("id").and_then(Value::as_str).ok_or("a project without an id")?.to_owned());
    }

    println!("{CONNECTIONS} connections, {} s a round, median of {ROUNDS} rounds", DURATION.as_secs());
    let get = script(node.folder(), "get", &get_script(&ids))?;
    compare_route("GET /api/v1/projects/{id}", &node, address, &get, (0.95, 1.3))?;
    let patch = script(node.folder(), "patch", &patch_script(&ids))?;
    compare_route("PATCH /api/v1/projects/{id}", &node, address, &patch, (0.85, 1.3))?;
    let post = script(node.folder(), "post", POST_SCRIPT)?;
    compare_route("POST /api/v1/projects", &node, address, &post, (0.25, 4.0))
}

fn compare_route(name: &str, node: &Node, bare: SocketAddr, script: &std::path::Path, goals: (f64, f64)) -> Outcome {
    let authorization = format!("Bearer {}", node.token);
    let measure = |address: SocketAddr| -> Outcome<Measured> {
        let headers = [("Authorization", authorization.as_str())];
        let measured = wrk::run(&format!("http://{address}"), Some(script), &headers, CONNECTIONS, DURATION)?;
        if measured.failed > 0 {
            return Err(format!("{} requests of {name} failed at {address}", measured.failed).into());
        }
        Ok(measured)
    };
    measure(node.address)?;
    measure(bare)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(measure(node.address)?);
        theirs.push(measure(bare)?);
    }
    let rate = |runs: &[Measured]| median(runs.iter().map(|run| run.requests_per_second).collect());
    let p99 = |runs: &[Measured]| median(runs.iter().map(|run| run.p99_milliseconds).collect());
    println!("{name}");
    println!("  callboard {:>9.0} requests/s   p99 {:>6.2} ms", rate(&ours), p99(&ours));
    println!("  bare      {:>9.0} requests/s   p99 {:>6.2} ms", rate(&theirs), p99(&theirs));
    println!(
        "  ratio     {:>9.2} (goal {}: at least)   p99 {:>6.2} (goal {}: at most)",
        rate(&ours) / rate(&theirs),
        goals.0,
        p99(&ours) / p99(&theirs),
        goals.1
    );
    Ok(())
}

fn script(folder: &std::path::Path, name: &str, text: &str) -> Outcome<PathBuf> {
    let path = folder.join(format!("{name}.lua"));
    std::fs::File::create(&path)?.write_all(text.as_bytes())?;
    Ok(path)
}

fn get_script(ids: &[String]) -> String {
    format!(
        "local ids = {{\"{}\"}}\nlocal at = 0\nrequest = function()\n  at = at % #ids + 1\n  \
         return wrk.format(\"GET\", \"/api/v1/projects/\" .. ids[at])\nend\n",
        ids.join("\",\"")
    )
}

/// Each row is changed in turn, so that no two requests wait for one another.
fn patch_script(ids: &[String]) -> String {
    format!(
        "local ids = {{\"{}\"}}\nlocal at = 0\n\
         function init(arguments)\n  wrk.headers[\"Content-Type\"] = \"application/json\"\nend\n\
         request = function()\n  at = at % #ids + 1\n  \
         return wrk.format(\"PATCH\", \"/api/v1/projects/\" .. ids[at], nil, '{{\"description\":\"' .. at .. '\"}}')\nend\n",
        ids.join("\",\"")
    )
}

/// Names are unique over threads, rounds and servers.
const POST_SCRIPT: &str = r#"
local counter = 0
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end
function init(arguments)
  math.randomseed(os.time() * 1000 + number)
  run = string.format("%x%x", math.random(0, 2^30), math.random(0, 2^30))
  wrk.headers["Content-Type"] = "application/json"
end
request = function()
  counter = counter + 1
  local body = string.format('{"name":"p-%s-%d-%d","description":"a row to write"}', run, number, counter)
  return wrk.format("POST", "/api/v1/projects", nil, body)
end
"#;
