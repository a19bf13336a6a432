//! The order in which jobs wait for a thread: by arrival, or in **turns**.
//!
//! In turns each subject has one job per round, so that a subject with many jobs delays nobody else: the first job of a
//! new subject is in the current round. Within a round preferred jobs come first, then those that came first. When the
//! line is full the last job is cut, which is of the subject with the most jobs; a job that would not be done by its
//! deadline is cut too, and its caller learns it at once.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use callboard_messages::Failure;

/// The shortest retry delay of a refusal.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The subject of a job, in a pool whose threads are shared in turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Turn {
    /// The jobs of one subject are run in turn with those of others.
    pub subject: u128,
    /// Whether it comes before the others of its round.
    pub preferred: bool,
}

/// Waiting jobs, in order.
pub(super) struct Line<J> {
    waiting: VecDeque<QueuedJob<J>>,
    /// Most waiting jobs.
    pub(super) limit: usize,
    /// Most waiting jobs of one subject; `None` for order of arrival.
    share: Option<usize>,
    next_id: u64,
    /// The current round.
    round: u64,
    /// Jobs started in it.
    started: usize,
    /// The next round of each subject that has had its turn in the current one.
    served: HashMap<Turn, u64>,
}

struct QueuedJob<J> {
    id: u64,
    turn: Turn,
    round: u64,
    deadline: Option<Instant>,
    job: J,
}

/// The speed of the threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) threads: usize,
    pub(super) running: usize,
    /// Smoothed duration of a job; zero before the first has ended.
    pub(super) mean: Duration,
}

impl Pace {
    fn idle(&self) -> usize {
        self.threads.saturating_sub(self.running)
    }

    /// When the job with `position` others before it will probably be done.
    fn done_in(&self, position: usize) -> Duration {
        let rounds = (position + self.running) / self.threads.max(1) + 1;
        self.mean.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }
}

/// A job that was refused a place in the line, or lost it.
pub(super) struct Cut<J> {
    pub(super) job: J,
    pub(super) failure: Failure,
}

impl<J> Line<J> {
    pub(super) fn new(limit: usize, share: Option<usize>) -> Self {
        Self {
            waiting: VecDeque::new(),
            limit: limit.max(1),
            share: share.map(|share| share.max(1)),
            next_id: 0,
            round: 0,
            started: 0,
            served: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a job. Returns its id, and the jobs that are cut for it: it may be the job itself.
    pub(super) fn enter(
        &mut self,
        turn: Turn,
        deadline: Option<Instant>,
        job: J,
        pace: Pace,
        now: Instant,
    ) -> (u64, Vec<Cut<J>>) {
        let id = self.next_id;
        self.next_id += 1;
        let turn = if self.share.is_some() { turn } else { Turn::default() };
        let own = self.waiting.iter().filter(|queued| queued.turn == turn);
        if self.share.is_some_and(|share| own.count() >= share) {
            let retry_after = pace.done_in(self.len()).max(RETRY_AFTER);
            return (id, vec![Cut { job, failure: Failure::RateLimited { retry_after } }]);
        }
        let round = self.round_of(turn);
        let queued = QueuedJob { id, turn, round, deadline, job };
        let rank = |queued: &QueuedJob<J>| (queued.round, !queued.turn.preferred);
        let at = self.waiting.partition_point(|other| rank(other) <= rank(&queued));
        self.waiting.insert(at, queued);
        (id, self.cut(pace, now))
    }

    fn round_of(&self, turn: Turn) -> u64 {
        if self.share.is_none() {
            return 0;
        }
        let after_waiting = self.waiting.iter().rev().find(|queued| queued.turn == turn).map(|queued| queued.round + 1);
        let after_served = self.served.get(&turn).copied();
        self.round.max(after_waiting.unwrap_or(0)).max(after_served.unwrap_or(0))
    }

    /// Removes jobs beyond the limits, and in a shared line those that would not be done in time.
    fn cut(&mut self, pace: Pace, now: Instant) -> Vec<Cut<J>> {
        // A job for which a thread is free does not wait.
        let room = self.limit + pace.idle();
        let (shared, mut kept, mut cut) = (self.share.is_some(), VecDeque::with_capacity(self.len()), Vec::new());
        for queued in self.waiting.drain(..) {
            let position: usize = kept.len();
            let is_late = || {
                let done = now + pace.done_in(position);
                shared && position >= pace.idle() && queued.deadline.is_some_and(|deadline| deadline < done)
            };
            if position < room && !is_late() {
                kept.push_back(queued);
                continue;
            }
            let retry_after = if shared { pace.done_in(position).max(RETRY_AFTER) } else { RETRY_AFTER };
            // A subject with another job before this one is delayed by itself.
            let own = shared && kept.iter().any(|other: &QueuedJob<J>| other.turn == queued.turn);
            let failure = if own { Failure::RateLimited { retry_after } } else { Failure::Overloaded { retry_after } };
            cut.push(Cut { job: queued.job, failure });
        }
        self.waiting = kept;
        cut
    }

    /// Removes the next job to run.
    pub(super) fn next(&mut self) -> Option<J> {
        let queued = self.waiting.pop_front()?;
        if self.share.is_some() {
            // New subjects may arrive without end: the round ends all the same, and those that had their turn in it are
            // next.
            let begun = if self.started < self.limit { queued.round } else { self.round + 1 };
            if begun > self.round {
                self.round = begun;
                self.started = 0;
                let round = self.round;
                self.served.retain(|_, next| *next > round);
            }
            self.started += 1;
            self.served.insert(queued.turn, self.round.max(queued.round) + 1);
        }
        Some(queued.job)
    }

    /// Removes a job whose caller is gone; `None` when it has left the line.
    pub(super) fn withdraw(&mut self, id: u64) -> Option<J> {
        let at = self.waiting.iter().position(|queued| queued.id == id)?;
        self.waiting.remove(at).map(|queued| queued.job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BUSY: Pace = Pace { threads: 1, running: 1, mean: SECOND };

    fn turn(subject: u128) -> Turn {
        Turn { subject, preferred: false }
    }

    fn known(subject: u128) -> Turn {
        Turn { subject, preferred: true }
    }

    /// A line of jobs that are named after their subjects.
    fn line(limit: usize, share: usize) -> Line<u128> {
        Line::new(limit, Some(share))
    }

    /// Enters a job. Returns the jobs that are cut.
    fn enter(line: &mut Line<u128>, turn: Turn) -> Vec<(u128, Failure)> {
        let (_, cut) = line.enter(turn, None, turn.subject, BUSY, Instant::now());
        cut.into_iter().map(|cut| (cut.job, cut.failure)).collect()
    }

    fn order(line: &mut Line<u128>) -> Vec<u128> {
        std::iter::from_fn(|| line.next()).collect()
    }

    #[test]
    fn without_shares_the_order_is_that_of_arrival() {
        let mut line = Line::new(3, None);
        for subject in [7, 7, 8] {
            assert!(enter(&mut line, turn(subject)).is_empty());
        }
        assert_eq!(enter(&mut line, known(9)), [(9, Failure::Overloaded { retry_after: RETRY_AFTER })]);
        assert_eq!(order(&mut line), [7, 7, 8]);
    }

    #[test]
    fn whoever_has_many_jobs_holds_up_nobody_else() {
        for crowd in [1, 3] {
            let mut line = line(16, 8);
            for _ in 0..30 {
                for subject in 0..crowd {
                    enter(&mut line, turn(subject));
                }
            }
            assert!(enter(&mut line, turn(99)).iter().all(|(subject, _)| *subject != 99));
            let place = order(&mut line).iter().position(|subject| *subject == 99);
            assert_eq!(place, usize::try_from(crowd).ok(), "after one of each of the {crowd} that came before");
        }
    }

    #[test]
    fn whoever_comes_again_while_others_wait_comes_after_them() {
        let mut line = line(16, 8);
        for subject in [1, 2, 3] {
            enter(&mut line, turn(subject));
        }
        assert_eq!(line.next(), Some(1));
        enter(&mut line, turn(1));
        enter(&mut line, turn(4));
        assert_eq!(order(&mut line), [2, 3, 4, 1]);
    }

    #[test]
    fn the_preferred_go_first_once_in_a_round() {
        let mut line = line(16, 8);
        for subject in [1, 2, 1] {
            enter(&mut line, turn(subject));
        }
        enter(&mut line, known(50));
        enter(&mut line, known(50));
        assert_eq!(line.next(), Some(50));
        enter(&mut line, known(50));
        assert_eq!(order(&mut line), [1, 2, 50, 1, 50]);
    }

    #[test]
    fn one_subject_has_its_share_of_the_places() {
        let mut line = line(16, 2);
        assert!(enter(&mut line, turn(1)).is_empty() && enter(&mut line, turn(1)).is_empty());
        assert_eq!(enter(&mut line, turn(1)), [(1, Failure::RateLimited { retry_after: 4 * SECOND })]);
        assert!(enter(&mut line, turn(2)).is_empty());
        assert_eq!(order(&mut line), [1, 2, 1]);
    }

    #[test]
    fn a_newcomer_takes_the_last_place_of_whoever_has_the_most() {
        let mut line = line(4, 8);
        for subject in [1, 1, 1, 2] {
            enter(&mut line, turn(subject));
        }
        assert_eq!(enter(&mut line, turn(3)), [(1, Failure::RateLimited { retry_after: 6 * SECOND })]);
        assert_eq!(enter(&mut line, turn(4)), [(1, Failure::RateLimited { retry_after: 6 * SECOND })]);
        assert_eq!(enter(&mut line, turn(5)), [(5, Failure::Overloaded { retry_after: 6 * SECOND })], "all have one");
        assert_eq!(enter(&mut line, known(6)), [(4, Failure::Overloaded { retry_after: 6 * SECOND })]);
        assert_eq!(order(&mut line), [6, 1, 2, 3]);
    }

    #[test]
    fn what_would_not_be_done_in_time_is_told_so_at_once() {
        let (mut line, now) = (line(16, 8), Instant::now());
        let mut enter = |turn: Turn| line.enter(turn, Some(now + 3 * SECOND), turn.subject, BUSY, now).1;
        assert!(enter(turn(1)).is_empty() && enter(turn(2)).is_empty());
        let cut = enter(turn(3));
        assert_eq!(cut.len(), 1);
        assert_eq!((cut[0].job, &cut[0].failure), (3, &Failure::Overloaded { retry_after: 4 * SECOND }));
        let displaced = enter(known(4));
        assert_eq!((displaced.len(), displaced[0].job), (1, 2));
    }

    #[test]
    fn a_free_thread_takes_a_job_however_slow_the_last_ones_were() {
        let (mut line, now) = (line(16, 8), Instant::now());
        let slow = Pace { threads: 1, running: 0, mean: 100 * SECOND };
        assert!(line.enter(turn(1), Some(now + SECOND), 1, slow, now).1.is_empty());
        assert_eq!(line.enter(turn(2), Some(now + SECOND), 2, slow, now).1.len(), 1);
    }

    #[test]
    fn newcomers_without_end_do_not_starve_whoever_comes_again() {
        let mut line = line(4, 8);
        enter(&mut line, turn(1));
        assert_eq!(line.next(), Some(1));
        enter(&mut line, turn(1));
        let mut order = Vec::new();
        for newcomer in 100..120 {
            enter(&mut line, turn(newcomer));
            order.extend(line.next());
            assert!(line.served.len() <= line.limit + 1, "{}", line.served.len());
        }
        assert!(order.iter().position(|subject| *subject == 1).is_some_and(|place| place <= 4), "{order:?}");
    }

    #[test]
    fn whoever_leaves_gives_its_place_back() {
        let mut line = line(16, 2);
        let (id, _) = line.enter(turn(1), None, 1, BUSY, Instant::now());
        enter(&mut line, turn(1));
        assert_eq!(line.withdraw(id), Some(1));
        assert_eq!(line.withdraw(id), None);
        assert!(enter(&mut line, turn(1)).is_empty());
        assert_eq!(line.len(), 2);
    }
}
