use std::time::Duration;

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use callboard_messages::{
    CallError, Caller, Code, OrganizationId, Secret,
    auth::{AuthError, GetJwks, Jwks, RotateSigningKey, Tokens},
    organization::CreateOrganization,
};
use callboard_supervisors::{BlockingPool, seal::MasterKey};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

use super::{AuthSettings, Node, on_each};
use crate::signing_keys::{SigningKey, SigningKeys};

/// The platform's own signing key, for tokens that are wrong in one place only.
async fn signing_key(node: &Node) -> SigningKey {
    let database = node.databases.open(crate::DOMAIN).await.unwrap();
    let keys = SigningKeys::open(&node.settings, &database, &node.clock).await.unwrap();
    keys.current(&node.settings, &database, &node.clock).await.unwrap().signing.clone()
}

fn part(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn token(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> Secret {
    let message = format!("{}.{}", part(header), part(claims));
    Secret::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(sign(message.as_bytes()))))
}

/// Header and claims of a real token.
fn parts(token: &Secret) -> (Value, Value) {
    let mut parts = token.expose().split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    let mut next = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
    (next(), next())
}

fn with(base: &Value, name: &str, value: Value) -> String {
    let mut changed = base.clone();
    changed[name] = value;
    changed.to_string()
}

fn without(base: &Value, name: &str) -> String {
    let mut changed = base.clone();
    changed.as_object_mut().unwrap().remove(name).unwrap();
    changed.to_string()
}

/// `base` with a second field `name`.
fn doubled(base: &Value, name: &str, value: &Value) -> String {
    base.to_string().replacen('{', &format!("{{{}:{value},", json!(name)), 1)
}

async fn assert_refused(node: &Node, token: Secret, what: &str) {
    let outcome = node.validate(&token).await;
    assert!(matches!(outcome, Err(CallError::Refused(AuthError::InvalidToken))), "{what}: {outcome:?}");
}

async fn setting(node: &Node) -> (Tokens, SigningKey, Value, Value) {
    let tokens = node.register("ada@example.org").await;
    let key = signing_key(node).await;
    let (header, claims) = parts(&tokens.access_token);
    (tokens, key, header, claims)
}

#[actix_rt::test]
async fn a_token_says_what_it_should_and_verifies() {
    on_each(async |node| {
        let (tokens, key, header, claims) = setting(node).await;
        assert_eq!(header, json!({ "typ": "at+jwt", "alg": "RS256", "kid": key.kid }));
        let now = node.clock.now().timestamp();
        let names: Vec<_> = claims.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["aud", "exp", "iat", "iss", "jti", "nbf", "org", "sid", "sub"]);
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!("http://callboard.test"), &json!("callboard")));
        assert_eq!((&claims["iat"], &claims["nbf"], &claims["exp"]), (&json!(now), &json!(now), &json!(now + 900)));
        assert_eq!(claims["sub"], json!(tokens.account.id));
        // The forged tokens below differ from this one in one place each.
        let sign = |message: &[u8]| key.sign(message).unwrap();
        node.validate(&token(&header.to_string(), &claims.to_string(), sign)).await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn only_rs256_by_our_key_is_accepted() {
    on_each(async |node| {
        let (_, key, header, claims) = setting(node).await;
        let (claims, none) = (claims.to_string(), |_: &[u8]| Vec::new());
        let sign = |message: &[u8]| key.sign(message).unwrap();
        for algorithm in ["none", "None", "nOnE", "NONE", ""] {
            assert_refused(node, token(&with(&header, "alg", json!(algorithm)), &claims, none), algorithm).await;
        }
        assert_refused(node, token(&header.to_string(), &claims, none), "an empty signature").await;
        for algorithm in ["HS256", "HS512", "RS384", "RS512", "PS256", "ES256", "EdDSA", "rs256"] {
            assert_refused(node, token(&with(&header, "alg", json!(algorithm)), &claims, sign), algorithm).await;
        }

        let jwks: Jwks = node.ask(&Caller::anonymous(), GetJwks {}).await.unwrap();
        let (n, e) = (&jwks.keys[0].n, &jwks.keys[0].e);
        let foreign = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = foreign.public_key().as_der().unwrap();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()));
        let jwk = serde_json::to_string(&jwks.keys[0]).unwrap();
        let modulus = URL_SAFE_NO_PAD.decode(n).unwrap();
        for secret in [n.as_bytes(), e.as_bytes(), pem.as_bytes(), jwk.as_bytes(), modulus.as_slice(), b""] {
            let hmac = |message: &[u8]| {
                let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            };
            for algorithm in ["HS256", "RS256"] {
                let forged = token(&with(&header, "alg", json!(algorithm)), &claims, hmac);
                assert_refused(node, forged, "HMAC by what is public").await;
            }
        }
        let by_foreign_key = |message: &[u8]| {
            let mut signature = vec![0; foreign.public_modulus_len()];
            let random = aws_lc_rs::rand::SystemRandom::new();
            foreign.sign(&aws_lc_rs::signature::RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
            signature
        };
        assert_refused(node, token(&header.to_string(), &claims, by_foreign_key), "another's key").await;
    })
    .await;
}

#[actix_rt::test]
async fn a_header_that_names_keys_is_refused() {
    on_each(async |node| {
        let (_, key, header, claims) = setting(node).await;
        let claims = claims.to_string();
        let sign = |message: &[u8]| key.sign(message).unwrap();
        let long = "k".repeat(64 * 1024);
        let kids = ["", "../../dev/null", "' OR 1=1 --", "no-such-key", "\u{0}", &long];
        for kid in kids {
            assert_refused(node, token(&with(&header, "kid", json!(kid)), &claims, sign), kid).await;
        }
        for (name, value) in [
            ("jku", json!("http://127.0.0.1:1/keys")),
            ("x5u", json!("http://127.0.0.1:1/cert")),
            ("x5c", json!(["AAAA"])),
            ("jwk", json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" })),
            ("crit", json!(["exp"])),
            ("zip", json!("DEF")),
            ("anything", json!(1)),
        ] {
            assert_refused(node, token(&with(&header, name, value), &claims, sign), name).await;
        }
        for name in ["typ", "alg", "kid"] {
            assert_refused(node, token(&without(&header, name), &claims, sign), name).await;
            assert_refused(node, token(&doubled(&header, name, &header[name]), &claims, sign), name).await;
            assert_refused(node, token(&with(&header, name, json!(1)), &claims, sign), name).await;
        }
        for kind in ["JWT", "", "refresh+jwt"] {
            assert_refused(node, token(&with(&header, "typ", json!(kind)), &claims, sign), kind).await;
        }
    })
    .await;
}

#[actix_rt::test]
async fn every_claim_is_required_once_and_in_its_own_type() {
    on_each(async |node| {
        let (_, key, header, claims) = setting(node).await;
        let header = header.to_string();
        let sign = |message: &[u8]| key.sign(message).unwrap();
        for (name, value) in claims.as_object().unwrap() {
            assert_refused(node, token(&header, &without(&claims, name), sign), &format!("no {name}")).await;
            assert_refused(node, token(&header, &doubled(&claims, name, value), sign), &format!("two {name}")).await;
            for wrong in [json!(null), json!([value]), json!({}), json!(true)] {
                assert_refused(node, token(&header, &with(&claims, name, wrong), sign), name).await;
            }
        }
        for name in ["exp", "nbf", "iat"] {
            let text = claims[name].to_string();
            assert_refused(node, token(&header, &with(&claims, name, json!(text)), sign), "a time as text").await;
            assert_refused(node, token(&header, &with(&claims, name, json!(1e300)), sign), "a huge time").await;
        }
        for (name, wrong) in [
            ("iss", json!("http://evil.test")),
            ("iss", json!("http://callboard.test/")),
            ("aud", json!("another")),
            ("aud", json!(["callboard", "another"])),
            ("sub", json!(Uuid::now_v7())),
            ("sub", json!("ada@example.org")),
            ("sid", json!(Uuid::now_v7())),
            ("org", json!(Uuid::now_v7())),
        ] {
            assert_refused(node, token(&header, &with(&claims, name, wrong), sign), name).await;
        }
        let bob = node.register("bob@example.org").await;
        let borrowed = with(&claims, "sub", json!(bob.account.id));
        assert_refused(node, token(&header, &borrowed, sign), "another's session").await;
    })
    .await;
}

#[actix_rt::test]
async fn a_token_is_valid_from_its_beginning_to_its_end() {
    on_each(async |node| {
        let (tokens, key, header, claims) = setting(node).await;
        let header = header.to_string();
        let sign = |message: &[u8]| key.sign(message).unwrap();
        let now = node.clock.now().timestamp();
        for name in ["nbf", "iat"] {
            node.validate(&token(&header, &with(&claims, name, json!(now + 5)), sign)).await.unwrap();
            assert_refused(node, token(&header, &with(&claims, name, json!(now + 6)), sign), name).await;
        }
        for exp in [now, now - 1, 0, -1, i64::MIN] {
            assert_refused(node, token(&header, &with(&claims, "exp", json!(exp)), sign), "expired").await;
        }
        let validated = node.validate(&tokens.access_token).await.unwrap();
        assert_eq!(validated.expires_at.timestamp(), now + 900);
        node.clock.advance(Duration::from_secs(899));
        node.validate(&tokens.access_token).await.unwrap();
        node.clock.advance(Duration::from_secs(1));
        assert_refused(node, tokens.access_token, "expired").await;
    })
    .await;
}

#[actix_rt::test]
async fn what_is_no_token_is_refused() {
    on_each(async |node| {
        let (tokens, _, header, claims) = setting(node).await;
        let real = tokens.access_token.expose();
        let (message, signature) = real.rsplit_once('.').unwrap();
        let flipped = if signature.starts_with('A') { "B" } else { "A" };
        for text in [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            "a.b.c".to_owned(),
            message.to_owned(),
            format!("{message}."),
            format!("{real}."),
            format!("{real}.{signature}"),
            format!("{real}="),
            format!(" {real}"),
            format!("{message}.{flipped}{}", &signature[1..]),
            format!("{}.{}.{signature}", part(&header.to_string()), part(&with(&claims, "exp", json!(i64::MAX)))),
            format!("{}.{}.{signature}", part("[]"), part("[]")),
            "x".repeat(1_000_000),
            format!("{}.{}.{}", "e".repeat(1000), "e".repeat(1000), "e".repeat(1000)),
            tokens.refresh_token.expose().to_owned(),
        ] {
            assert_refused(node, Secret::new(text.clone()), &format!("{text:.60}")).await;
        }
        node.validate(&tokens.access_token).await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn a_caller_can_act_for_another_of_its_organizations_only() {
    on_each(async |node| {
        let tokens = node.register("ada@example.org").await;
        let ada = node.caller(&tokens.access_token).await;
        let acme = CreateOrganization { name: "acme".to_owned(), display_name: None };
        let acme = node.ask(&ada, acme).await.unwrap();
        let there = node.validate_for(&tokens.access_token, Some(acme.id)).await.unwrap();
        assert_eq!(there.caller.organization_id, Some(acme.id));

        let bob = node.register("bob@example.org").await;
        let bobs = node.caller(&bob.access_token).await.organization_id;
        for organization_id in [bobs.unwrap(), OrganizationId::new()] {
            let outcome = node.validate_for(&tokens.access_token, Some(organization_id)).await;
            assert_eq!(outcome.unwrap_err().code(), Code::NotFound);
        }
    })
    .await;
}

#[actix_rt::test]
async fn validation_keeps_who_asked_from_where() {
    on_each(async |node| {
        let tokens = node.register("ada@example.org").await;
        let request = Caller { address: Some("203.0.113.9".parse().unwrap()), ..Caller::anonymous() };
        let message = callboard_messages::auth::ValidateToken {
            token: tokens.access_token,
            organization_id: None,
            revocation_count: 0,
        };
        assert_eq!(node.ask(&request, message.clone()).await.unwrap_err().code(), Code::Forbidden);
        let validated = node.ask(&request.as_system(), message).await.unwrap();
        assert_eq!(validated.caller.address, request.address);
        assert_eq!(validated.caller.correlation_id, request.correlation_id);
        assert!(!format!("{:?}", validated.caller.scopes).is_empty());
    })
    .await;
}

#[actix_rt::test]
async fn keys_rotate_without_logging_anyone_out() {
    on_each(async |node| {
        let before = node.register("ada@example.org").await;
        let old: Jwks = node.ask(&Caller::anonymous(), GetJwks {}).await.unwrap();
        assert_eq!(old.keys.len(), 1);
        assert_eq!(
            (old.keys[0].kty.as_str(), old.keys[0].alg.as_str(), old.keys[0].usage.as_str()),
            ("RSA", "RS256", "sig")
        );
        assert_eq!(node.ask(&visitor_who_asks(), RotateSigningKey {}).await.unwrap_err().code(), Code::Forbidden);
        let both = node.ask(&Caller::system(), RotateSigningKey {}).await.unwrap();
        assert_eq!(both.keys.len(), 2);
        assert!(both.keys.contains(&old.keys[0]));

        let after = node.login("ada@example.org", super::PASSWORD).await.unwrap();
        assert_ne!(parts(&after.access_token).0["kid"], parts(&before.access_token).0["kid"]);
        node.validate(&before.access_token).await.unwrap();
        node.validate(&after.access_token).await.unwrap();

        // Until the last token of the old key has expired, and not for longer.
        node.clock.advance(Duration::from_secs(15 * 60 + 60));
        let jwks: Jwks = node.ask(&Caller::anonymous(), GetJwks {}).await.unwrap();
        assert_eq!(jwks.keys.len(), 1);
        assert!(!jwks.keys.contains(&old.keys[0]));
    })
    .await;
}

#[actix_rt::test]
async fn another_node_learns_of_a_new_key_when_a_token_names_it() {
    on_each(async |node| {
        node.register("ada@example.org").await;
        let other = node.restarted(node.settings.clone()).await;
        node.clock.advance(Duration::from_secs(6));
        node.ask(&Caller::system(), RotateSigningKey {}).await.unwrap();
        let tokens = node.login("ada@example.org", super::PASSWORD).await.unwrap();
        other.validate(&tokens.access_token).await.unwrap();
        other.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn tokens_and_passwords_survive_a_restart() {
    on_each(async |node| {
        let tokens = node.register("ada@example.org").await;
        let restarted = node.restarted(node.settings.clone()).await;
        restarted.validate(&tokens.access_token).await.unwrap();
        restarted.login("ada@example.org", super::PASSWORD).await.unwrap();
        restarted.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn another_master_key_is_refused_at_start() {
    on_each(async |node| {
        node.register("ada@example.org").await;
        let wrong = AuthSettings { master_key: MasterKey::generate().unwrap(), ..node.settings.clone() };
        let database = node.databases.open(crate::DOMAIN).await.unwrap();
        let pool = BlockingPool::new("bcrypt", 1, 8);
        let (cache, live) = (callboard_cache::Cache::none(), callboard_supervisors::Live::new(node.clock.clone()));
        let work = std::sync::Arc::default();
        let opened = crate::state::Shared::open(&wrong, &database, &node.clock, &live, pool, work, cache).await;
        assert!(opened.err().unwrap().to_string().contains("CALLBOARD_MASTER_KEY"));
    })
    .await;
}

#[actix_rt::test]
async fn no_private_key_is_stored_in_the_clear() {
    on_each(async |node| {
        let database = node.databases.open(crate::DOMAIN).await.unwrap();
        let (sealed,): (Vec<u8>,) =
            database.query("SELECT sealed_private_key FROM signing_keys").fetch_one().await.unwrap();
        assert!(sealed.len() > 1000);
        assert!(KeyPair::from_pkcs8(&sealed).is_err());
        assert!(KeyPair::from_pkcs8(&sealed[13..]).is_err());
    })
    .await;
}

fn visitor_who_asks() -> Caller {
    Caller { principal: callboard_messages::Principal::User, ..super::visitor() }
}
