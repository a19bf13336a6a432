use std::time::Duration;

use callboard_messages::{
    CallError, Caller, Failure, Secret,
    auth::{AuthError, IssueLocalKey, Login, Tokens},
};
use futures_util::future::join_all;

use super::{PASSWORD, login, on_each, on_each_with, refusal, visitor, visitor_at};

const WRONG: &str = "wrong horse battery";

#[actix_rt::test]
async fn a_password_starts_a_session() {
    on_each(async |node| {
        let registered = node.register("ada@example.org").await;
        let tokens = node.login("ADA@example.org", PASSWORD).await.unwrap();
        assert_eq!(tokens.account, registered.account);
        assert_ne!(tokens.session_id, registered.session_id);
        assert_eq!(node.caller(&tokens.access_token).await.session_id, Some(tokens.session_id));
    })
    .await;
}

#[actix_rt::test]
async fn unknown_account_and_wrong_password_get_the_same_answer_after_the_same_work() {
    on_each(async |node| {
        node.register("ada@example.org").await;
        node.ask(&Caller::system(), IssueLocalKey::default()).await.unwrap();
        let mut answers = Vec::new();
        for email in ["ada@example.org", "nobody@example.org", "operator@localhost"] {
            let before = node.password_work();
            answers.push(node.login(email, WRONG).await.unwrap_err());
            assert_eq!(node.password_work() - before, 1, "{email}");
        }
        for answer in answers {
            assert_eq!(answer, CallError::Refused(AuthError::WrongCredentials));
        }
    })
    .await;
}

#[actix_rt::test]
async fn failures_delay_the_next_attempt_for_that_account_and_address_only() {
    on_each(async |node| {
        node.register("ada@example.org").await;
        node.register("bob@example.org").await;
        for email in ["ada@example.org", "nobody@example.org"] {
            for _ in 0..5 {
                let outcome = node.login(email, WRONG).await;
                assert_eq!(refusal(outcome), AuthError::WrongCredentials, "{email}");
            }
            let before = node.password_work();
            let locked = CallError::Refused(AuthError::LockedOut { retry_after: Duration::from_secs(1) });
            assert_eq!(node.login(email, PASSWORD).await.unwrap_err(), locked, "{email}");
            assert_eq!(node.password_work(), before, "a refused attempt costs nothing");
        }
        node.login_from("192.0.2.2", "ada@example.org", PASSWORD).await.unwrap();
        node.login("bob@example.org", PASSWORD).await.unwrap();

        node.clock.advance(Duration::from_secs(1));
        let outcome = node.login("ada@example.org", WRONG).await;
        assert_eq!(refusal(outcome), AuthError::WrongCredentials);
        let twice = CallError::Refused(AuthError::LockedOut { retry_after: Duration::from_secs(2) });
        assert_eq!(node.login("ada@example.org", PASSWORD).await.unwrap_err(), twice);
        node.clock.advance(Duration::from_secs(2));
        node.login("ada@example.org", PASSWORD).await.unwrap();

        // Success resets: the next failures are free again.
        for _ in 0..4 {
            node.login("ada@example.org", WRONG).await.unwrap_err();
        }
        node.login("ada@example.org", PASSWORD).await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn guesses_side_by_side_are_delayed_like_guesses_in_a_row() {
    on_each_with(
        |settings| (settings.bcrypt_queue, settings.bcrypt_share) = (64, 64),
        async |node| {
            node.register("ada@example.org").await;
            let wrong = (0..20).map(|_| node.login("ada@example.org", WRONG));
            let outcomes = join_all(wrong).await;
            let heard = outcomes
                .iter()
                .filter(|outcome| matches!(outcome, Err(CallError::Refused(AuthError::WrongCredentials))))
                .count();
            assert_eq!(heard, 5);
            let outcome = node.login("ada@example.org", PASSWORD).await;
            assert!(matches!(outcome, Err(CallError::Refused(AuthError::LockedOut { .. }))));
        },
    )
    .await;
}

#[actix_rt::test]
async fn the_right_password_side_by_side_is_never_delayed() {
    on_each_with(
        |settings| (settings.bcrypt_queue, settings.bcrypt_share) = (64, 64),
        async |node| {
            node.register("ada@example.org").await;
            for outcome in join_all((0..20).map(|_| node.login("ada@example.org", PASSWORD))).await {
                outcome.unwrap();
            }
        },
    )
    .await;
}

#[actix_rt::test]
async fn a_storm_of_sign_ins_is_shed_and_hurts_nothing_else() {
    on_each_with(
        |settings| {
            settings.bcrypt_cost = 9;
            settings.bcrypt_threads = 1;
            settings.bcrypt_queue = 2;
            settings.bcrypt_share = 1;
        },
        async |node| {
            let tokens = node.register("ada@example.org").await;
            let storm = join_all((0..40).map(|number| {
                let email = format!("nobody{number}@example.org");
                let address = format!("192.0.2.{}", 1 + number % 4);
                async move { node.login_from(&address, &email, WRONG).await }
            }));
            let validations = join_all((0..40).map(|_| node.validate(&tokens.access_token)));
            let (storm, validations) = futures_util::join!(storm, validations);
            assert!(validations.iter().all(Result::is_ok));
            let (mut heard, mut shed) = (0, 0);
            for outcome in storm {
                match outcome.unwrap_err() {
                    CallError::Refused(AuthError::WrongCredentials) => heard += 1,
                    CallError::Failed(Failure::Overloaded { retry_after } | Failure::RateLimited { retry_after }) => {
                        assert!(!retry_after.is_zero());
                        shed += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(heard >= 3 && shed >= 20, "{heard} heard, {shed} shed");
        },
    )
    .await;
}

#[actix_rt::test]
async fn what_is_no_address_is_refused_at_once() {
    on_each(async |node| {
        for email in ["", "ada", "ada@", "' OR 1=1 --", &"x".repeat(100_000)] {
            let outcome = node.ask(&visitor(), login(email, PASSWORD)).await;
            assert_eq!(refusal(outcome), AuthError::InvalidEmail);
        }
        assert_eq!(node.password_work(), 0);
    })
    .await;
}

/// A sign-in from the device that these tokens were given to.
fn from_device(tokens: &Tokens, password: &str) -> Login {
    Login { device: tokens.device.clone(), ..login(&tokens.account.email, password) }
}

#[actix_rt::test]
async fn the_failures_of_others_at_its_address_do_not_delay_a_device_that_the_account_knows() {
    on_each(async |node| {
        let ada = node.register("ada@example.org").await;
        for _ in 0..5 {
            node.login("ada@example.org", WRONG).await.unwrap_err();
        }
        let locked_out = |outcome| matches!(outcome, Err(CallError::Refused(AuthError::LockedOut { .. })));
        assert!(locked_out(node.login("ada@example.org", PASSWORD).await));
        let again = node.ask(&visitor(), from_device(&ada, PASSWORD)).await.unwrap();
        assert_eq!(again.device, ada.device, "it stays the same device");

        // A known device does not bypass the delay: its own failures count, from any address.
        for number in 0..5 {
            let caller = visitor_at(&format!("198.51.100.{number}"));
            node.ask(&caller, from_device(&ada, WRONG)).await.unwrap_err();
        }
        assert!(locked_out(node.ask(&visitor_at("203.0.113.1"), from_device(&ada, PASSWORD)).await));
        node.login_from("203.0.113.1", "ada@example.org", PASSWORD).await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn the_device_of_one_account_is_a_stranger_to_another() {
    on_each(async |node| {
        let ada = node.register("ada@example.org").await;
        let bob = node.register("bob@example.org").await;
        for _ in 0..5 {
            node.login("bob@example.org", WRONG).await.unwrap_err();
        }
        for device in [ada.device.clone(), Some(ada.refresh_token.clone()), Some(Secret::new("cbd_guess"))] {
            let message = Login { device, ..from_device(&bob, PASSWORD) };
            let outcome = node.ask(&visitor(), message).await;
            assert!(matches!(outcome, Err(CallError::Refused(AuthError::LockedOut { .. }))), "{outcome:?}");
        }
    })
    .await;
}
