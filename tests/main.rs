//! End-to-end tests: each starts a real node as a child process on a free port with a data folder of its own, and uses
//! it as people do, by HTTP and by the command line. Nothing is shared between tests, and each checks at its end that
//! its node left nothing running.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test says so by panicking")]

mod harness;

mod access;
mod backup;
mod bad_input;
mod browser;
mod builds;
mod cases;
mod chaos;
mod cli;
mod cluster;
mod crash;
mod crowd;
mod edge;
mod examples;
mod full_disk;
mod manifests;
mod metrics;
mod objects;
mod plans;
mod postgres;
mod reapers;
mod rollout;
mod servers;
mod sites;
mod sources;
mod start;
mod telemetry;
mod terminal;
