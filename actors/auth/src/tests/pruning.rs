use std::time::{Duration, Instant};

use callboard_messages::{
    Caller, Code,
    auth::{CreateApiKey, CreateInvitation, IssueLocalKey, ListSessions, RefreshToken, RevokeApiKey},
};
use chrono::TimeDelta;

use super::{Node, PASSWORD, on_each, visitor};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn count(node: &Node, sql: &'static str) -> i64 {
    node.databases.open(crate::DOMAIN).await.unwrap().query(sql).fetch_scalar().await.unwrap()
}

/// Waits until the schedule that is due has run.
async fn until(node: &Node, sql: &'static str, left: i64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while count(node, sql).await != left {
        assert!(Instant::now() < deadline, "not within a minute: {sql}: {left}");
        // A node that was pruning while the clock leapt begins again a moment later.
        node.clock.advance(Duration::from_millis(100));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[actix_rt::test]
async fn what_is_over_is_forgotten_and_what_is_valid_is_not() {
    on_each(async |node| {
        // A new schedule begins with the next slot.
        until(node, "SELECT COUNT(*) FROM schedules", 2).await;
        let abandoned = node.register("ada@example.org").await;
        let ada = node.caller(&abandoned.access_token).await;
        let now = node.clock.now();
        let key = |expires_at| CreateApiKey { name: "ci".to_owned(), scopes: vec!["*".to_owned()], expires_at };
        let revoked = node.ask(&ada, key(None)).await.unwrap();
        node.ask(&ada, RevokeApiKey { api_key_id: revoked.api_key.id }).await.unwrap();
        node.ask(&ada, key(Some(now + TimeDelta::days(1)))).await.unwrap();
        let kept = node.ask(&ada, key(Some(now + TimeDelta::days(100)))).await.unwrap();
        let operator = node.ask(&Caller::system(), IssueLocalKey::default()).await.unwrap();
        let operator = node.caller(&operator.secret).await;
        node.ask(&operator, CreateInvitation { email: None }).await.unwrap();
        node.login("ada@example.org", "wrong horse battery").await.unwrap_err();

        node.clock.advance(5 * DAY);
        let used = node.login("ada@example.org", PASSWORD).await.unwrap();
        node.login("eve@example.org", "wrong horse battery").await.unwrap_err();
        until(node, "SELECT COUNT(*) FROM login_failures", 1).await;
        let used = node.ask(&visitor(), RefreshToken { refresh_token: used.refresh_token }).await.unwrap();

        // The first session was unused for the lifetime of a refresh token.
        node.clock.advance(3 * DAY);
        until(node, "SELECT COUNT(*) FROM invitations", 0).await;
        until(node, "SELECT COUNT(*) FROM sessions", 1).await;
        until(node, "SELECT COUNT(*) FROM login_failures", 0).await;
        assert_eq!(count(node, "SELECT COUNT(*) FROM refresh_tokens").await, 2, "the spent one tells a thief");
        let reader = Caller { session_id: Some(used.session_id), ..ada };
        let sessions = node.ask(&reader, ListSessions {}).await.unwrap();
        assert!(sessions.len() == 1 && sessions[0].current, "{sessions:?}");
        let gone = RefreshToken { refresh_token: abandoned.refresh_token };
        assert_eq!(node.ask(&visitor(), gone).await.unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(count(node, "SELECT COUNT(*) FROM api_keys").await, 4, "who asks why a key is refused finds it");

        node.clock.advance(24 * DAY);
        until(node, "SELECT COUNT(*) FROM sessions", 0).await;
        until(node, "SELECT COUNT(*) FROM refresh_tokens", 0).await;
        until(node, "SELECT COUNT(*) FROM api_keys", 2).await;
        node.validate(&kept.secret).await.unwrap();
    })
    .await;
}
