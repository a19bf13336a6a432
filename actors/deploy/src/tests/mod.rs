//! The whole domain, with real processes: apps of a few lines of Python, so that each test takes a moment.

mod bench;
mod failures;
mod instances;
mod recovery;
mod stories;
mod tables;
