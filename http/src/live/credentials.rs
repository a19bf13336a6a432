//! Whether whoever follows still may.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use callboard_messages::{OrganizationId, Secret, auth::Validated};
use chrono::{DateTime, Utc};
use futures_util::{FutureExt, future::LocalBoxFuture};

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
    /// What auth will answer.
    asked: Option<LocalBoxFuture<'static, Answer>>,
}

/// The epoch before auth was asked, and what it answered, if it did in time.
type Answer = (u64, Option<Result<Validated, Problem>>);

impl Credentials {
    /// Those of the request, which hold now.
    pub(super) async fn of(request: &Request) -> Result<Self, Problem> {
        let (worker, arrival) = (Rc::clone(&request.worker), Rc::clone(&request.arrival));
        let token = session::token_of(&worker, &request.http, &arrival).ok_or_else(Problem::unauthenticated)?;
        let organization_id = session::organization_of(&worker, &request.http, &arrival);
        // A revocation since the request was let in is found: what is remembered is of this epoch, or asked for anew.
        let epoch = worker.shared.revocations.epoch();
        let expires_at = worker.validate(token.expose(), organization_id, &arrival).await?.expires_at;
        Ok(Self { worker, arrival, token, organization_id, expires_at, epoch, due: None, asked: None })
    }

    /// Why the stream must end, if they don't hold any more, or nobody can say for too long that they do. What it waits
    /// for goes on when this future is dropped, so that whoever drops it again and again wins no time.
    pub(super) async fn check(&mut self) -> Option<End> {
        if self.asked.is_none() {
            let revocations = &self.worker.shared.revocations;
            // In this order: trust that comes after news comes with the news.
            let is_current = revocations.is_current();
            let epoch = revocations.epoch();
            if is_current && epoch == self.epoch && self.worker.clock().now() < self.expires_at {
                self.due = None;
                return None;
            }
            self.asked = Some(self.ask(epoch));
        }
        let Some(asked) = &mut self.asked else { return None };
        let (epoch, answer) = asked.await;
        self.asked = None;
        match answer {
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
                let clock = self.worker.clock();
                let is_overdue = self.due.is_some_and(|due| clock.instant() >= due + UNCONFIRMED);
                let may_hold = clock.now() < self.expires_at && !is_overdue;
                (!may_hold).then(|| End::for_now("nobody can say whether the session holds; connect again"))
            }
        }
    }

    /// Whether a check waits for auth.
    pub(super) const fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    fn ask(&mut self, epoch: u64) -> LocalBoxFuture<'static, Answer> {
        let due = *self.due.get_or_insert_with(|| self.worker.clock().instant());
        let (worker, arrival) = (Rc::clone(&self.worker), Rc::clone(&self.arrival));
        let (token, organization_id) = (self.token.clone(), self.organization_id);
        let asked = async move {
            let asked = worker.ask_auth(token, organization_id, &arrival);
            (epoch, worker.clock().timeout_at(due + UNCONFIRMED, asked).await)
        };
        asked.boxed_local()
    }
}
