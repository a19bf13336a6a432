//! `callboard dead-letters`.

use callboard_messages::cluster::DeadLetter;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use url::form_urlencoded::byte_serialize;
use uuid::Uuid;

use crate::{cli::session::Session, error::Result, output::table};

#[derive(Debug, Args)]
pub struct DeadLetters {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them, newest first
    List {
        /// Only those that this domain could not apply
        #[arg(long, value_name = "DOMAIN")]
        domain: Option<String>,
    },
    /// Show one with its event
    Show {
        /// The dead letter
        id: Uuid,
    },
    /// Deliver the event again to the domain that could not apply it
    Replay {
        /// The dead letter
        id: Uuid,
    },
    /// Forget one: its event will never be applied
    Drop {
        /// The dead letter
        id: Uuid,
    },
}

impl DeadLetters {
    pub async fn run(self, session: &Session) -> Result {
        match self.verb {
            Verb::List { domain } => {
                let of_it = |domain: String| -> String { byte_serialize(domain.as_bytes()).collect() };
                let query = domain.map(of_it).map_or_else(String::new, |domain| format!("?domain={domain}"));
                let letters: Vec<DeadLetter> = session.all(&format!("/dead-letters{query}")).await?;
                session.output.show(&letters, |letters| match letters.as_slice() {
                    [] => "There are no dead letters.".to_owned(),
                    letters => table(["ID", "DOMAIN", "EVENT", "ATTEMPTS", "DIED", "ERROR"], letters.iter().map(row)),
                });
            }
            Verb::Show { id } => {
                let letter: DeadLetter = session.client.get(&format!("/dead-letters/{id}")).await?;
                session.output.show(&letter, |letter| {
                    let event = serde_json::to_string_pretty(&letter.event).unwrap_or_default();
                    format!("{}\n{}: {}\n\n{event}", letter.id, letter.domain, letter.error)
                });
            }
            Verb::Replay { id } => {
                session.client.post::<Value>(&format!("/dead-letters/{id}/replay"), &json!({})).await?;
                session.output.show(&json!({ "id": id, "replayed": true }), |_| {
                    format!("-----> {id} is on its way again; if it can't be applied it comes back")
                });
            }
            Verb::Drop { id } => {
                session.client.delete::<Value>(&format!("/dead-letters/{id}")).await?;
                session.output.show(&json!({ "id": id, "dropped": true }), |_| format!("-----> {id} is forgotten"));
            }
        }
        Ok(())
    }
}

fn row(letter: &DeadLetter) -> [String; 6] {
    let kind = letter.event.get("type").and_then(Value::as_str).unwrap_or("-");
    let error: String = letter.error.lines().next().unwrap_or_default().chars().take(80).collect();
    [
        letter.id.to_string(),
        letter.domain.clone(),
        kind.to_owned(),
        letter.attempts.to_string(),
        letter.died_at.format("%F %R").to_string(),
        error,
    ]
}
