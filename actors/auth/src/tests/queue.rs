//! The queue for bcrypt: waits are counted in checks, not in seconds.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use callboard_messages::{
    CallError, Caller, Failure,
    auth::{AuthError, Login},
};
use callboard_supervisors::{Outcome, Turn};
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::{Node, PASSWORD, login, on_each_with, register, visitor_at};
use crate::AuthSettings;

/// A bcrypt thread that is blocked until it is let go.
struct Held(mpsc::Sender<()>);

impl Held {
    /// Blocks the next free thread in this turn; the handle completes when it is blocked.
    fn hold(node: &Node, turn: Turn) -> (Self, JoinHandle<()>) {
        let (let_go, held) = mpsc::channel();
        let (tell, told) = tokio::sync::oneshot::channel();
        let pool = node.bcrypt.clone();
        actix_rt::spawn(async move {
            let job = move || {
                let _ = tell.send(());
                let _ = held.recv();
            };
            pool.run_in_turn(turn, None, job).await.unwrap();
        });
        (Self(let_go), actix_rt::spawn(async move { told.await.unwrap() }))
    }

    fn let_go(self) {
        self.0.send(()).unwrap();
    }
}

fn attempt(node: &Node, caller: Caller, message: Login) -> JoinHandle<Outcome<Login>> {
    let bus = node.runtime.bus().clone();
    actix_rt::spawn(async move { bus.ask(&caller, message).await })
}

/// Waits until this many jobs were queued or refused.
async fn entered(node: &Node, jobs: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let view = node.bcrypt.view();
        if view.queued as u64 + view.rejected == jobs {
            return;
        }
        assert!(Instant::now() < deadline, "{view:?}, and not {jobs}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn one_thread(settings: &mut AuthSettings) {
    settings.bcrypt_threads = 1;
    (settings.bcrypt_queue, settings.bcrypt_share) = (16, 8);
}

/// Wrong attempts of a crowd, and then one of the owner with the right password.
struct Scene {
    crowd: Vec<(Caller, Login)>,
    owner: (Caller, Login),
    /// Whether the owner's device is known.
    known: bool,
}

/// Number of checks until the owner is signed in, including its own.
async fn checks(node: &Node, Scene { crowd, owner, known }: Scene) -> u64 {
    let (thread, taken) = Held::hold(node, Turn::default());
    taken.await.unwrap();
    let (refused, attempts) = (node.bcrypt.view().rejected, crowd.len() as u64);
    let crowd: Vec<_> = crowd.into_iter().map(|(caller, message)| attempt(node, caller, message)).collect();
    entered(node, refused + attempts).await;
    let owner = attempt(node, owner.0, owner.1);
    entered(node, refused + attempts + 1).await;
    // The next job of its kind is queued right behind the owner's.
    let nobody = u128::MAX - u128::from(attempts);
    let (behind, reached) = Held::hold(node, Turn { subject: nobody, preferred: known });
    entered(node, refused + attempts + 2).await;

    let before = node.password_work();
    thread.let_go();
    reached.await.unwrap();
    owner.await.unwrap().unwrap();
    let checks = node.password_work() - before;
    behind.let_go();
    for outcome in join_all(crowd).await {
        match outcome.unwrap().unwrap_err() {
            CallError::Refused(AuthError::WrongCredentials) => {}
            CallError::Failed(Failure::RateLimited { retry_after } | Failure::Overloaded { retry_after }) => {
                assert!(retry_after >= Duration::from_secs(1), "{retry_after:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    checks
}

/// Thirty sign-ins from each of these addresses.
fn crowd_at(addresses: u8) -> Vec<(Caller, Login)> {
    let attempt = |number: u8| {
        let caller = visitor_at(&format!("203.0.{addresses}.{}", number % addresses));
        (caller, login(&format!("nobody{number}@example.org"), "wrong horse battery"))
    };
    (0..30 * addresses).map(attempt).collect()
}

#[actix_rt::test]
async fn a_crowd_keeps_nobody_at_another_address_from_signing_in() {
    on_each_with(one_thread, async |node| {
        node.register("ada@example.org").await;
        for addresses in [1, 3, 8] {
            let owner = (visitor_at(&format!("198.51.100.{addresses}")), login("ada@example.org", PASSWORD));
            let checks = checks(node, Scene { crowd: crowd_at(addresses), owner, known: false }).await;
            assert_eq!(checks, u64::from(addresses) + 1, "one of each address before it");
        }
    })
    .await;
}

#[actix_rt::test]
async fn a_device_that_the_account_knows_goes_first() {
    on_each_with(one_thread, async |node| {
        let ada = node.register("ada@example.org").await;
        let message = Login { device: ada.device.clone(), ..login("ada@example.org", PASSWORD) };
        // More addresses than the queue takes, its own among them.
        let scene = Scene { crowd: crowd_at(8), owner: (visitor_at("203.0.8.1"), message), known: true };
        assert_eq!(checks(node, scene).await, 1);
    })
    .await;
}

#[actix_rt::test]
async fn what_has_no_place_is_refused_at_once() {
    on_each_with(one_thread, async |node| {
        let (thread, taken) = Held::hold(node, Turn::default());
        taken.await.unwrap();
        let crowd: Vec<_> = crowd_at(1).into_iter().map(|(caller, message)| attempt(node, caller, message)).collect();
        entered(node, 30).await;
        assert_eq!((node.bcrypt.view().queued, node.bcrypt.view().rejected), (8, 22), "its share waits");
        let deadline = Instant::now() + Duration::from_secs(30);
        while crowd.iter().filter(|attempt| attempt.is_finished()).count() < 22 {
            assert!(Instant::now() < deadline, "who is refused waits for the thread");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (waiting, refused): (Vec<_>, Vec<_>) = crowd.into_iter().partition(|attempt| !attempt.is_finished());
        for outcome in join_all(refused).await {
            let outcome = outcome.unwrap().unwrap_err();
            assert!(matches!(outcome, CallError::Failed(Failure::RateLimited { .. })), "{outcome:?}");
        }
        let registered = node.ask(&visitor_at("203.0.1.0"), register("eve@example.org")).await;
        let outcome = registered.unwrap_err();
        assert!(matches!(outcome, CallError::Failed(Failure::RateLimited { .. })), "a registration waits with them");
        thread.let_go();
        for outcome in join_all(waiting).await {
            outcome.unwrap().unwrap_err();
        }
    })
    .await;
}
