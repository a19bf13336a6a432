//! `callboard ps`.

use callboard_messages::deploy::{Instance, InstanceStatus, Instances};
use clap::Args;

use crate::{
    cli::{AppArgs, session::Session},
    error::Result,
    output::table,
};

#[derive(Debug, Args)]
pub struct Ps {
    #[command(flatten)]
    app: AppArgs,
}

impl Ps {
    pub async fn run(self, session: &Session) -> Result {
        let project = session.app(&self.app).await?;
        let instances: Instances = session.client.get(&format!("/projects/{}/instances", project.id)).await?;
        session.output.show(&instances, |instances| {
            let wanted: Vec<String> =
                instances.formation.processes.iter().map(|(process, count)| format!("{process}={count}")).collect();
            let mut head = format!("{}  {}\n", session.output.bold(&instances.url), wanted.join(" "));
            for (process, count) in &instances.formation.missing {
                head += &format!("{process}={count} waits for a release with a {process} process.\n");
            }
            match instances.items.as_slice() {
                [] => format!("{head}Nothing runs."),
                items => {
                    head + &table(
                        ["PROCESS", "RELEASE", "STATUS", "PID", "PORT", "RESTARTS", "LAST EXIT"],
                        items.iter().map(row),
                    )
                }
            }
        });
        Ok(())
    }
}

fn row(instance: &Instance) -> [String; 7] {
    let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let status = match instance.status {
        InstanceStatus::Starting => "starting",
        InstanceStatus::Healthy => "healthy",
        InstanceStatus::Unhealthy => "unhealthy",
        InstanceStatus::Crashed => "crashed",
        InstanceStatus::Stopping => "stopping",
    };
    [
        format!("{}.{}", instance.process, instance.index),
        format!("v{}", instance.release_version),
        status.to_owned(),
        number(instance.pid),
        number(instance.port.map(u32::from)),
        instance.restarts.to_string(),
        instance.last_exit.clone().unwrap_or_default(),
    ]
}
