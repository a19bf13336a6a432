//! `GET /api/v1/projects/{id}` with a token, on PostgreSQL: two nodes of Callboard and the bridge between them against a
//! NestJS gateway and its RabbitMQ microservice, and one node against the NestJS monolith. Each pair reads the same rows
//! of the same database with the same token, in turns in one run; the peers have the node's public key in memory.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use callboard_benches::{
    Outcome, broker,
    children::Running,
    cluster::Cluster,
    free_port, median,
    node::TemporaryDatabase,
    wrk::{self, Measured},
};
use serde_json::{Value, json};

const ROUNDS: usize = 5;
const CONNECTIONS: u32 = 64;
const DURATION: Duration = Duration::from_secs(5);
const ROWS: usize = 300;

fn main() -> Outcome {
    let peer = Nest::build()?;
    actix_rt::System::new().block_on(async {
        println!("GET /api/v1/projects/{{id}}, {CONNECTIONS} connections, median of {ROUNDS} rounds");
        pair(&peer).await?;
        monolith(&peer).await
    })
}

/// The peer's sources, installed and compiled.
struct Nest {
    folder: PathBuf,
}

impl Nest {
    fn build() -> Outcome<Self> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/nest");
        let target = std::env::current_exe()?;
        let target = target.ancestors().nth(2).ok_or("the program is in no target folder")?;
        let folder = target.join("peers/nest");
        fs::create_dir_all(folder.join("src"))?;
        for file in ["package.json", "package-lock.json", "tsconfig.json"] {
            fs::copy(sources.join(file), folder.join(file))?;
        }
        for file in fs::read_dir(sources.join("src"))? {
            let file = file?;
            fs::copy(file.path(), folder.join("src").join(file.file_name()))?;
        }
        let steps: [&[&str]; 2] =
            [&["ci", "--no-audit", "--no-fund", "--loglevel=error"], &["run", "--silent", "build"]];
        for arguments in steps {
            let status = Command::new("npm").args(arguments).current_dir(&folder).stdout(Stdio::null()).status();
            let status = status.map_err(|error| format!("npm can't be run ({error}); install Node.js 20 and npm"))?;
            if !status.success() {
                return Err(format!("npm {arguments:?} failed in {}", folder.display()).into());
            }
        }
        Ok(Self { folder })
    }

    fn start(&self, program: &str, environment: &[(&str, &str)]) -> Outcome<Running> {
        let mut command = Command::new("node");
        command.arg(self.folder.join("dist").join(program)).env("NODE_ENV", "production");
        Running::start(program, command.envs(environment.iter().copied()).stdout(Stdio::null()))
    }
}

async fn pair(peer: &Nest) -> Outcome {
    let database = TemporaryDatabase::create().await?;
    let outcome = pair_on(peer, &database.url()).await;
    database.remove().await?;
    outcome
}

async fn pair_on(peer: &Nest, database: &str) -> Outcome {
    let ours = Cluster::start(database, &["auth,organization", "all-but:auth,organization"]).await?;
    let key = public_key(&ours).await?;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let (queue, broker) = (format!("bench-{}", uuid::Uuid::now_v7().simple()), broker::url());
    let _service =
        peer.start("microservice.js", &[("DATABASE_URL", database), ("AMQP_URL", &broker), ("QUEUE", &queue)])?;
    let port = address.port().to_string();
    let mut gateway =
        peer.start("gateway.js", &[("AMQP_URL", &broker), ("QUEUE", &queue), ("PUBLIC_KEY", &key), ("PORT", &port)])?;
    gateway.wait_for(address)?;
    compare("two nodes and the bridge", "NestJS gateway + RabbitMQ microservice", &ours, address, 2.0).await
}

async fn monolith(peer: &Nest) -> Outcome {
    let database = TemporaryDatabase::create().await?;
    let outcome = monolith_on(peer, &database.url()).await;
    database.remove().await?;
    outcome
}

async fn monolith_on(peer: &Nest, database: &str) -> Outcome {
    let ours = Cluster::start(database, &["all"]).await?;
    let key = public_key(&ours).await?;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let port = address.port().to_string();
    let mut monolith =
        peer.start("monolith.js", &[("DATABASE_URL", database), ("PUBLIC_KEY", &key), ("PORT", &port)])?;
    monolith.wait_for(address)?;
    compare("one node", "NestJS monolith", &ours, address, 4.0).await
}

async fn public_key(ours: &Cluster) -> Outcome<String> {
    let keys = ours.get("/.well-known/jwks.json").await?;
    Ok(keys.pointer("/keys/0").ok_or("the node tells no key")?.to_string())
}

async fn compare(what: &str, peer: &str, ours: &Cluster, theirs: SocketAddr, goal: f64) -> Outcome {
    let mut ids = Vec::new();
    for number in 0..ROWS {
        let body = json!({"name": format!("seed-{number}"), "description": "a row to read"});
        let project = ours.post("/api/v1/projects", &body).await?;
        ids.push(project.get("id").and_then(Value::as_str).ok_or("a project without an id")?.to_owned());
    }
    let script = script(ours.folder(), &ids)?;
    let authorization = format!("Bearer {}", ours.token);
    let measure = |address: SocketAddr| -> Outcome<Measured> {
        let headers = [("Authorization", authorization.as_str())];
        let measured = wrk::run(&format!("http://{address}"), Some(&script), &headers, CONNECTIONS, DURATION)?;
        if measured.failed > 0 {
            return Err(format!("{} requests failed at {address}", measured.failed).into());
        }
        Ok(measured)
    };
    // Once before, so that both are warm.
    measure(ours.gateway())?;
    measure(theirs)?;
    let (mut of_ours, mut of_theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_ours.push(measure(ours.gateway())?);
        of_theirs.push(measure(theirs)?);
    }
    let rate = |runs: &[Measured]| median(runs.iter().map(|run| run.requests_per_second).collect());
    let p99 = |runs: &[Measured]| median(runs.iter().map(|run| run.p99_milliseconds).collect());
    println!("  callboard, {what:<32} {:>9.0} requests/s   p99 {:>7.2} ms", rate(&of_ours), p99(&of_ours));
    println!("  {peer:<43} {:>9.0} requests/s   p99 {:>7.2} ms", rate(&of_theirs), p99(&of_theirs));
    println!("  ratio {:>47.2} (goal {goal}: at least)", rate(&of_ours) / rate(&of_theirs));
    Ok(())
}

fn script(folder: &Path, ids: &[String]) -> Outcome<PathBuf> {
    let path = folder.join("get.lua");
    let text = format!(
        "local ids = {{\"{}\"}}\nlocal at = 0\nrequest = function()\n  at = at % #ids + 1\n  \
         return wrk.format(\"GET\", \"/api/v1/projects/\" .. ids[at])\nend\n",
        ids.join("\",\"")
    );
    fs::File::create(&path)?.write_all(text.as_bytes())?;
    Ok(path)
}
