use std::time::Duration;

use callboard_messages::{
    ApiKeyId, CallError, Caller, Code, OrganizationId, Principal, Secret,
    auth::{
        ApiKeyWithSecret, AuthError, CreateApiKey, CreateInvitation, IssueLocalKey, ListApiKeys, ListSessions, Logout,
        RevokeApiKey,
    },
    organization::CreateOrganization,
};
use chrono::TimeDelta;
use futures_util::future::join_all;
use uuid::Uuid;

use super::{Node, on_each, on_each_with, refusal, register_with, visitor};
use crate::Registration;

fn key(scopes: &[&str]) -> CreateApiKey {
    CreateApiKey {
        name: "deploys".to_owned(),
        scopes: scopes.iter().map(ToString::to_string).collect(),
        expires_at: None,
    }
}

async fn ada_with_key(node: &Node, scopes: &[&str]) -> (Caller, ApiKeyWithSecret) {
    let tokens = node.register("ada@example.org").await;
    let ada = node.caller(&tokens.access_token).await;
    let created = node.ask(&ada, key(scopes)).await.unwrap();
    (ada, created)
}

#[actix_rt::test]
async fn a_key_acts_for_its_owner_with_its_own_scopes() {
    on_each(async |node| {
        let (ada, created) = ada_with_key(node, &["project:read", "deploy:*"]).await;
        let secret = created.secret.expose();
        assert!(secret.starts_with(&format!("cb_{}_", created.api_key.prefix)), "the prefix tells keys apart");
        let validated = node.validate(&created.secret).await.unwrap();
        let caller = validated.caller;
        assert_eq!(caller.principal, Principal::ApiKey);
        assert_eq!((caller.user_id, caller.organization_id), (ada.user_id, ada.organization_id));
        assert_eq!((caller.api_key_id, caller.session_id), (Some(created.api_key.id), None));
        assert!(caller.scopes.allows("project:read") && caller.scopes.allows("deploy:create"));
        assert!(!caller.scopes.allows("project:write"));
        assert_eq!(node.ask(&caller, key(&["project:read"])).await.unwrap_err().code(), Code::Forbidden);
        assert_eq!(node.ask(&caller, ListSessions {}).await.unwrap_err().code(), Code::Forbidden);
        assert_eq!(node.ask(&caller, Logout {}).await.unwrap_err().code(), Code::Invalid);
    })
    .await;
}

#[actix_rt::test]
async fn a_key_never_holds_more_than_its_maker() {
    on_each(async |node| {
        let (ada, maker) = ada_with_key(node, &["api_key:write", "project:read"]).await;
        let maker = node.caller(&maker.secret).await;
        for scopes in [&["project:write"][..], &["*"], &["project:*"], &["project:read", "deploy:read"]] {
            let outcome = node.ask(&maker, key(scopes)).await;
            assert!(matches!(outcome, Err(CallError::Refused(AuthError::InvalidScope(_)))), "{scopes:?}");
        }
        node.ask(&maker, key(&["project:read"])).await.unwrap();
        assert_eq!(node.ask(&ada, key(&[])).await.unwrap_err().code(), Code::Invalid);
    })
    .await;
}

#[actix_rt::test]
async fn a_scope_that_no_operation_asks_for_is_refused() {
    on_each(async |node| {
        let (ada, _) = ada_with_key(node, &["*"]).await;
        for scopes in [&["nonsense"][..], &["a b:c"], &[""], &["project:read", "projct:read"], &["billing:*"]] {
            let outcome = node.ask(&ada, key(scopes)).await;
            let Err(CallError::Refused(AuthError::Invalid(sentence))) = outcome else { panic!("{scopes:?}") };
            let (_, instead) = sentence.split_once("; ").unwrap();
            assert_eq!(instead.contains("did you mean \"project:read\"?"), scopes.len() == 2, "{sentence}");
        }
        let own = ["project:*", "deploy:create", "api_key:read", "session:write", "platform:administer", "*"];
        node.ask(&ada, key(&own)).await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn only_the_hash_of_a_key_is_stored() {
    on_each(async |node| {
        let (ada, created) = ada_with_key(node, &["*"]).await;
        let database = node.databases.open(crate::DOMAIN).await.unwrap();
        let (stored,): (String,) = database.query("SELECT secret_hash FROM api_keys").fetch_one().await.unwrap();
        let secret = created.secret.expose().rsplit('_').next().unwrap();
        assert_eq!(secret.len(), 48);
        assert!(!stored.contains(secret));
        let listed = node.ask(&ada, ListApiKeys {}).await.unwrap();
        assert_eq!(listed, [created.api_key]);
    })
    .await;
}

#[actix_rt::test]
async fn a_revoked_key_is_useless_at_once() {
    on_each(async |node| {
        let (ada, created) = ada_with_key(node, &["*"]).await;
        node.validate(&created.secret).await.unwrap();
        let epoch = node.revocations.epoch();
        let revoke = || RevokeApiKey { api_key_id: created.api_key.id };

        let bob = node.register("bob@example.org").await;
        let bob = node.caller(&bob.access_token).await;
        assert_eq!(node.ask(&bob, revoke()).await.unwrap_err().code(), Code::NotFound);
        let unknown = RevokeApiKey { api_key_id: ApiKeyId::new() };
        assert_eq!(node.ask(&ada, unknown).await.unwrap_err().code(), Code::NotFound);
        node.validate(&created.secret).await.unwrap();

        node.ask(&ada, revoke()).await.unwrap();
        assert!(node.revocations.epoch() > epoch);
        let outcome = node.validate(&created.secret).await;
        assert_eq!(refusal(outcome), AuthError::InvalidToken);
        node.ask(&ada, revoke()).await.unwrap();
        assert!(node.ask(&ada, ListApiKeys {}).await.unwrap().is_empty());
    })
    .await;
}

#[actix_rt::test]
async fn a_key_expires() {
    on_each(async |node| {
        let tokens = node.register("ada@example.org").await;
        let ada = node.caller(&tokens.access_token).await;
        let now = node.clock.now();
        for expires_at in [now, now - TimeDelta::days(1), now + TimeDelta::days(200 * 366)] {
            let message = CreateApiKey { expires_at: Some(expires_at), ..key(&["*"]) };
            assert_eq!(node.ask(&ada, message).await.unwrap_err().code(), Code::Invalid);
        }
        let expires_at = now + TimeDelta::seconds(30);
        let message = CreateApiKey { expires_at: Some(expires_at), ..key(&["*"]) };
        let created = node.ask(&ada, message).await.unwrap();
        assert_eq!(node.validate(&created.secret).await.unwrap().expires_at, expires_at);
        node.clock.advance(Duration::from_secs(30));
        assert_eq!(node.validate(&created.secret).await.unwrap_err().code(), Code::Unauthenticated);
    })
    .await;
}

#[actix_rt::test]
async fn the_last_use_is_known_to_the_minute() {
    on_each(async |node| {
        let (ada, created) = ada_with_key(node, &["*"]).await;
        let first = node.clock.now();
        let validated = node.validate(&created.secret).await.unwrap();
        assert_eq!(validated.expires_at, first + TimeDelta::seconds(60), "asked again within the minute");
        let last_used = async |expected| {
            // The use is noted in the background.
            for _ in 0..1000 {
                let listed = node.ask(&ada, ListApiKeys {}).await.unwrap();
                if listed[0].last_used_at == Some(expected) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("the last use is never noted");
        };
        last_used(first).await;
        node.clock.advance(Duration::from_secs(30));
        node.validate(&created.secret).await.unwrap();
        node.clock.advance(Duration::from_secs(30));
        node.validate(&created.secret).await.unwrap();
        last_used(first + TimeDelta::seconds(60)).await;
    })
    .await;
}

#[actix_rt::test]
async fn a_key_is_bound_to_its_organization() {
    on_each(async |node| {
        let (ada, created) = ada_with_key(node, &["*"]).await;
        let acme = CreateOrganization { name: "acme".to_owned(), display_name: None };
        let acme = node.ask(&ada, acme).await.unwrap();
        for organization_id in [acme.id, OrganizationId::new()] {
            let outcome = node.validate_for(&created.secret, Some(organization_id)).await;
            assert_eq!(outcome.unwrap_err().code(), Code::NotFound);
        }
        node.validate_for(&created.secret, ada.organization_id).await.unwrap();
        let there = Caller { organization_id: Some(acme.id), ..ada };
        assert!(node.ask(&there, ListApiKeys {}).await.unwrap().is_empty());
    })
    .await;
}

#[actix_rt::test]
async fn what_is_no_key_is_refused() {
    on_each(async |node| {
        let (_, created) = ada_with_key(node, &["*"]).await;
        let real = created.secret.expose();
        let prefix = &created.api_key.prefix;
        let guesses = [
            "cb_".to_owned(),
            "cb__".to_owned(),
            format!("cb_{prefix}"),
            format!("cb_{prefix}_"),
            format!("cb_{prefix}_{}", "0".repeat(48)),
            format!("{real}0"),
            real[..real.len() - 1].to_owned(),
            real.to_uppercase().replacen("CB_", "cb_", 1),
            format!("cb_' OR 1=1 --_{}", "0".repeat(48)),
            format!("cb_{}", "x".repeat(100_000)),
        ];
        for guess in guesses {
            let outcome = node.validate(&Secret::new(guess.clone())).await;
            assert_eq!(refusal(outcome), AuthError::InvalidToken, "{guess:.80}");
        }
    })
    .await;
}

#[actix_rt::test]
async fn an_administrators_key_invites_only_if_it_was_made_to() {
    on_each(async |node| {
        let operator = node.ask(&Caller::system(), IssueLocalKey::default()).await.unwrap();
        let operator = node.caller(&operator.secret).await;
        let narrow = node.ask(&operator, key(&["project:read"])).await.unwrap();
        let narrow = node.caller(&narrow.secret).await;
        let outcome = node.ask(&narrow, CreateInvitation { email: None }).await;
        assert_eq!(outcome.unwrap_err().code(), Code::Forbidden);
        node.ask(&operator, CreateInvitation { email: None }).await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn a_request_that_comes_again_is_shown_the_key_of_its_first() {
    on_each(async |node| {
        let (ada, other) = ada_with_key(node, &["*"]).await;
        let again = Caller { request: Some(Uuid::now_v7()), ..ada.clone() };
        let first = node.ask(&again, key(&["project:read"])).await.unwrap();
        let more = join_all((0..4).map(|_| node.ask(&again, key(&["project:read"])))).await;
        for created in more.into_iter().map(Result::unwrap) {
            assert_eq!(created.secret.expose(), first.secret.expose());
        }
        node.validate(&first.secret).await.unwrap();
        node.validate(&other.secret).await.unwrap();
        let listed = node.ask(&ada, ListApiKeys {}).await.unwrap();
        assert_eq!(listed.len(), 2, "one of the request, and the other: {listed:?}");
    })
    .await;
}

#[actix_rt::test]
async fn a_request_that_comes_again_is_shown_the_invitation_of_its_first() {
    on_each_with(
        |settings| settings.registration = Registration::Invite,
        async |node| {
            let operator = node.ask(&Caller::system(), IssueLocalKey::default()).await.unwrap();
            let operator = node.caller(&operator.secret).await;
            let again = Caller { request: Some(Uuid::now_v7()), ..operator };
            let first = node.ask(&again, CreateInvitation { email: None }).await.unwrap();
            let second = node.ask(&again, CreateInvitation { email: None }).await.unwrap();
            assert_eq!(second.token.expose(), first.token.expose());
            node.ask(&visitor(), register_with("ada@example.org", &second.token)).await.unwrap();
            let late = node.ask(&visitor(), register_with("eve@example.org", &first.token)).await;
            assert_eq!(refusal(late), AuthError::InvitationRequired);
        },
    )
    .await;
}
