//! Tests of the runtime, with a manual clock.

mod alone;
mod bounds;
mod breakers;
mod calls;
mod faults;
mod fixture;
mod keyed;
mod layers;
mod node;
mod remote;
mod supervision;
mod topics;
mod traces;
