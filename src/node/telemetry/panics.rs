//! Panics in the log, with their place and the operation that panicked.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic,
};

/// Logs panics from now on. Otherwise they would be text between the lines of a JSON log.
pub fn log() {
    panic::set_hook(Box::new(|panic| {
        let said = panic.payload_as_str().unwrap_or("without a text");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        // Only where RUST_BACKTRACE asks for it.
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tracing::error!(target: "callboard::panic", thread, %backtrace, "panicked at {location}: {said}");
        } else {
            tracing::error!(target: "callboard::panic", thread, "panicked at {location}: {said}");
        }
    }));
}
