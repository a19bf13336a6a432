//! Supervision after Erlang/OTP: children that are rebuilt by their factories, restarts that wait longer each time,
//! and a supervisor that gives up when they come too often, so that its parent decides.

mod reference;
mod spec;
mod supervisor;
mod tree;

pub use reference::{ChildState, ChildView, SupervisorRef};
pub use spec::{ChildContext, ChildSpec, STOP_WITHIN};
pub use supervisor::{Services, Supervisor};
