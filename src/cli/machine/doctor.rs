//! `callboard doctor`: what is wrong, and how to mend it.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use callboard_deploy::build::tools::{Installed, Tool, Tools};
use callboard_supervisors::disk::Room;
use clap::Args;
use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;

use crate::{
    cli::Globals,
    client::{Client, Credential, ReadyDomain, contexts::is_private, target},
    config::{Mode, Settings},
    error::{Error, Result},
    node,
    output::Output,
};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

#[derive(Debug, Args)]
pub struct Doctor {}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Good,
    /// Something can't be done, the rest can.
    Warning,
    /// A node can't work like this.
    Problem,
}

#[derive(Debug, Serialize)]
struct Finding {
    subject: &'static str,
    level: Level,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

fn good(subject: &'static str, what: impl Into<String>) -> Finding {
    Finding { subject, level: Level::Good, what: what.into(), mend: None }
}

fn warning(subject: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { subject, level: Level::Warning, what: what.into(), mend: Some(mend.into()) }
}

fn problem(subject: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { level: Level::Problem, ..warning(subject, what, mend) }
}

impl Doctor {
    pub async fn run(self, globals: &Globals, output: Output) -> Result {
        let mut findings = Vec::new();
        match read(globals) {
            Ok((settings, mode)) => {
                findings.push(good("configuration", "is valid"));
                if mode == Mode::Serve {
                    findings.extend(servers(&settings).await);
                }
                let shortages = node::look_at_capacity(&settings, mode).await;
                findings.extend(shortages.into_iter().map(|short| warning("connections", short.what, short.mend)));
                let node = running_node(&settings.node.data).await;
                findings.extend(data_folder(&settings.node.data));
                findings.push(disk(&settings.node.data));
                match node.is_empty() {
                    false => findings.extend(node),
                    true => findings.push(port(&settings)),
                }
            }
            Err(error) => findings.push(problem("configuration", error.sentence, error.hint.unwrap_or_default())),
        }
        findings.push(open_files());
        findings.push(clock());
        findings.extend(programs());

        let problems = findings.iter().filter(|finding| finding.level == Level::Problem).count();
        let text = |findings: &Vec<Finding>| findings.iter().map(|finding| line(finding, output)).collect::<String>();
        let sentence = match problems {
            0 => {
                output.show(&findings, text);
                return Ok(());
            }
            1 => "there is a problem, see above".to_owned(),
            count => format!("there are {count} problems, see above"),
        };
        output.line(text(&findings).trim_end());
        Err(Error::failure(sentence).showing(&findings))
    }
}

/// Whoever has told of a broker means a node of a cluster, which needs more than a node alone.
fn read(globals: &Globals) -> Result<(Settings, Mode)> {
    let (settings, _) = Settings::read(globals, &[], Mode::Dev)?;
    if settings.servers.amqp_url.is_none() {
        return Ok((settings, Mode::Dev));
    }
    let (settings, _) = Settings::read(globals, &[], Mode::Serve)?;
    Ok((settings, Mode::Serve))
}

async fn servers(settings: &Settings) -> Vec<Finding> {
    let wrong = node::look_at_servers(settings).await;
    if wrong.is_empty() {
        return vec![good("servers", "PostgreSQL, Redis, RabbitMQ and the object store answer")];
    }
    let finding = |sentence: String| {
        let (what, mend) = sentence.rsplit_once("; ").unwrap_or((&sentence, "see the sentence before"));
        problem("servers", what, mend)
    };
    wrong.into_iter().map(finding).collect()
}

fn line(finding: &Finding, output: Output) -> String {
    let mark = match finding.level {
        Level::Good => "ok      ",
        Level::Warning => "warning ",
        Level::Problem => "PROBLEM ",
    };
    let mend = finding.mend.iter().map(|mend| output.dim(&format!("        -> {mend}\n"))).collect::<String>();
    format!("{mark}{:<14} {}\n{mend}", finding.subject, finding.what)
}

fn data_folder(data: &Path) -> Vec<Finding> {
    let shown = data.display();
    let nearest = data.ancestors().find(|folder| folder.as_os_str().is_empty() || folder.exists());
    let nearest = nearest.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let writable = nix::unistd::access(nearest, nix::unistd::AccessFlags::W_OK).is_ok();
    let mut findings = vec![match (data.is_dir(), writable) {
        (true, true) => good("data folder", format!("{shown} can be written")),
        (false, true) => good("data folder", format!("{shown} will be made at the first start")),
        (_, false) => problem(
            "data folder",
            format!("{} can't be written", nearest.display()),
            "give it to the user who runs callboard, or choose another with --data",
        ),
    }];
    let key = data.join("master.key");
    if key.exists() && !is_private(&key) {
        let key = key.display();
        findings.push(problem("master key", format!("{key} can be read by others"), format!("chmod 600 {key}")));
    }
    findings
}

fn disk(data: &Path) -> Finding {
    let folder = data.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let Ok(room) = Room::below(folder) else {
        return warning("disk", "its free space could not be read", "make sure that there is at least 1 GiB");
    };
    let shown = format!("{:.1} GiB free", room.free as f64 / GIB as f64);
    match room.free {
        _ if room.is_used_up() => problem(
            "disk",
            format!("is full: {} MiB of {} MiB are free", room.free / MIB, room.total / MIB),
            "make room; a node takes no builds and refuses what would write until then, and goes on by itself",
        ),
        0..GIB => problem("disk", shown, "make room: sources, builds and releases need at least 1 GiB"),
        _ => good("disk", shown),
    }
}

/// How long a running node may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The node that serves this folder, and what a request to each of its domains would meet; nothing when there is none.
async fn running_node(data: &Path) -> Vec<Finding> {
    let path = data.join(target::LOCAL_FILE);
    let local = match target::read_local(&path) {
        Ok(Some(local)) => local,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![problem("command line", error.sentence, error.hint.unwrap_or_default())],
    };
    let url = local.url.clone();
    let Ok(client) = Client::new(local.url, Credential::Key(local.key)) else { return Vec::new() };
    let Ok(ready) = tokio::time::timeout(ANSWER, client.ready()).await else {
        let what = format!("at {url} accepts connections but does not answer");
        return vec![problem("running node", what, "restart the node")];
    };
    let away: Vec<Finding> = match ready {
        Ok(ready) => ready.domains.iter().filter(|domain| !domain.ready).map(domain).collect(),
        Err(error) if error.status == crate::error::Status::Unreachable => return Vec::new(),
        Err(error) => vec![problem("running node", format!("at {url}: {}", error.sentence), "restart the node")],
    };
    if !away.is_empty() {
        return [good("running node", format!("runs at {url}"))].into_iter().chain(away).collect();
    }
    vec![match tokio::time::timeout(ANSWER, client.get::<serde_json::Value>("/auth/whoami")).await {
        Ok(Ok(_)) => good("running node", format!("runs at {url}, and you are signed in")),
        Ok(Err(error)) => problem("running node", format!("at {url}: {}", error.sentence), "restart the node"),
        Err(_) => problem("running node", format!("at {url} does not say who you are"), "restart the node"),
    }]
}

/// A domain that takes no requests, and what to do about the part that is away.
fn domain(domain: &ReadyDomain) -> Finding {
    let reason = domain.reason.as_deref().unwrap_or("it does not say why");
    let mend = match domain.part.as_deref() {
        Some("database") => "start PostgreSQL, or see why it does not let the node in; the node needs no restart",
        Some("broker") => "start RabbitMQ, or free memory or disk there; the node needs no restart",
        Some("node") => "start a node that hosts it; callboard nodes shows which there are",
        Some("objects") => "see that the object store answers and lets the node in; the node needs no restart",
        Some("breaker") => "see in the node's log what failed; it is tried again by itself",
        _ => "see the node's log; callboard nodes revive gives a domain that was given up another chance",
    };
    match domain.domain == callboard_http::DOMAIN {
        // It goes on with whatever does not need the part.
        true => problem("gateway", format!("lacks a part: {reason}"), mend),
        false => problem("domain", format!("{} takes no requests: {reason}", domain.domain), mend),
    }
}

fn port(settings: &Settings) -> Finding {
    let listen = settings.gateway.listen;
    match TcpListener::bind(listen) {
        Ok(_) => good("port", format!("{listen} is free")),
        Err(error) => problem(
            "port",
            format!("a node can't listen on {listen}: {error}"),
            "stop the program that has it, or choose another: callboard dev --listen 127.0.0.1:9090",
        ),
    }
}

fn open_files() -> Finding {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft < 1024 => {
            problem("open files", format!("at most {soft}"), "ulimit -n 65536, before the node starts")
        }
        Ok((soft, hard)) if soft < 8192 => warning(
            "open files",
            format!("at most {soft}, which bounds the connections"),
            format!("ulimit -n {}, before the node starts", hard.min(65_536)),
        ),
        Ok((soft, _)) => good("open files", format!("at most {soft}")),
        Err(error) => warning("open files", format!("the limit could not be read: {error}"), "check ulimit -n"),
    }
}

/// Tokens and certificates are void when the clock is.
fn clock() -> Finding {
    const RELEASED: u64 = 1_767_225_600; // 2026-01-01
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match now {
        RELEASED.. => good("clock", "is plausible"),
        _ => problem("clock", "is years behind", "set it; tokens and certificates depend on it"),
    }
}

/// The programs that builds and apps need. One that is not there is told as such, and is no fault of a node whose apps
/// need others.
fn programs() -> Vec<Finding> {
    let git = match version("git", "--version") {
        Some(version) => good("git", version),
        None => warning("git", "is not there: git repositories can't be deployed", "apt-get install git"),
    };
    let tools = Tools::of_path(std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned()));
    let tools = Tool::ALL.into_iter().map(|tool| finding(tool, &tools.all(tool)));
    std::iter::once(git).chain(tools).collect()
}

fn finding(tool: Tool, installed: &[Installed]) -> Finding {
    let versions: Vec<&str> = installed.iter().map(|found| found.version.as_str()).collect();
    let serves = tool.serves();
    match installed.first() {
        Some(first) if tool == Tool::Python && !first.has_pip => warning(
            tool.program(),
            format!("{} without pip: Python apps with dependencies can't be built", versions.join(", ")),
            "apt-get install python3-pip",
        ),
        Some(_) => good(tool.program(), versions.join(", ")),
        None if matches!(tool, Tool::Node | Tool::Npm | Tool::Python) => {
            warning(tool.program(), format!("is not there, for {serves}"), tool.install())
        }
        None => Finding {
            mend: Some(tool.install().to_owned()),
            ..good(tool.program(), format!("is not there, for {serves}"))
        },
    }
}

fn version(program: &str, option: &str) -> Option<String> {
    let output = Command::new(program).arg(option).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}
