//! What breaks.

use std::time::Duration;

use super::{cluster::Cluster, load::Load};
use crate::harness::{proxy::Mangling, random::Random};

/// How long faults last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// So that every kind of fault fits in half a minute.
    Short,
    /// As long as people fear them.
    Long,
}

impl Scale {
    fn seconds(self, short: u64, long: u64) -> Duration {
        Duration::from_secs(match self {
            Self::Short => short,
            Self::Long => long,
        })
    }

    /// How many projects each client of a storm creates and deletes.
    fn pairs(self) -> usize {
        match self {
            Self::Short => 3,
            Self::Long => 42,
        }
    }
}

/// One kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, and a start some time later.
    KillNode(usize),
    /// SIGSTOP, and SIGCONT when the others have given it up.
    PauseNode(usize),
    /// SIGTERM, and a start: one step of a rolling update.
    UpdateNode(usize),
    StopBroker,
    KillBroker,
    /// The broker closes all connections.
    CloseConnections,
    /// `pg_ctl -m immediate restart`.
    RestartPostgres,
    /// It is stopped, and started a minute later.
    StopPostgres,
    /// Its connections stay open, and nothing answers.
    PausePostgres,
    FlushRedis,
    PauseRedis,
    /// Messages come twice, late and in another order.
    MangleMessages,
    /// The way to the broker swallows everything.
    SilenceBroker,
    /// The file system of a node's data folder has no room left for a while.
    FillDisk(usize),
    /// A node that was configured with another cluster key, or another object store, tries to join.
    Stranger,
    /// 24 clients create and delete projects at once.
    Storm,
}

impl Fault {
    const ALL: [Self; 24] = [
        Self::KillNode(0),
        Self::KillNode(1),
        Self::KillNode(2),
        Self::PauseNode(0),
        Self::PauseNode(1),
        Self::PauseNode(2),
        Self::UpdateNode(0),
        Self::UpdateNode(1),
        Self::UpdateNode(2),
        Self::StopBroker,
        Self::KillBroker,
        Self::CloseConnections,
        Self::RestartPostgres,
        Self::PausePostgres,
        Self::FlushRedis,
        Self::PauseRedis,
        Self::MangleMessages,
        Self::SilenceBroker,
        Self::StopPostgres,
        Self::FillDisk(0),
        Self::FillDisk(1),
        Self::FillDisk(2),
        Self::Stranger,
        Self::Storm,
    ];

    /// Each once, in an order of chance.
    pub fn shuffled(random: &mut Random) -> Vec<Self> {
        let mut faults = Self::ALL.to_vec();
        for end in (1..faults.len()).rev() {
            let other = usize::try_from(random.below(end as u64 + 1)).unwrap();
            faults.swap(end, other);
        }
        faults
    }

    /// It happens and passes.
    pub async fn happen(self, cluster: &mut Cluster, load: &Load, random: &mut Random, scale: Scale) {
        let moment = Duration::from_millis(random.between(0, 3000));
        match self {
            Self::KillNode(number) => {
                cluster.nodes[number].kill().await;
                tokio::time::sleep(moment).await;
                cluster.begin(number);
                // Two dead nodes at once could be all that host a domain; one that is restarting is trouble enough.
                tokio::time::sleep(scale.seconds(1, 5)).await;
            }
            Self::PauseNode(number) => {
                cluster.nodes[number].pause();
                // Longer than the leases live.
                tokio::time::sleep(scale.seconds(6, 20)).await;
                cluster.nodes[number].resume();
            }
            Self::UpdateNode(number) => {
                cluster.nodes[number].stop().await;
                cluster.begin(number);
                tokio::time::sleep(scale.seconds(1, 5)).await;
            }
            Self::StopBroker => {
                cluster.rabbitmq.stop().await;
                tokio::time::sleep(scale.seconds(2, 60)).await;
                cluster.rabbitmq.start_again().await;
            }
            Self::KillBroker => {
                cluster.rabbitmq.kill();
                tokio::time::sleep(moment).await;
                cluster.rabbitmq.start_again().await;
            }
            Self::CloseConnections => cluster.rabbitmq.close_connections().await,
            Self::RestartPostgres => cluster.postgres.restart_immediately().await,
            Self::PausePostgres => {
                cluster.postgres.pause();
                tokio::time::sleep(scale.seconds(4, 30)).await;
                cluster.postgres.resume();
            }
            Self::FlushRedis => cluster.redis.flush().await,
            Self::PauseRedis => {
                cluster.redis.pause();
                tokio::time::sleep(scale.seconds(2, 20)).await;
                cluster.redis.resume();
            }
            Self::MangleMessages => {
                cluster.amqp.mangle(Mangling { duplicate: 0.3, delay: 0.1, reorder: 0.3 });
                tokio::time::sleep(scale.seconds(4, 30)).await;
                cluster.amqp.heal();
            }
            Self::SilenceBroker => {
                cluster.amqp.black_hole();
                tokio::time::sleep(scale.seconds(3, 30)).await;
                cluster.amqp.heal();
            }
            Self::StopPostgres => {
                cluster.postgres.stop().await;
                tokio::time::sleep(scale.seconds(3, 60)).await;
                cluster.postgres.start_again().await;
            }
            Self::FillDisk(number) => {
                if cluster.nodes[number].fill_disk(true) {
                    tokio::time::sleep(scale.seconds(3, 20)).await;
                    cluster.nodes[number].fill_disk(false);
                } else {
                    println!("chaos: only root may mount a file system that can be full");
                }
            }
            Self::Stranger => cluster.refuses_a_stranger().await,
            Self::Storm => load.storm(random, scale.pairs()).await,
        }
    }
}
