//! Three nodes that share a platform, on real servers. Every other test runs on three nodes too, with
//! `CALLBOARD_TEST_TOPOLOGY=cluster`; here is what only several nodes can show. Tests that leave the nodes
//! as they were share them (`platform`).

mod broker;
mod draining;
mod encrypted;
mod failover;
mod frozen;
mod joining;
mod live;
mod mending;
mod operating;
mod placement;
mod platform;
mod readiness;
mod redis;
mod starting;
mod websocket;
