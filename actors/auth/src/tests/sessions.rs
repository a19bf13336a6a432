use std::time::Duration;

use callboard_messages::{
    Caller, Code, SessionId,
    auth::{AuthError, ListSessions, Login, Logout, LogoutAll, RefreshToken, Register, RevokeSession},
};

use super::{PASSWORD, login, on_each, refusal, register, visitor};

#[actix_rt::test]
async fn sessions_are_listed_newest_first_with_where_they_came_from() {
    on_each(async |node| {
        let first = node.register("ada@example.org").await;
        node.clock.advance(Duration::from_secs(5));
        let second = node.login_from("2001:db8::7", "ada@example.org", PASSWORD).await.unwrap();
        node.register("bob@example.org").await;
        let caller = node.caller(&first.access_token).await;
        let sessions = node.ask(&caller, ListSessions {}).await.unwrap();
        let seen: Vec<_> =
            sessions.iter().map(|session| (session.id, session.address.as_deref().unwrap(), session.current)).collect();
        assert_eq!(seen, [(second.session_id, "2001:db8::7", false), (first.session_id, "192.0.2.1", true)]);
        assert_eq!(sessions[0].user_agent.as_deref(), Some("browserof the test"));
        assert_eq!(sessions[0].created_at, node.clock.now());
    })
    .await;
}

#[actix_rt::test]
async fn logout_ends_the_session_at_once_and_no_other() {
    on_each(async |node| {
        let first = node.register("ada@example.org").await;
        let second = node.login("ada@example.org", PASSWORD).await.unwrap();
        let caller = node.caller(&first.access_token).await;
        let epoch = node.revocations.epoch();
        node.ask(&caller, Logout {}).await.unwrap();
        assert!(node.revocations.epoch() > epoch);
        let outcome = node.validate(&first.access_token).await;
        assert_eq!(refusal(outcome), AuthError::InvalidToken);
        node.validate(&second.access_token).await.unwrap();
        node.ask(&caller, Logout {}).await.unwrap();
        let caller = node.caller(&second.access_token).await;
        assert_eq!(node.ask(&caller, ListSessions {}).await.unwrap().len(), 1);
    })
    .await;
}

#[actix_rt::test]
async fn logout_all_ends_every_session_of_the_person_only() {
    on_each(async |node| {
        let first = node.register("ada@example.org").await;
        let second = node.login("ada@example.org", PASSWORD).await.unwrap();
        let bob = node.register("bob@example.org").await;
        let caller = node.caller(&first.access_token).await;
        node.ask(&caller, LogoutAll {}).await.unwrap();
        for tokens in [&first, &second] {
            assert_eq!(node.validate(&tokens.access_token).await.unwrap_err().code(), Code::Unauthenticated);
        }
        node.validate(&bob.access_token).await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn a_person_ends_its_own_sessions_only() {
    on_each(async |node| {
        let ada = node.register("ada@example.org").await;
        let second = node.login("ada@example.org", PASSWORD).await.unwrap();
        let bob = node.register("bob@example.org").await;
        let caller = node.caller(&ada.access_token).await;
        for session_id in [bob.session_id, SessionId::new()] {
            let outcome = node.ask(&caller, RevokeSession { session_id }).await;
            assert_eq!(refusal(outcome), AuthError::NotFound("session".to_owned()));
        }
        node.validate(&bob.access_token).await.unwrap();
        for _ in 0..2 {
            node.ask(&caller, RevokeSession { session_id: second.session_id }).await.unwrap();
        }
        assert_eq!(node.validate(&second.access_token).await.unwrap_err().code(), Code::Unauthenticated);
        node.validate(&ada.access_token).await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn a_visitor_has_no_sessions() {
    on_each(async |node| {
        let nobody = Caller::anonymous();
        assert_eq!(node.ask(&nobody, ListSessions {}).await.unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(node.ask(&nobody, Logout {}).await.unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(node.ask(&nobody, LogoutAll {}).await.unwrap_err().code(), Code::Unauthenticated);
    })
    .await;
}

#[actix_rt::test]
async fn the_session_that_a_sign_in_replaces_ends_with_it() {
    on_each(async |node| {
        let first = node.register("ada@example.org").await;
        let other = node.login("ada@example.org", PASSWORD).await.unwrap();
        let replacing =
            |password| Login { replaces: Some(first.refresh_token.clone()), ..login("ada@example.org", password) };
        node.ask(&visitor(), replacing("wrong horse battery")).await.unwrap_err();
        node.validate(&first.access_token).await.unwrap();

        let epoch = node.revocations.epoch();
        let second = node.ask(&visitor(), replacing(PASSWORD)).await.unwrap();
        assert!(node.revocations.epoch() > epoch, "what is remembered of the first is asked about again");
        assert_eq!(node.validate(&first.access_token).await.unwrap_err().code(), Code::Unauthenticated);
        let refresh = RefreshToken { refresh_token: first.refresh_token.clone() };
        assert_eq!(node.ask(&visitor(), refresh).await.unwrap_err().code(), Code::Unauthenticated);
        for tokens in [&second, &other] {
            node.validate(&tokens.access_token).await.unwrap();
        }

        // Another person in the same browser.
        let message = Register { replaces: Some(second.refresh_token.clone()), ..register("bob@example.org") };
        let bob = node.ask(&visitor(), message).await.unwrap();
        assert_eq!(node.validate(&second.access_token).await.unwrap_err().code(), Code::Unauthenticated);
        for tokens in [&bob, &other] {
            node.validate(&tokens.access_token).await.unwrap();
        }
    })
    .await;
}
