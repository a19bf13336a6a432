//! Driving one saga, step by step, to its end.

use std::{panic::AssertUnwindSafe, time::Instant};

use callboard_messages::{Failure, SagaStatus};
use futures_util::FutureExt;
use serde_json::Value;
use uuid::Uuid;

use super::{
    SagaSettings,
    log::{self, HeldSaga, Progress},
    plan::{Kind, Plan, Step, StepContext, Unmade, written_failure},
};
use crate::{
    blocking::panic_message,
    db::{Database, Error, Transaction},
    warn_unless_outage,
};

/// How a drive ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ended {
    /// With this state.
    Done(Value),
    /// Because of this refusal.
    Undone(Value),
    /// Somebody has to look.
    Stuck(String),
    /// Another drives it now, or may do so.
    Lost,
}

pub(super) struct Driver {
    pub(super) plan: Plan,
    pub(super) held: HeldSaga,
    pub(super) progress: Progress,
    pub(super) context: StepContext,
    pub(super) database: Database,
    pub(super) settings: SagaSettings,
    /// Until when it may act without a further sign of life.
    pub(super) until: Instant,
}

/// It has to stop: the saga is another's, or may be.
struct Lost;

/// What a step came to, besides being done.
enum Hitch {
    Unmade(Unmade),
    Database(Error),
    Lost,
}

impl From<Lost> for Hitch {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

impl From<Error> for Hitch {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl Driver {
    /// Drives it until it has ended, is stuck, or is lost. Dropped, it leaves the saga to whoever takes it over.
    pub(super) async fn drive(mut self) -> Ended {
        let mut tried = 0;
        let mut refused = 0;
        loop {
            let at = self.here();
            let outcome = match self.progress.status {
                SagaStatus::Done => return Ended::Done(self.progress.state),
                SagaStatus::Undone => return Ended::Undone(self.progress.refusal.unwrap_or_default()),
                SagaStatus::Stuck => return Ended::Stuck(self.progress.trouble.unwrap_or_default()),
                // Boxed, these and those below: what a step waits for lies deep, and a saga is moved before it is driven.
                SagaStatus::Running => self.forward().boxed_local().await,
                SagaStatus::Undoing => self.back().boxed_local().await,
            };
            let hitch = match outcome {
                Ok(()) => {
                    (tried, refused) = (0, 0);
                    continue;
                }
                Err(hitch) => hitch,
            };
            tried += 1;
            let handled = match hitch {
                Hitch::Lost => Err(Lost),
                Hitch::Database(error) => {
                    self.complain(&at, &error.to_string());
                    self.reload(tried).boxed_local().await
                }
                Hitch::Unmade(unmade) => {
                    refused += u32::from(!matches!(&unmade, Unmade::Failed(failure) if is_about_the_way(failure)));
                    self.judge(&at, unmade, tried, refused).boxed_local().await
                }
            };
            if handled.is_err() {
                return Ended::Lost;
            }
            // A turn or a reload may have changed where it is.
            if self.here() != at {
                (tried, refused) = (0, 0);
            }
        }
    }

    fn here(&self) -> (SagaStatus, usize, bool) {
        (self.progress.status, self.progress.position, self.progress.in_doubt)
    }

    /// The next step, and those in the domain's own database right behind it.
    async fn forward(&mut self) -> Result<(), Hitch> {
        let mut next = self.progress.clone();
        match self.plan.steps.get(next.position).cloned() {
            Some(Step { kind: Kind::Elsewhere(step), .. }) => {
                let (context, state) = (self.context.clone(), next.state.clone());
                let acted = self.alive(caught(step.act(&context, state))).await?;
                next.state = acted.map_err(Hitch::Unmade)?;
                next.position += 1;
                next.in_doubt = false;
                next.trouble = None;
                match self.save_with_locals(next.clone()).await {
                    // Those behind it have their own turn, and their own tries.
                    Err(Hitch::Unmade(_)) => self.save(next).await,
                    outcome => outcome,
                }
            }
            Some(Step { kind: Kind::Here(step), .. }) => {
                let mut transaction = self.begin().await?;
                let acted = caught(step.act(&mut transaction, &self.context, next.state)).await;
                next.state = acted.map_err(Hitch::Unmade)?;
                next.position += 1;
                next.in_doubt = false;
                next.trouble = None;
                self.settle_end(&mut next);
                self.commit(transaction, next).await
            }
            None => {
                self.settle_end(&mut next);
                self.save(next).await
            }
        }
    }

    fn settle_end(&self, progress: &mut Progress) {
        if progress.position >= self.plan.steps.len() {
            progress.status = SagaStatus::Done;
        }
    }

    /// Saves it, with the steps that follow in the domain's own database, all in one transaction.
    async fn save_with_locals(&mut self, next: Progress) -> Result<(), Hitch> {
        let mut transaction = self.begin().await?;
        let next = locals(&self.plan, &mut transaction, &self.context, next).await.map_err(Hitch::Unmade)?;
        self.commit(transaction, next).await
    }

    /// Undoes the step that is in doubt, or else the last that was done.
    async fn back(&mut self) -> Result<(), Hitch> {
        let mut next = self.progress.clone();
        let index = if next.in_doubt { Some(next.position) } else { next.position.checked_sub(1) };
        let step = index.and_then(|index| self.plan.steps.get(index)).cloned();
        if let Some(index) = index {
            (next.position, next.in_doubt) = (index, false);
        }
        next.trouble = None;
        if next.position == 0 {
            next.status = SagaStatus::Undone;
        }
        match step {
            Some(Step { kind: Kind::Elsewhere(step), .. }) => {
                let (context, state) = (self.context.clone(), next.state.clone());
                self.alive(caught(step.undo(&context, state))).await?.map_err(Hitch::Unmade)?;
                self.save(next).await
            }
            Some(Step { kind: Kind::Here(step), .. }) => {
                let mut transaction = self.begin().await?;
                let undone = caught(step.undo(&mut transaction, &self.context, next.state.clone())).await;
                undone.map_err(Hitch::Unmade)?;
                self.commit(transaction, next).await
            }
            None => self.save(next).await,
        }
    }

    /// What follows when a step was not made.
    async fn judge(
        &mut self,
        at: &(SagaStatus, usize, bool),
        unmade: Unmade,
        tried: u32,
        refused: u32,
    ) -> Result<(), Lost> {
        let forward = self.progress.status == SagaStatus::Running;
        let sentence = match &unmade {
            Unmade::Refused(_, sentence) => sentence.clone(),
            Unmade::Failed(failure) => failure.to_string(),
        };
        self.complain(at, &sentence);
        self.progress.trouble = Some(sentence);
        let is_here = matches!(self.plan.steps.get(self.progress.position), Some(Step { kind: Kind::Here(_), .. }));
        match unmade {
            Unmade::Refused(refusal, _) if forward => return self.turn(SagaStatus::Undoing, Some(refusal)).await,
            Unmade::Failed(failure) if forward => {
                // What is written here was taken back with its transaction.
                let certain = is_here || failure.is_certain();
                self.progress.in_doubt |= !certain;
                if !self.progress.in_doubt && tried >= self.settings.tries {
                    return self.turn(SagaStatus::Undoing, Some(written_failure(&failure))).await;
                }
            }
            _ => {}
        }
        if tried >= self.settings.patience || (!forward && refused >= self.settings.refusals) {
            return self.turn(SagaStatus::Stuck, self.progress.refusal.clone()).await;
        }
        self.pause(tried).await
    }

    /// Goes back, or stops where it is.
    async fn turn(&mut self, status: SagaStatus, refusal: Option<Value>) -> Result<(), Lost> {
        let next = Progress { status, refusal, ..self.progress.clone() };
        for tried in 1.. {
            match self.save(next.clone()).await {
                Ok(()) => break,
                Err(Hitch::Database(error)) => {
                    warn_unless_outage!(error.is_connection(), saga = %self.held.id, %error, "the log of a saga could not be written");
                    self.pause(tried).await?;
                }
                Err(_) => return Err(Lost),
            }
        }
        if status == SagaStatus::Stuck {
            tracing::error!(
                saga = %self.held.id, name = self.plan.name, trouble = next.trouble.as_deref(),
                "a saga is stuck: look, and then retry it"
            );
        }
        Ok(())
    }

    /// The log tells how far it has come, after a transaction of which nobody knows what became. Until it does, nothing
    /// is done: what it is thought to stand at may be made already.
    async fn reload(&mut self, mut tried: u32) -> Result<(), Lost> {
        loop {
            self.pause(tried).await?;
            let (database, id) = (self.database.clone(), self.held.id);
            match self.alive(async move { log::get(&database, id).await }).await? {
                Ok(Some(row)) if row.token == self.held.token => {
                    // What could not be written may be the reply of a step.
                    self.progress = self.plan.doubt(row.progress());
                    return Ok(());
                }
                Ok(_) => return Err(Lost),
                Err(error) => {
                    warn_unless_outage!(error.is_connection(), saga = %self.held.id, %error, "the log of a saga could not be read");
                    tried = tried.saturating_add(1);
                }
            }
        }
    }

    async fn begin(&self) -> Result<Transaction, Hitch> {
        self.check()?;
        Ok(self.database.begin().await?)
    }

    async fn save(&mut self, next: Progress) -> Result<(), Hitch> {
        let transaction = self.begin().await?;
        self.commit(transaction, next).await
    }

    async fn commit(&mut self, mut transaction: Transaction, next: Progress) -> Result<(), Hitch> {
        let sent = self.context.clock.instant();
        let now = self.context.clock.now();
        if !log::write(&mut transaction, &self.held, &self.progress, &next, now).await? {
            return Err(Hitch::Lost);
        }
        transaction.commit().await?;
        self.until = sent + self.settings.ttl / 4 * 3;
        self.progress = next;
        Ok(())
    }

    /// Waits for a step and shows signs of life meanwhile. Neither stands still while the other waits: a step may hold the
    /// connection that a sign of life needs.
    async fn alive<T>(&mut self, step: impl Future<Output = T>) -> Result<T, Lost> {
        self.check()?;
        tokio::select! {
            biased;
            outcome = step => Ok(outcome),
            lost = self.show_life() => Err(lost),
        }
    }

    /// Shows signs of life until they are of no use any more.
    async fn show_life(&mut self) -> Lost {
        loop {
            let clock = self.context.clock.clone();
            let next_beat = clock.instant() + self.settings.ttl / 4;
            clock.sleep_until(next_beat.min(self.until)).await;
            if let Err(lost) = self.beat().await {
                return lost;
            }
        }
    }

    async fn beat(&mut self) -> Result<(), Lost> {
        self.check()?;
        let sent = self.context.clock.instant();
        let beating = log::beat(&self.database, &self.held, self.progress.trouble.as_deref());
        match self.context.clock.timeout_at(self.until, beating).await {
            Some(Ok(true)) => {
                self.until = sent + self.settings.ttl / 4 * 3;
                Ok(())
            }
            Some(Ok(false)) | None => Err(Lost),
            Some(Err(error)) => {
                warn_unless_outage!(error.is_connection(), saga = %self.held.id, %error, "a saga could not show that it is driven");
                self.context.clock.sleep(self.settings.ttl / 20).await;
                Ok(())
            }
        }
    }

    fn check(&self) -> Result<(), Lost> {
        if self.context.clock.instant() < self.until { Ok(()) } else { Err(Lost) }
    }

    async fn pause(&mut self, tried: u32) -> Result<(), Lost> {
        let clock = self.context.clock.clone();
        let pause = self.settings.backoff.delay(tried.saturating_sub(1));
        self.alive(async move { clock.sleep(pause).await }).await
    }

    fn complain(&self, (status, position, _): &(SagaStatus, usize, bool), trouble: &str) {
        let index = if *status == SagaStatus::Undoing && !self.progress.in_doubt {
            position.saturating_sub(1)
        } else {
            *position
        };
        let step = self.plan.steps.get(index).map_or("the end", |step| step.name);
        let (saga, name, status) = (self.held.id, self.plan.name, status.as_str());
        tracing::warn!(%saga, name, status, step, %trouble, "a step of a saga was not made");
    }
}

/// The steps from here on that write in the domain's own database.
pub(super) async fn locals(
    plan: &Plan,
    transaction: &mut Transaction,
    context: &StepContext,
    mut progress: Progress,
) -> Result<Progress, Unmade> {
    while let Some(Step { kind: Kind::Here(step), .. }) = plan.steps.get(progress.position) {
        progress.state = caught(step.act(transaction, context, progress.state)).await?;
        progress.position += 1;
    }
    if progress.position >= plan.steps.len() {
        progress.status = SagaStatus::Done;
    }
    Ok(progress)
}

/// A step that panics has failed by a fault of ours, and nobody knows how far it came. Whoever drives it drives others too.
async fn caught<T>(step: impl Future<Output = Result<T, Unmade>>) -> Result<T, Unmade> {
    AssertUnwindSafe(step).catch_unwind().await.unwrap_or_else(|panic| {
        let told = format!("panicked: {}", panic_message(&*panic));
        Err(Unmade::Failed(Failure::Internal(told)))
    })
}

/// Whether it says nothing about the step itself: it could not be asked for, or its answer was lost.
const fn is_about_the_way(failure: &Failure) -> bool {
    !matches!(failure, Failure::Internal(_) | Failure::Invalid | Failure::Unauthenticated | Failure::Forbidden(_))
}

impl Driver {
    /// Which saga.
    pub(super) const fn id(&self) -> Uuid {
        self.held.id
    }
}

impl Plan {
    /// The progress of a saga whose step under way may have been carried out by somebody who could not write it down.
    pub(super) fn doubt(&self, mut progress: Progress) -> Progress {
        let is_elsewhere = matches!(self.steps.get(progress.position), Some(Step { kind: Kind::Elsewhere(_), .. }));
        progress.in_doubt |= is_elsewhere && progress.status == SagaStatus::Running;
        progress
    }
}
