//! What is true of three nodes to which nothing happens, and leaves them as they were: each of these needs nodes of its own
//! no more than its own servers, and to start three takes longer than to ask them.

use super::{live, mending, operating, placement, starting};
use crate::harness::Node;

#[actix_rt::test]
async fn three_nodes_are_one_platform_to_whoever_asks_any_of_them() {
    let mut node = Node::start_cluster().await;
    // First, while nobody has used the set-up links.
    starting::nodes_that_start_together_on_an_empty_database_are_one_platform(&node).await;
    placement::every_node_gives_the_same_answers_and_refusals(&node).await;
    placement::a_revoked_session_is_dead_on_every_node_within_a_second(&node).await;
    placement::two_versions_of_the_program_understand_each_other(&node).await;
    live::logs_are_followed_on_any_node_and_resumed_on_another(&node).await;
    mending::a_node_that_hosts_no_domain_is_a_gateway_to_those_of_others(&mut node).await;
    node.finish().await;
}

#[tokio::test]
async fn an_operator_sees_every_node_and_mends_what_is_stuck() {
    let mut node = Node::start_cluster().await;
    operating::an_operator_sees_every_node_and_may_hold_a_breaker_of_one(&node).await;
    operating::a_dead_letter_is_listed_shown_replayed_and_dropped(&node).await;
    mending::dead_letters_are_listed_shown_replayed_and_dropped(&node).await;
    mending::a_stuck_saga_is_listed_and_goes_on_when_it_is_retried(&node).await;
    mending::a_domain_that_a_node_gave_up_is_revived_from_another(&mut node).await;
    // Last: no node of this version starts on that database any more.
    starting::a_schema_that_a_newer_version_made_is_refused(&node).await;
    node.finish().await;
}
