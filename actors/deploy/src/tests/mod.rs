//! The whole domain, with real processes: apps of a few lines of Python, so that each test takes a moment.

mod archives;
mod crowd;
mod disk;
mod environment;
mod failures;
mod fixture;
mod gate;
mod instances;
mod lifecycle;
mod nodes;
mod process_types;
mod projects;
mod recovery;
mod release_command;
mod retention;
mod reuse;
mod stories;
mod summaries;
mod tables;
mod takeover;
mod umask;
