//! What is counted of calls and of the work behind them, and the spans that tie them together.

pub(crate) mod background;
pub(crate) mod stats;
pub mod trace;
