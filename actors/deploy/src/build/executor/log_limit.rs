//! The end of a build's log: so many lines, and how many there were beyond.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::logs::output::LineSink;

/// Passes `limit` lines, and adds a line when there are more, and their number at the end.
pub(super) fn bounded(sink: &LineSink, limit: u64) -> (LineSink, LeftOut) {
    let left_out = LeftOut { sink: sink.clone(), limit, lines: Arc::default() };
    let (sink, lines) = (sink.clone(), left_out.lines.clone());
    let bounded = LineSink::new(move |line| {
        let number = lines.fetch_add(1, Ordering::Relaxed);
        if number < limit {
            sink.pass(line);
        } else if number == limit {
            sink.say(format!("the log has {limit} lines; what follows is left out"));
        }
    });
    (bounded, left_out)
}

/// Writes to the log, when dropped, how many lines were left out.
pub(super) struct LeftOut {
    sink: LineSink,
    limit: u64,
    lines: Arc<AtomicU64>,
}

impl Drop for LeftOut {
    fn drop(&mut self) {
        let lines = self.lines.load(Ordering::Relaxed).saturating_sub(self.limit);
        if lines > 0 {
            self.sink.say(format!("{lines} lines were left out here"));
        }
    }
}
