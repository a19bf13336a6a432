//! The router against nginx: both proxy to the same instance, on the same machine, with kept connections and the same
//! headers added, in turns; requests a second, median of the rounds. The router listens as a node's does, with a guard at
//! each connection.
//!
//! nginx gets what serves it best: two workers, no access log, 64 kept connections to the instance, no end to them.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use actix_web::{App, HttpResponse, HttpServer, web};
use callboard_benches::{
    Outcome,
    children::Running,
    free_port, median,
    wrk::{self, Measured},
};
use callboard_http::{
    Edge, listen,
    router::{Router, Settings},
};
use callboard_platform::routing::{Backend, Route, RouteState, RoutingTable};

const ROUNDS: usize = 5;
const CONNECTIONS: u32 = 64;
const DURATION: Duration = Duration::from_secs(4);
const WORKERS: usize = 2;
const GOAL: f64 = 0.7;
const HOST: &str = "bench.localhost";

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["instance", address] => instance(address.parse()?),
        ["router", address, instance] => router(address.parse()?, instance.parse()?),
        _ => compare(),
    }
}

fn compare() -> Outcome {
    let [instance, router, nginx] = [address()?, address()?, address()?];
    let folder = Folder::new()?;
    let mut processes = vec![
        (Running::start_self(&["instance", &instance.to_string()])?, instance),
        (Running::start_self(&["router", &router.to_string(), &instance.to_string()])?, router),
        (start_nginx(folder.path(), nginx, instance)?, nginx),
    ];
    for (process, address) in &mut processes {
        process.wait_for(*address)?;
    }
    println!("{CONNECTIONS} connections, {} s a round, median of {ROUNDS} rounds", DURATION.as_secs());
    for (name, path) in [("128 bytes", "/128"), ("16 KiB", "/16384")] {
        for address in [instance, router, nginx] {
            measure(address, path)?;
        }
        let direct = measure(instance, path)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(measure(router, path)?);
            theirs.push(measure(nginx, path)?);
        }
        let rate = |runs: &[Measured]| median(runs.iter().map(|run| run.requests_per_second).collect());
        let p99 = |runs: &[Measured]| median(runs.iter().map(|run| run.p99_milliseconds).collect());
        println!("GET, {name}");
        println!(
            "  instance  {:>9.0} requests/s   p99 {:>6.2} ms",
            direct.requests_per_second, direct.p99_milliseconds
        );
        println!("  callboard {:>9.0} requests/s   p99 {:>6.2} ms", rate(&ours), p99(&ours));
        println!("  nginx     {:>9.0} requests/s   p99 {:>6.2} ms", rate(&theirs), p99(&theirs));
        println!("  ratio     {:>9.2} (goal {GOAL}: at least)", rate(&ours) / rate(&theirs));
    }
    Ok(())
}

fn measure(address: SocketAddr, path: &str) -> Outcome<Measured> {
    let measured = wrk::run(&format!("http://{address}{path}"), None, &[("Host", HOST)], CONNECTIONS, DURATION)?;
    if measured.failed > 0 {
        return Err(format!("{} requests failed at {address}", measured.failed).into());
    }
    Ok(measured)
}

fn address() -> Outcome<SocketAddr> {
    Ok(([127, 0, 0, 1], free_port()?).into())
}

fn instance(address: SocketAddr) -> Outcome {
    let body = web::Bytes::from(vec![b'x'; 16384]);
    let server = HttpServer::new(move || {
        let body = body.clone();
        App::new().route(
            "/{size}",
            web::get().to(move |size: web::Path<usize>| {
                let body = body.slice(..body.len().min(*size));
                async move { HttpResponse::Ok().content_type("text/plain").body(body) }
            }),
        )
    });
    Ok(actix_rt::System::new().block_on(server.workers(WORKERS).bind(address)?.run())?)
}

fn router(address: SocketAddr, instance: SocketAddr) -> Outcome {
    let table = RoutingTable::new();
    let backends = vec![Backend { instance_id: uuid::Uuid::now_v7(), address: instance }];
    table.set("bench", Route { backends, state: RouteState::Serving });
    let router = Router::new(table, Settings::default());
    let edge = Edge { workers: WORKERS, ..Edge::default() };
    actix_rt::System::new().block_on(async {
        let (server, _) = listen(TcpListener::bind(address)?, edge, move || router.in_front_of(App::new()))?;
        Ok(server.await?)
    })
}

fn start_nginx(folder: &Path, address: SocketAddr, instance: SocketAddr) -> Outcome<Running> {
    let path = folder.join("nginx.conf");
    let folder = folder.display();
    std::fs::write(
        &path,
        format!(
            "daemon off;\nworker_processes {WORKERS};\npid {folder}/pid;\nerror_log stderr error;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n  access_log off;\n  keepalive_requests 1000000000;\n\
               client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n\
               fastcgi_temp_path {folder}/fastcgi;\n  uwsgi_temp_path {folder}/uwsgi;\n\
               scgi_temp_path {folder}/scgi;\n\
               upstream instance {{ server {instance}; keepalive 64; keepalive_requests 1000000000; }}\n\
               server {{\n    listen {address};\n    location / {{\n      proxy_pass http://instance;\n\
                   proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n\
                   proxy_set_header Host $http_host;\n      proxy_set_header X-Forwarded-For $remote_addr;\n\
                   proxy_set_header X-Forwarded-Proto $scheme;\n      proxy_set_header X-Forwarded-Host $http_host;\n\
                   proxy_set_header X-Request-Id $request_id;\n      add_header X-Request-Id $request_id;\n\
                 }}\n  }}\n}}\n"
        ),
    )?;
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-c"]).arg(path);
    Running::start("nginx", &mut command)
        .map_err(|error| format!("{error}; install it: apt-get install nginx-light").into())
}

/// A temporary folder that goes with the benchmark.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("callboard-bench-router-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} can't be removed: {error}", self.0.display());
        }
    }
}
