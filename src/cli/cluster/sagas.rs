//! `callboard sagas`.

use callboard_messages::{SagaStatus, SagaView};
use clap::{Args, Subcommand};
use serde_json::json;
use url::form_urlencoded;
use uuid::Uuid;

use crate::{cli::session::Session, error::Result, output::table};

#[derive(Debug, Args)]
pub struct Sagas {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List those that have not ended, newest first
    List {
        /// Only those with this status: running, undoing, done, undone or stuck
        #[arg(long, value_name = "STATUS", value_parser = status)]
        status: Option<SagaStatus>,
        /// Only those of this domain
        #[arg(long, value_name = "DOMAIN")]
        domain: Option<String>,
    },
    /// Let a stuck one go on from where it is
    Retry {
        /// The saga
        id: Uuid,
    },
}

fn status(text: &str) -> std::result::Result<SagaStatus, String> {
    let found = SagaStatus::ALL.into_iter().find(|status| status.as_str() == text);
    found.ok_or_else(|| "it is running, undoing, done, undone or stuck".to_owned())
}

impl Sagas {
    pub async fn run(self, session: &Session) -> Result {
        match self.verb {
            Verb::List { status, domain } => {
                let mut query = form_urlencoded::Serializer::new(String::new());
                query.extend_pairs(status.map(|status| ("status", status.as_str())));
                query.extend_pairs(domain.map(|domain| ("domain", domain)));
                let sagas: Vec<SagaView> = session.all(&format!("/sagas?{}", query.finish())).await?;
                session.output.show(&sagas, |sagas| match sagas.as_slice() {
                    [] => "There are none.".to_owned(),
                    sagas => table(["ID", "SAGA", "STATUS", "STEP", "SINCE", "TROUBLE"], sagas.iter().map(row)),
                });
            }
            Verb::Retry { id } => {
                let saga: SagaView = session.client.post(&format!("/sagas/{id}/retry"), &json!({})).await?;
                session.output.show(&saga, |saga| format!("-----> {} is {}", saga.id, saga.status.as_str()));
            }
        }
        Ok(())
    }
}

fn row(saga: &SagaView) -> [String; 6] {
    [
        saga.id.to_string(),
        saga.name.clone(),
        saga.status.as_str().to_owned(),
        saga.step.clone().unwrap_or_default(),
        saga.updated_at.format("%F %R").to_string(),
        saga.trouble.clone().unwrap_or_default().chars().take(100).collect(),
    ]
}
