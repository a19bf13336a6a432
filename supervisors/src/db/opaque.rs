//! Values whose type other crates do not compile.
//!
//! Whoever drops a value compiles the drop of its type, and each crate compiles it anew. So what a domain holds of a
//! database is behind one of these: sqlx's pools, connections and TLS sessions are compiled once, here.

use std::fmt::Debug;

/// A `T` behind a pointer that says nothing of it.
pub(super) trait Opaque<T>: Debug + Send {
    fn get(&self) -> &T;

    fn get_mut(&mut self) -> &mut T;

    fn into_box(self: Box<Self>) -> Box<T>;
}

impl<T: Debug + Send> Opaque<T> for T {
    fn get(&self) -> &T {
        self
    }

    fn get_mut(&mut self) -> &mut T {
        self
    }

    fn into_box(self: Box<Self>) -> Box<T> {
        self
    }
}
