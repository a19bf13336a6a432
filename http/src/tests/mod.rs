//! Tests of the gateway over real sockets, with real domains on SQLite but for deploy.

mod access;
mod api;
mod bad_input;
mod edge;
mod failing_store;
mod fixture;
mod forms;
mod live;
mod operating;
mod pages;
mod replays;
mod upload;

/// A route of the tests: a handler that panics.
pub(crate) fn routes() -> crate::table::Routes {
    let panics = |_| async { panic!("password=hunter2") };
    let endpoint = crate::table::endpoint("test.panic", callboard_messages::Access::Public, panics);
    crate::table::Routes::new("/test").get("/panic", endpoint)
}
