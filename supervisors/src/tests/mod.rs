//! The runtime's promises, kept with a clock that stands until it is moved.

mod alone;
mod bounds;
mod breakers;
mod calls;
mod faults;
mod keyed;
mod layers;
mod node;
mod remote;
mod stage;
mod supervision;
mod topics;
mod traces;
