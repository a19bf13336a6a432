//! Whether whoever follows still may.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use callboard_messages::{OrganizationId, Secret};
use chrono::{DateTime, Utc};

use super::feed::End;
use crate::{
    problem::Problem,
    session,
    worker::{Arrival, Request, Worker},
};

/// How long a stream goes on while nobody can say whether its credentials, which have not expired, were revoked.
const UNCONFIRMED: Duration = Duration::from_secs(5);

/// The credentials that a stream was opened with.
pub(super) struct Credentials {
    worker: Rc<Worker>,
    arrival: Rc<Arrival>,
    token: Secret,
    organization_id: Option<OrganizationId>,
    expires_at: DateTime<Utc>,
    /// Of the revocations, before auth was asked.
    epoch: u64,
    /// Since when auth should have confirmed them, and has not.
    due: Option<Instant>,
}

impl Credentials {
    /// Those of the request, which hold now.
    pub(super) async fn of(request: &Request) -> Result<Self, Problem> {
        let (worker, arrival) = (Rc::clone(&request.worker), Rc::clone(&request.arrival));
        let token = session::token_of(&worker, &request.http, &arrival).ok_or_else(Problem::unauthenticated)?;
        let organization_id = session::organization_of(&request.http);
        // A revocation since the request was let in is found: what is remembered is of this epoch, or asked for anew.
        let epoch = worker.shared.revocations.epoch();
        let expires_at = worker.validate(token.expose(), organization_id, &arrival).await?.expires_at;
        Ok(Self { worker, arrival, token, organization_id, expires_at, epoch, due: None })
    }

    /// Why the stream must end, if they don't hold any more, or nobody can say for too long that they do.
    pub(super) async fn check(&mut self) -> Option<End> {
        let clock = self.worker.clock();
        let revocations = &self.worker.shared.revocations;
        // In this order: trust that comes after news comes with the news.
        let is_current = revocations.is_current();
        let epoch = revocations.epoch();
        if is_current && epoch == self.epoch && clock.now() < self.expires_at {
            self.due = None;
            return None;
        }
        // Kept when this future is dropped: whoever drops it again and again wins no time.
        let due = *self.due.get_or_insert_with(|| clock.instant());
        let asked = self.worker.ask_auth(self.token.clone(), self.organization_id, &self.arrival);
        match clock.timeout_at(due + UNCONFIRMED, asked).await {
            Some(Ok(validated)) => {
                self.epoch = epoch;
                self.expires_at = validated.expires_at;
                self.due = None;
                None
            }
            Some(Err(problem)) if !problem.status.is_server_error() => {
                Some(End::for_good("the session has ended; sign in again"))
            }
            // Auth being away for a moment is no reason as long as they may hold: it is asked again at the next check.
            _ => {
                let may_hold = clock.now() < self.expires_at && clock.instant() < due + UNCONFIRMED;
                (!may_hold).then(|| End::for_now("nobody can say whether the session holds; connect again"))
            }
        }
    }
}
