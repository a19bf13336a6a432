//! Tests of the bridge with a real broker: `CALLBOARD_TEST_AMQP_URL`, or the local one. Every test has names of its own
//! there.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test says so by panicking")]

mod bad_input;
mod dead_letters;
mod events;
mod faults;
mod fixture;
mod live;
mod operations;
mod proxy;
mod store;
mod target;
mod versions;
