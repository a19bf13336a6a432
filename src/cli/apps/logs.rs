//! `callboard logs`.

use callboard_messages::deploy::{LogLine, LogLines};
use clap::Args;

use crate::{
    cli::{AppArgs, session::Session},
    error::Result,
    output::{Output, line_of_log},
};

#[derive(Debug, Args)]
pub struct Logs {
    #[command(flatten)]
    app: AppArgs,
    /// Go on as lines are written; with --json, one document per line
    #[arg(long, short)]
    follow: bool,
    /// How many of the last lines, 1 to 10,000
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    lines: u32,
}

impl Logs {
    pub async fn run(self, session: &Session) -> Result {
        let project = session.app(&self.app).await?;
        let lines: LogLines =
            session.client.get(&format!("/projects/{}/logs?limit={}", project.id, self.lines)).await?;
        let output = session.output;
        if !self.follow {
            if output.json {
                output.document(&lines);
            }
            lines.items.iter().for_each(|line| output.line(log_line(line, output)));
            return Ok(());
        }
        let mut print = |line: &LogLine| match output.json {
            true => output.json_line(line),
            false => output.line(log_line(line, output)),
        };
        lines.items.iter().for_each(&mut print);
        let after = lines.items.last().map_or(0, |line| line.id);
        tokio::select! {
            ended = session.tail(project.id, after, &mut print) => ended,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    }
}

fn log_line(line: &LogLine, output: Output) -> String {
    let head = format!("{} {}", line.at.format("%FT%T%.3fZ"), line_of_log(&line.from));
    format!("{} {}", output.tinted(&line.from, &format!("{head:<34}|")), line_of_log(&line.text))
}
