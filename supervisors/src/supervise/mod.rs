//! Supervision after Erlang/OTP: children that are rebuilt by their factories, restarts with growing pauses, and a
//! supervisor that gives up when restarts come too often, so that its parent decides.

mod reference;
mod spec;
mod supervisor;
mod tree;

pub use reference::{ChildState, ChildView, SupervisorRef};
pub use spec::{ChildContext, ChildSpec, STOP_WITHIN};
pub use supervisor::{Services, Supervisor};
