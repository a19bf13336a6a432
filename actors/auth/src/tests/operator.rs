use callboard_messages::{
    Caller, Code, Limit, NodeId,
    auth::{AuthError, IssueLocalKey, IssueSetupToken, WhoAmI},
    organization::{ListOrganizations, Role},
};
use futures_util::future::join_all;

use super::{Node, on_each, refusal, register_with, visitor};

async fn operator(node: &Node) -> Caller {
    let key = node.ask(&Caller::system(), IssueLocalKey::default()).await.unwrap();
    node.caller(&key.secret).await
}

async fn first_administrator(node: &Node) -> Caller {
    let token = node.ask(&Caller::system(), IssueSetupToken::default()).await.unwrap().unwrap();
    let tokens = node.ask(&visitor(), register_with("ada@example.org", &token)).await.unwrap();
    node.caller(&tokens.access_token).await
}

#[actix_rt::test]
async fn the_local_key_administers_without_a_password_and_replaces_the_one_before() {
    on_each(async |node| {
        let first = node.ask(&Caller::system(), IssueLocalKey::default()).await.unwrap();
        let caller = node.caller(&first.secret).await;
        let identity = node.ask(&caller, WhoAmI {}).await.unwrap();
        assert_eq!(identity.account.email, "operator@localhost");
        assert!(identity.account.administrator && identity.scopes.allows("project:write"));

        let epoch = node.revocations.epoch();
        let second = node.ask(&Caller::system(), IssueLocalKey::default()).await.unwrap();
        assert!(node.revocations.epoch() > epoch);
        assert_eq!(node.validate(&first.secret).await.unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(node.caller(&second.secret).await.user_id, caller.user_id);
        assert_eq!(
            node.ask(&caller, IssueLocalKey::default()).await.unwrap_err().code(),
            Code::Forbidden,
            "only the node itself asks for it"
        );
    })
    .await;
}

#[actix_rt::test]
async fn the_operator_is_made_once_by_nodes_that_start_together() {
    on_each(async |node| {
        let system = Caller::system();
        let keys = join_all((0..8).map(|_| node.ask(&system, IssueLocalKey::default()))).await;
        assert!(keys.iter().all(Result::is_ok), "{keys:?}");
        let database = node.databases.open(crate::DOMAIN).await.unwrap();
        let operators: i64 =
            database.query("SELECT COUNT(*) FROM accounts WHERE operator").fetch_scalar().await.unwrap();
        assert_eq!(operators, 1);
    })
    .await;
}

#[actix_rt::test]
async fn each_node_has_a_key_and_a_link_of_its_own_and_one_link_makes_the_administrator() {
    on_each(async |node| {
        let system = Caller::system();
        let [first, second] = [NodeId::new(), NodeId::new()].map(Some);
        let key = async |asks| node.ask(&system, IssueLocalKey { node: asks }).await.unwrap().secret;
        let link = async |asks| node.ask(&system, IssueSetupToken { node: asks }).await.unwrap();
        let (of_first, of_second, again) = (key(first).await, key(second).await, key(first).await);
        assert_eq!(node.validate(&of_first).await.unwrap_err().code(), Code::Unauthenticated);
        for valid in [of_second, again] {
            node.caller(&valid).await;
        }
        let (one, other) = (link(first).await.unwrap(), link(second).await.unwrap());
        node.ask(&visitor(), register_with("ada@example.org", &one)).await.unwrap();
        let late = node.ask(&visitor(), register_with("eve@example.org", &other)).await;
        assert_eq!(refusal(late), AuthError::InvitationRequired);
        assert_eq!((link(first).await, link(second).await), (None, None));
    })
    .await;
}

#[actix_rt::test]
async fn the_operator_does_not_count_as_the_first_administrator() {
    on_each(async |node| {
        operator(node).await;
        assert!(node.ask(&Caller::system(), IssueSetupToken::default()).await.unwrap().is_some());
        first_administrator(node).await;
        assert!(node.ask(&Caller::system(), IssueSetupToken::default()).await.unwrap().is_none());
    })
    .await;
}

#[actix_rt::test]
async fn the_first_administrator_shares_the_operators_organization_whoever_comes_first() {
    for operator_first in [true, false] {
        on_each(async |node| {
            let (operator, admin) = if operator_first {
                let operator = operator(node).await;
                (operator, first_administrator(node).await)
            } else {
                let admin = first_administrator(node).await;
                (operator(node).await, admin)
            };
            assert_eq!(admin.organization_id, operator.organization_id);
            assert_ne!(admin.user_id, operator.user_id);
            let organizations =
                node.ask(&admin, ListOrganizations { limit: Limit::default(), cursor: None }).await.unwrap();
            assert_eq!(organizations.items.len(), 1);
            assert_eq!((organizations.items[0].name.as_str(), organizations.items[0].role), ("main", Role::Owner));

            let bob = node.register("bob@example.org").await;
            let bob = node.caller(&bob.access_token).await;
            assert_ne!(bob.organization_id, operator.organization_id);
        })
        .await;
    }
}

#[actix_rt::test]
async fn nobody_registers_or_signs_in_as_the_operator() {
    on_each(async |node| {
        operator(node).await;
        let outcome = node.ask(&visitor(), super::register("Operator@localhost")).await;
        assert_eq!(refusal(outcome), AuthError::InvalidEmail);
        for password in ["", super::PASSWORD] {
            let outcome = node.login("operator@localhost", password).await;
            assert_eq!(refusal(outcome), AuthError::WrongCredentials);
        }
    })
    .await;
}

#[actix_rt::test]
async fn the_threads_for_passwords_show_in_the_metrics() {
    on_each(async |node| {
        let families = node.runtime.metrics().gather();
        let shown = families.iter().flat_map(|family| family.get_metric()).flat_map(|metric| metric.get_label());
        assert!(shown.into_iter().any(|label| label.value() == "bcrypt"));
    })
    .await;
}
