use callboard_messages::{
    CallError, Caller, CloudEvent, Code, Limit, Principal, Secret, UserId,
    auth::{AuthError, CreateInvitation, IssueSetupToken, Register, UserRegistered, WhoAmI},
    organization::ListOrganizations,
};
use futures_util::future::join_all;
use sqlx::types::Json;

use super::{Node, PASSWORD, Registration, on_each, on_each_with, refusal, register, register_with, visitor};

async fn setup_token(node: &Node) -> Option<Secret> {
    node.ask(&Caller::system(), IssueSetupToken::default()).await.unwrap()
}

#[actix_rt::test]
async fn a_registered_person_is_signed_in_and_has_an_organization() {
    on_each(async |node| {
        let tokens = node.register(" Ada@Example.org ").await;
        assert_eq!((tokens.account.email.as_str(), tokens.account.name.as_str()), ("ada@example.org", "ada"));
        assert!(!tokens.account.administrator);
        assert_eq!((tokens.token_type.as_str(), tokens.expires_in), ("Bearer", 900));

        let caller = node.caller(&tokens.access_token).await;
        assert_eq!(caller.principal, Principal::User);
        assert_eq!((caller.user_id, caller.session_id), (Some(tokens.account.id), Some(tokens.session_id)));
        assert!(caller.scopes.allows("project:write"));
        let organizations =
            node.ask(&caller, ListOrganizations { limit: Limit::default(), cursor: None }).await.unwrap();
        assert_eq!(organizations.items.len(), 1);
        assert!(organizations.items[0].personal);
        assert_eq!(caller.organization_id, Some(organizations.items[0].id));

        let identity = node.ask(&caller, WhoAmI {}).await.unwrap();
        assert_eq!(identity.account, tokens.account);
        assert_eq!((identity.session_id, identity.api_key_id), (Some(tokens.session_id), None));
        assert_eq!(node.ask(&Caller::anonymous(), WhoAmI {}).await.unwrap_err().code(), Code::Unauthenticated);
    })
    .await;
}

#[actix_rt::test]
async fn of_concurrent_registrations_of_one_address_one_wins() {
    on_each(async |node| {
        let caller = visitor();
        let outcomes = join_all((0..8).map(|number| {
            let email = if number % 2 == 0 { "ada@example.org" } else { "ADA@example.org" };
            node.ask(&caller, register(email))
        }))
        .await;
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 7));
        for outcome in lost {
            assert_eq!(refusal(outcome), AuthError::EmailTaken);
        }
    })
    .await;
}

#[actix_rt::test]
async fn a_crash_between_account_and_organization_is_healed_at_the_next_sign_in() {
    on_each(async |node| {
        // A node on which organization is down.
        let broken = Node::start(node.databases.clone(), node.settings.clone(), node.clock.clone(), false).await;
        let outcome = broken.ask(&visitor(), register("ada@example.org")).await;
        assert!(matches!(outcome, Err(CallError::Failed(_))), "{outcome:?}");
        broken.stop().await;

        let tokens = node.login("ada@example.org", PASSWORD).await.unwrap();
        assert!(node.caller(&tokens.access_token).await.organization_id.is_some());
    })
    .await;
}

#[actix_rt::test]
async fn malformed_registrations_are_refused_before_any_work() {
    on_each(async |node| {
        let message = |email: &str, password: &str, name: Option<&str>| Register {
            email: email.to_owned(),
            password: Secret::new(password),
            name: name.map(str::to_owned),
            invitation: None,
            replaces: None,
        };
        for (message, expected) in [
            (message("ada", PASSWORD, None), AuthError::InvalidEmail),
            (message("operator@localhost", PASSWORD, None), AuthError::InvalidEmail),
            (message(&"a".repeat(70_000), PASSWORD, None), AuthError::InvalidEmail),
        ] {
            assert_eq!(node.refusal(&visitor(), message).await, expected);
        }
        for password in ["", "short", "password123", "ada@example.org", &"x1".repeat(65)] {
            let outcome = node.ask(&visitor(), message("ada@example.org", password, None)).await;
            assert!(matches!(outcome, Err(CallError::Refused(AuthError::WeakPassword(_)))), "{password}");
        }
        let outcome = node.ask(&visitor(), message("ada@example.org", PASSWORD, Some("a\nb"))).await;
        assert_eq!(outcome.unwrap_err().code(), Code::Invalid);
        assert_eq!(node.password_work(), 0);
    })
    .await;
}

#[actix_rt::test]
async fn the_setup_token_makes_the_first_administrator_once() {
    on_each_with(
        |settings| settings.registration = Registration::Closed,
        async |node| {
            let replaced = setup_token(node).await.unwrap();
            let token = setup_token(node).await.unwrap();
            for wrong in [&replaced, &Secret::new("cbs_guess")] {
                let outcome = node.ask(&visitor(), register_with("eve@example.org", wrong)).await;
                assert_eq!(refusal(outcome), AuthError::RegistrationClosed);
            }
            let caller = visitor();
            let outcomes = join_all(
                ["ada@example.org", "eve@example.org"].map(|email| node.ask(&caller, register_with(email, &token))),
            )
            .await;
            let made: Vec<_> = outcomes.iter().flatten().collect();
            assert_eq!(made.len(), 1, "{outcomes:?}");
            assert!(made[0].account.administrator);
            assert_eq!(setup_token(node).await, None);
            let outcome = node.ask(&visitor(), register_with("bob@example.org", &token)).await;
            assert_eq!(refusal(outcome), AuthError::RegistrationClosed);
        },
    )
    .await;
}

#[actix_rt::test]
async fn registration_by_invitation_needs_one_that_is_valid_and_unspent() {
    on_each_with(
        |settings| settings.registration = Registration::Invite,
        async |node| {
            let token = setup_token(node).await.unwrap();
            let admin = node.ask(&visitor(), register_with("ada@example.org", &token)).await.unwrap();
            let admin = node.caller(&admin.access_token).await;
            let required = CallError::Refused(AuthError::InvitationRequired);

            let outcome = node.ask(&visitor(), register("bob@example.org")).await;
            assert_eq!(outcome.unwrap_err(), required);

            let invite = |email: Option<&str>| CreateInvitation { email: email.map(str::to_owned) };
            let bobs = node.ask(&admin, invite(Some("BOB@example.org"))).await.unwrap();
            let outcome = node.ask(&visitor(), register_with("eve@example.org", &bobs.token)).await;
            assert_eq!(outcome.unwrap_err(), required, "an invitation for another address");
            let bob = node.ask(&visitor(), register_with("bob@example.org", &bobs.token)).await.unwrap();
            assert!(!bob.account.administrator);
            let outcome = node.ask(&visitor(), register_with("bob@example.org", &bobs.token)).await;
            assert_eq!(outcome.unwrap_err(), required, "a spent invitation");

            let anybodys = node.ask(&admin, invite(None)).await.unwrap();
            let outcome = node.ask(&visitor(), register_with("bob@example.org", &anybodys.token)).await;
            assert_eq!(refusal(outcome), AuthError::EmailTaken);
            node.ask(&visitor(), register_with("cleo@example.org", &anybodys.token)).await.unwrap();

            let late = node.ask(&admin, invite(None)).await.unwrap();
            node.clock.advance((late.expires_at - node.clock.now()).to_std().unwrap());
            let outcome = node.ask(&visitor(), register_with("dora@example.org", &late.token)).await;
            assert_eq!(outcome.unwrap_err(), required, "an expired invitation");
        },
    )
    .await;
}

#[actix_rt::test]
async fn only_administrators_invite() {
    on_each(async |node| {
        let bob = node.register("bob@example.org").await;
        let bob = node.caller(&bob.access_token).await;
        let outcome = node.ask(&bob, CreateInvitation { email: None }).await;
        assert_eq!(outcome.unwrap_err().code(), Code::Forbidden);
        let nobody = Caller { user_id: Some(UserId::new()), administrator: true, ..bob };
        let outcome = node.ask(&nobody, CreateInvitation { email: None }).await;
        assert_eq!(refusal(outcome), AuthError::InvalidToken);
    })
    .await;
}

#[actix_rt::test]
async fn a_wrong_invitation_is_refused_even_where_none_is_needed() {
    on_each(async |node| {
        let outcome = node.ask(&visitor(), register_with("ada@example.org", &Secret::new("cbi_guess"))).await;
        assert_eq!(refusal(outcome), AuthError::InvitationRequired);
    })
    .await;
}

#[actix_rt::test]
async fn a_registration_is_told_once_and_a_refused_one_is_not() {
    on_each(async |node| {
        let tokens = node.register("ada@example.org").await;
        let caller = visitor();
        assert!(node.ask(&caller, register("ada@example.org")).await.is_err());
        let database = node.databases.open(crate::DOMAIN).await.unwrap();
        let told: Vec<(Json<CloudEvent>,)> =
            database.query("SELECT event FROM outbox WHERE type = 'user.registered'").fetch_all().await.unwrap();
        let [(Json(event),)] = told.as_slice() else { panic!("told once, not {told:?}") };
        let registered: UserRegistered = event.read().unwrap();
        assert_eq!((registered.user_id, registered.name.as_str()), (tokens.account.id, "ada"));
        assert_eq!(registered.organization_id, None);
        assert!(!event.data.to_string().contains("example.org"), "no address travels");
    })
    .await;
}
