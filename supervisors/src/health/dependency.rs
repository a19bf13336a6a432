//! Dependencies outside of the node: a database server, Redis, the object store.
//!
//! Callers report one that does not answer. It is then asked in the background until it does, and breakers that depend
//! on it are reset in that moment: none keeps callers from a server that is back. A
//! [watched](crate::ChildSpec::watching) one is asked regularly, also while nobody needs it. An outage is logged when
//! it begins and when it is over, and not with each call that meets it.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout},
};

/// Default time limit of the answer to one question.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Default of [`About::meanwhile`].
const REFUSED: &str = "what needs it is refused until it does";
/// Pause before the next question. Together with the time for an answer, breakers are reset within two seconds.
const PAUSE: Duration = Duration::from_millis(500);

type Probe = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A dependency outside of the node. Cheap to clone.
#[derive(Clone)]
pub struct Dependency(Arc<Inner>);

struct Inner {
    about: About,
    probe: Probe,
    /// Number of times it has come back.
    returns: AtomicU64,
    /// Set while it is asked.
    question: Mutex<Option<Question>>,
}

/// The name of a dependency, and the time limit of its answers.
#[derive(Debug, Clone)]
pub struct About {
    /// Its name and address, for people.
    pub name: String,
    /// What is done while it is away: the end of a sentence. Default: what needs it is refused.
    pub meanwhile: &'static str,
    /// Time limit of the answer to one question. Default: 1 s.
    pub answers_within: Duration,
}

impl<N: Into<String>> From<N> for About {
    fn from(name: N) -> Self {
        Self { name: name.into(), meanwhile: REFUSED, answers_within: ANSWERS_WITHIN }
    }
}

#[derive(Debug, Default)]
struct Question {
    /// Whether calls have failed by it, so that breakers may be open when it answers.
    broke: bool,
    /// Set while it is known to be away.
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    /// Why the last question failed.
    reason: String,
}

impl Dependency {
    /// A dependency that is there when `probe` succeeds.
    pub fn new<F>(about: impl Into<About>, probe: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let probe: Probe = Box::new(move || probe().boxed());
        Self(Arc::new(Inner { about: about.into(), probe, returns: AtomicU64::new(0), question: Mutex::new(None) }))
    }

    /// Its name for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.about.name
    }

    /// A number that changes each time it answers again after it did not.
    #[inline]
    #[must_use]
    pub fn returns(&self) -> u64 {
        self.0.returns.load(Ordering::Relaxed)
    }

    /// Whether it is known to be away.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.0.question.lock().as_ref().is_some_and(|question| question.outage.is_some())
    }

    /// Why its last question failed, while it is known to be away.
    #[must_use]
    pub fn away(&self) -> Option<String> {
        let question = self.0.question.lock();
        question.as_ref()?.outage.as_ref().map(|outage| outage.reason.clone())
    }

    /// Reports that it refused a connection, or that one to it broke.
    pub fn broke(&self) {
        self.ask(true);
    }

    /// Reports that a call was given up without an answer: it may be away, or just slow.
    pub fn doubt(&self) {
        self.ask(false);
    }

    fn ask(&self, broke: bool) {
        let mut question = self.0.question.lock();
        if let Some(question) = &mut *question {
            question.broke |= broke;
            return;
        }
        // Without a tokio runtime there is nobody to ask; the next caller may have one.
        let Ok(runtime) = Handle::try_current() else { return };
        *question = Some(Question { broke, outage: None });
        drop(question);
        runtime.spawn(Asking { of: Arc::downgrade(&self.0), is_over: false }.until_it_answers());
    }
}

impl Inner {
    fn answered(&self) {
        let question = self.question.lock().take().unwrap_or_default();
        if question.broke || question.outage.is_some() {
            self.returns.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(outage) = question.outage {
            tracing::warn!(seconds = outage.since.elapsed().as_secs(), "{} answers again", self.about.name);
        }
    }

    fn is_silent(&self, reason: String) {
        let mut question = self.question.lock();
        let Some(question) = &mut *question else { return };
        match &mut question.outage {
            Some(outage) => outage.reason = reason,
            None => {
                tracing::error!(reason, "{} does not answer; {}", self.about.name, self.about.meanwhile);
                question.outage = Some(Outage { since: Instant::now(), reason });
            }
        }
    }
}

/// Asks for as long as the dependency exists.
struct Asking {
    of: Weak<Inner>,
    is_over: bool,
}

impl Asking {
    async fn until_it_answers(mut self) {
        loop {
            let asked = self.of.upgrade().map(|inner| (inner.about.answers_within, (inner.probe)()));
            let Some((within, probe)) = asked else { return };
            let answer = timeout(within, probe).await;
            let Some(inner) = self.of.upgrade() else { return };
            match answer {
                Ok(Ok(())) => {
                    self.is_over = true;
                    return inner.answered();
                }
                Ok(Err(reason)) => inner.is_silent(reason),
                Err(_) => inner.is_silent("there is no answer".to_owned()),
            }
            drop(inner);
            sleep(PAUSE).await;
        }
    }
}

impl Drop for Asking {
    /// A thread that ends drops the question; the next caller that finds it away asks anew.
    fn drop(&mut self) {
        if let Some(inner) = self.of.upgrade().filter(|_| !self.is_over) {
            *inner.question.lock() = None;
        }
    }
}

impl fmt::Debug for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { about, question, .. } = &*self.0;
        f.debug_struct("Dependency")
            .field("name", &about.name)
            .field("question", &*question.lock())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use super::*;

    /// A dependency that is there or not, and the number of questions.
    fn dependency(is_there: &Arc<AtomicBool>) -> (Dependency, Arc<AtomicUsize>) {
        let (is_there, asked) = (is_there.clone(), Arc::<AtomicUsize>::default());
        let counted = asked.clone();
        let dependency = Dependency::new("a test", move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = if is_there.load(Ordering::SeqCst) { Ok(()) } else { Err("away".to_owned()) };
            std::future::ready(answer)
        });
        (dependency, asked)
    }

    async fn until(is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < deadline, "not within half a minute");
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn what_is_back_is_noticed_within_two_seconds_and_once() {
        let is_there = Arc::new(AtomicBool::new(false));
        let (dependency, asked) = dependency(&is_there);
        for _ in 0..100 {
            dependency.broke();
            dependency.doubt();
        }
        until(|| dependency.is_away()).await;
        assert_eq!(dependency.away().as_deref(), Some("away"));
        assert_eq!((asked.load(Ordering::SeqCst), dependency.returns()), (1, 0), "one asks for all");
        is_there.store(true, Ordering::SeqCst);
        let began = Instant::now();
        until(|| dependency.returns() == 1).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(!dependency.is_away());
        assert!(dependency.0.question.lock().is_none(), "nobody asks any more");
    }

    #[tokio::test]
    async fn a_connection_that_broke_counts_at_once_and_mere_slowness_does_not() {
        let (dependency, asked) = dependency(&Arc::new(AtomicBool::new(true)));
        let is_over = || asked.load(Ordering::SeqCst) > 0 && dependency.0.question.lock().is_none();
        dependency.doubt();
        until(is_over).await;
        assert_eq!(dependency.returns(), 0);
        dependency.broke();
        until(|| dependency.returns() == 1).await;
    }

    #[tokio::test]
    async fn one_that_is_silent_is_asked_again() {
        let asked = Arc::<AtomicUsize>::default();
        let counted = asked.clone();
        let dependency = Dependency::new("a test", move || {
            let is_first = counted.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if is_first {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
        dependency.doubt();
        until(|| dependency.returns() == 1).await;
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_question_that_ends_with_its_thread_is_asked_by_the_next() {
        let is_there = Arc::new(AtomicBool::new(false));
        let (dependency, _) = dependency(&is_there);
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime().block_on(async {
            dependency.broke();
            until(|| dependency.is_away()).await;
        });
        assert!(!dependency.is_away());
        is_there.store(true, Ordering::SeqCst);
        dependency.broke();
        assert_eq!(dependency.returns(), 0, "no runtime, no question");
        runtime().block_on(async {
            dependency.broke();
            until(|| dependency.returns() == 1).await;
        });
    }
}
