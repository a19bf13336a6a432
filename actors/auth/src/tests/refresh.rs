use std::{collections::BTreeSet, time::Duration};

use callboard_messages::{
    CallError, Secret,
    auth::{AuthError, LogoutAll, RefreshToken, Tokens},
};
use callboard_supervisors::Outcome;
use futures_util::future::join_all;

use super::{Node, on_each, refusal, visitor};

async fn refresh(node: &Node, token: &Secret) -> Outcome<RefreshToken> {
    node.ask(&visitor(), RefreshToken { refresh_token: token.clone() }).await
}

fn invalid<T>(outcome: Result<T, CallError<AuthError>>) -> bool {
    matches!(outcome, Err(CallError::Refused(AuthError::InvalidToken)))
}

#[actix_rt::test]
async fn a_token_is_exchanged_for_its_successor() {
    on_each(async |node| {
        let first = node.register("ada@example.org").await;
        node.clock.advance(Duration::from_secs(60));
        let second = refresh(node, &first.refresh_token).await.unwrap();
        assert_eq!((second.session_id, &second.account), (first.session_id, &first.account));
        assert_ne!(second.refresh_token.expose(), first.refresh_token.expose());
        assert_ne!(second.access_token.expose(), first.access_token.expose());
        node.validate(&second.access_token).await.unwrap();
        node.validate(&first.access_token).await.unwrap();
        refresh(node, &second.refresh_token).await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn twenty_parallel_refreshes_give_one_successor_and_log_nobody_out() {
    on_each(async |node| {
        let first = node.register("ada@example.org").await;
        let outcomes = join_all((0..20).map(|_| refresh(node, &first.refresh_token))).await;
        let tokens: Vec<Tokens> = outcomes.into_iter().map(Result::unwrap).collect();
        let successors: BTreeSet<_> = tokens.iter().map(|tokens| tokens.refresh_token.expose()).collect();
        assert_eq!(successors.len(), 1);
        for tokens in &tokens {
            node.validate(&tokens.access_token).await.unwrap();
        }
        refresh(node, &tokens[0].refresh_token).await.unwrap();
        let database = node.databases.open(crate::DOMAIN).await.unwrap();
        let stored: i64 = database.query("SELECT COUNT(*) FROM refresh_tokens").fetch_scalar().await.unwrap();
        assert_eq!(stored, 3);
    })
    .await;
}

#[actix_rt::test]
async fn a_lost_answer_can_be_asked_for_again_for_ten_seconds() {
    on_each(async |node| {
        let first = node.register("ada@example.org").await;
        let second = refresh(node, &first.refresh_token).await.unwrap();
        node.clock.advance(Duration::from_secs(10));
        let again = refresh(node, &first.refresh_token).await.unwrap();
        assert_eq!(again.refresh_token, second.refresh_token);
        refresh(node, &second.refresh_token).await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn reuse_of_a_spent_token_ends_the_session_at_once() {
    on_each(async |node| {
        let first = node.register("ada@example.org").await;
        let other = node.login("ada@example.org", super::PASSWORD).await.unwrap();
        let second = refresh(node, &first.refresh_token).await.unwrap();
        let third = refresh(node, &second.refresh_token).await.unwrap();
        node.clock.advance(Duration::from_millis(10_001));
        let epoch = node.revocations.epoch();
        let outcome = refresh(node, &first.refresh_token).await;
        assert_eq!(refusal(outcome), AuthError::RefreshReused);
        assert!(node.revocations.epoch() > epoch);
        for token in [&second.refresh_token, &third.refresh_token, &first.refresh_token] {
            assert!(invalid(refresh(node, token).await));
        }
        for token in [&first.access_token, &third.access_token] {
            assert!(invalid(node.validate(token).await));
        }
        node.validate(&other.access_token).await.unwrap();
        refresh(node, &other.refresh_token).await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn a_refresh_token_lives_seven_days_from_the_last_refresh() {
    on_each(async |node| {
        let first = node.register("ada@example.org").await;
        node.clock.advance(Duration::from_secs(6 * 24 * 60 * 60));
        let second = refresh(node, &first.refresh_token).await.unwrap();
        node.clock.advance(Duration::from_secs(6 * 24 * 60 * 60));
        let third = refresh(node, &second.refresh_token).await.unwrap();
        node.clock.advance(node.settings.refresh_token_lifetime);
        assert!(invalid(refresh(node, &third.refresh_token).await));
    })
    .await;
}

#[actix_rt::test]
async fn an_ended_session_can_not_be_refreshed() {
    on_each(async |node| {
        let tokens = node.register("ada@example.org").await;
        let caller = node.caller(&tokens.access_token).await;
        node.ask(&caller, LogoutAll {}).await.unwrap();
        assert!(invalid(refresh(node, &tokens.refresh_token).await));
    })
    .await;
}

#[actix_rt::test]
async fn what_is_no_refresh_token_is_refused() {
    on_each(async |node| {
        let tokens = node.register("ada@example.org").await;
        let huge = Secret::new("x".repeat(100_000));
        let guesses = ["", "cbr_", "cbr_AAAA", "' OR 1=1"].map(Secret::new);
        for token in guesses.iter().chain([&tokens.access_token, &huge]) {
            assert!(invalid(refresh(node, token).await));
        }
    })
    .await;
}

#[actix_rt::test]
async fn no_token_is_stored_in_the_clear() {
    on_each(async |node| {
        let tokens = node.register("ada@example.org").await;
        let database = node.databases.open(crate::DOMAIN).await.unwrap();
        let (stored,): (String,) = database.query("SELECT token_hash FROM refresh_tokens").fetch_one().await.unwrap();
        assert!(!tokens.refresh_token.expose().contains(&stored) && !stored.contains(tokens.refresh_token.expose()));
        assert!(!format!("{tokens:?}").contains(tokens.refresh_token.expose()));
    })
    .await;
}
