//! Supervisors, after OTP's own suite.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use super::fixture::{manual, until};
use crate::{
    ChildContext, ChildSpec, Clock, Exit, Intensity, Restart, Services, Strategy, Supervisor, SupervisorRef,
    supervise::ChildState,
};

/// Log of the children of a test, on this thread: each child waits for its exit.
#[derive(Default)]
struct Log {
    events: Vec<String>,
    end: HashMap<String, tokio::sync::oneshot::Sender<Exit>>,
}

thread_local!(static LOG: Rc<RefCell<Log>> = Rc::default());

fn note(event: String) {
    LOG.with(|log| log.borrow_mut().events.push(event));
}

fn events() -> Vec<String> {
    LOG.with(|log| std::mem::take(&mut log.borrow_mut().events))
}

async fn live(context: ChildContext) -> Exit {
    let name = context.name.clone();
    let (end, ended) = tokio::sync::oneshot::channel();
    LOG.with(|log| log.borrow_mut().end.insert(name.to_string(), end));
    note(format!("+{name}"));
    let exit = tokio::select! {
        exit = ended => exit.unwrap_or(Exit::Normal),
        () = context.stopping() => {
            note(format!("-{name}"));
            Exit::Shutdown
        }
    };
    match exit {
        Exit::Abnormal(reason) if reason == "panic" => panic!("a child panics"),
        exit => exit,
    }
}

fn child(name: &'static str) -> ChildSpec {
    ChildSpec::new(name, live)
}

fn end(name: &str, exit: Exit) {
    let sender = LOG.with(|log| log.borrow_mut().end.remove(name)).unwrap();
    sender.send(exit).unwrap();
}

fn abnormal() -> Exit {
    Exit::Abnormal("broken".to_owned())
}

async fn started(supervisor: Supervisor, first: &[&str]) -> (SupervisorRef, Clock) {
    let clock = manual();
    let reference = supervisor.start(Services::detached(clock.clone()));
    until(|| LOG.with(|log| log.borrow().events.len()) == first.len()).await;
    assert_eq!(events(), first);
    (reference, clock)
}

fn state(supervisor: &SupervisorRef, name: &str) -> Option<ChildState> {
    supervisor.children().into_iter().find(|child| child.name == name).map(|child| child.state)
}

async fn restarted(clock: &Clock, expected: &[&str]) {
    until(|| clock.sleepers() >= 1).await;
    clock.advance(Duration::from_secs(3));
    until(|| LOG.with(|log| log.borrow().events.len()) >= expected.len()).await;
    assert_eq!(events(), expected);
}

#[actix_rt::test]
async fn restart_types_and_exit_reasons_decide_about_a_restart() {
    // (restart, exit, is restarted, what is left otherwise)
    let matrix = [
        (Restart::Permanent, Exit::Normal, true, None),
        (Restart::Permanent, Exit::Shutdown, true, None),
        (Restart::Permanent, abnormal(), true, None),
        (Restart::Transient, Exit::Normal, false, Some(ChildState::Ended)),
        (Restart::Transient, Exit::Shutdown, false, Some(ChildState::Ended)),
        (Restart::Transient, abnormal(), true, None),
        (Restart::Temporary, Exit::Normal, false, None),
        (Restart::Temporary, Exit::Shutdown, false, None),
        (Restart::Temporary, abnormal(), false, None),
    ];
    for (restart, exit, is_restarted, left) in matrix {
        let plan = Supervisor::new("matrix").child(child("bystander")).child(child("a").restart(restart));
        let (supervisor, clock) = started(plan, &["+bystander", "+a"]).await;
        end("a", exit.clone());
        until(|| state(&supervisor, "a") != Some(ChildState::Running)).await;
        if is_restarted {
            assert_eq!(state(&supervisor, "a"), Some(ChildState::Waiting), "{restart:?} {exit:?}");
            restarted(&clock, &["+a"]).await;
            assert_eq!(supervisor.children()[1].restarts, 1);
        } else {
            assert_eq!(state(&supervisor, "a"), left, "{restart:?} {exit:?}");
            assert_eq!(clock.sleepers(), 0);
        }
        assert_eq!(state(&supervisor, "bystander"), Some(ChildState::Running));
        supervisor.stop().await;
        events();
    }
}

#[actix_rt::test]
async fn one_for_one_restarts_only_the_child_that_failed() {
    let plan = Supervisor::new("s").child(child("a")).child(child("b")).child(child("c"));
    let (supervisor, clock) = started(plan, &["+a", "+b", "+c"]).await;
    end("b", Exit::Abnormal("panic".to_owned()));
    restarted(&clock, &["+b"]).await;
    supervisor.stop().await;
    assert_eq!(events(), ["-c", "-b", "-a"], "and all stop in reverse order");
}

#[actix_rt::test]
async fn one_for_all_stops_in_reverse_order_and_starts_in_order() {
    let plan = Supervisor::new("s")
        .strategy(Strategy::OneForAll)
        .child(child("a"))
        .child(child("b"))
        .child(child("passing").restart(Restart::Temporary))
        .child(child("c"));
    let (supervisor, clock) = started(plan, &["+a", "+b", "+passing", "+c"]).await;
    end("b", abnormal());
    restarted(&clock, &["-c", "-passing", "-a", "+a", "+b", "+c"]).await;
    assert_eq!(state(&supervisor, "passing"), None, "a temporary child is not started again");
    supervisor.stop().await;
    events();
}

#[actix_rt::test]
async fn rest_for_one_restarts_the_child_and_those_after_it() {
    let plan = Supervisor::new("s")
        .strategy(Strategy::RestForOne)
        .child(child("a"))
        .child(child("b"))
        .child(child("c"))
        .child(child("d"));
    let (supervisor, clock) = started(plan, &["+a", "+b", "+c", "+d"]).await;
    end("b", abnormal());
    restarted(&clock, &["-d", "-c", "+b", "+c", "+d"]).await;
    end("d", abnormal());
    restarted(&clock, &["+d"]).await;
    supervisor.stop().await;
    events();
}

#[actix_rt::test]
async fn the_sixth_restart_in_thirty_seconds_makes_the_supervisor_give_up_in_order() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let plan = Supervisor::new("s").strategy(strategy).child(child("a")).child(child("b"));
        let (supervisor, clock) = started(plan, &["+a", "+b"]).await;
        for _ in 0..5 {
            end("b", abnormal());
            until(|| clock.sleepers() >= 1).await;
            clock.advance(Duration::from_secs(4));
            until(|| LOG.with(|log| log.borrow().events.iter().any(|event| event == "+b"))).await;
            events();
        }
        end("b", abnormal());
        let exit = supervisor.ended().await;
        assert!(matches!(&exit, Exit::Abnormal(reason) if reason.contains("more than 5 restarts")), "{exit:?}");
        assert_eq!(events(), ["-a"]);
    }
}

#[actix_rt::test]
async fn a_supervisor_that_gives_up_is_restarted_by_its_parent_until_that_gives_up() {
    let below = Supervisor::new("below")
        .intensity(Intensity { restarts: 0, within: Duration::from_secs(30) })
        .child(child("a"))
        .child(child("b"));
    let plan = Supervisor::new("above")
        .intensity(Intensity { restarts: 1, within: Duration::from_secs(30) })
        .child(child("other"))
        .child(below.into_child(Restart::Permanent));
    let (supervisor, clock) = started(plan, &["+other", "+a", "+b"]).await;
    let views = supervisor.children();
    assert_eq!(views[1].children.iter().map(|child| &*child.name).collect::<Vec<_>>(), ["a", "b"]);
    end("b", abnormal());
    restarted(&clock, &["-a", "+a", "+b"]).await;
    end("a", abnormal());
    assert!(matches!(supervisor.ended().await, Exit::Abnormal(_)));
    assert_eq!(events(), ["-b", "-other"]);
}

#[actix_rt::test]
async fn restarts_wait_longer_each_time() {
    let (supervisor, clock) = started(Supervisor::new("s").child(child("a")), &["+a"]).await;
    for (shortest, longest) in [(80, 120), (160, 240), (320, 480)] {
        end("a", abnormal());
        until(|| clock.sleepers() == 1).await;
        clock.advance(Duration::from_millis(shortest - 1));
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(events().is_empty());
        clock.advance(Duration::from_millis(longest - shortest + 1));
        until(|| LOG.with(|log| log.borrow().events.len()) == 1).await;
        assert_eq!(events(), ["+a"]);
    }
    supervisor.stop().await;
    events();
}

#[actix_rt::test]
async fn a_child_that_does_not_stop_is_dropped_at_its_deadline_and_the_next_gets_its_own() {
    let stubborn = |name: &'static str, seconds| {
        ChildSpec::new(name, move |_| async move {
            struct Dropped(&'static str);
            impl Drop for Dropped {
                fn drop(&mut self) {
                    note(format!("dropped {}", self.0));
                }
            }
            let _dropped = Dropped(name);
            note(format!("+{name}"));
            std::future::pending().await
        })
        .stop_within(Duration::from_secs(seconds))
    };
    let plan = Supervisor::new("s").child(stubborn("a", 2)).child(child("b")).child(stubborn("c", 1));
    let (supervisor, clock) = started(plan, &["+a", "+b", "+c"]).await;
    let stopping = actix_rt::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.stop().await }
    });
    until(|| clock.sleepers() == 1).await;
    assert!(events().is_empty());
    clock.advance(Duration::from_secs(1));
    until(|| LOG.with(|log| log.borrow().events.len()) == 2 && clock.sleepers() == 1).await;
    assert_eq!(events(), ["dropped c", "-b"]);
    clock.advance(Duration::from_secs(2));
    stopping.await.unwrap();
    assert_eq!(events(), ["dropped a"]);
}

#[actix_rt::test]
async fn children_come_and_go_at_run_time() {
    let (supervisor, clock) = started(Supervisor::new("s").child(child("a")), &["+a"]).await;
    supervisor.start_child(child("b")).await.unwrap();
    assert!(supervisor.start_child(child("b")).await.unwrap_err().contains('b'));
    until(|| LOG.with(|log| log.borrow().events.len()) == 1).await;
    end("b", abnormal());
    restarted(&clock, &["+b", "+b"]).await;
    assert!(supervisor.stop_child("b").await);
    assert!(!supervisor.stop_child("b").await);
    assert_eq!(events(), ["-b"]);
    assert_eq!(supervisor.children().len(), 1);
    supervisor.stop().await;
    assert!(supervisor.start_child(child("c")).await.is_err());
    events();
}

#[actix_rt::test]
async fn a_child_that_waits_for_its_restart_is_stopped_at_once() {
    let (supervisor, clock) = started(Supervisor::new("s").child(child("a")), &["+a"]).await;
    end("a", abnormal());
    until(|| clock.sleepers() == 1).await;
    supervisor.stop().await;
    assert_eq!((supervisor.ended().await, clock.sleepers()), (Exit::Shutdown, 0));
}
