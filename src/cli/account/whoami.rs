//! `callboard whoami`.

use callboard_messages::auth::Identity;
use clap::Args;
use serde::Serialize;

use crate::{cli::session::Session, error::Result};

#[derive(Debug, Args)]
pub struct Whoami {}

#[derive(Serialize)]
struct Answer {
    node: url::Url,
    #[serde(flatten)]
    identity: Identity,
}

impl Whoami {
    pub async fn run(self, session: &Session) -> Result {
        let identity: Identity = session.client.get("/auth/whoami").await?;
        let answer = Answer { node: session.client.base().clone(), identity };
        session.output.show(&answer, |answer| {
            let account = &answer.identity.account;
            let role = if account.administrator { ", administrator" } else { "" };
            format!("{} ({}{role}) on {}", account.name, account.email, answer.node)
        });
        Ok(())
    }
}
