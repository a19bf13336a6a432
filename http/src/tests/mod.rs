//! The gateway over real sockets, in front of real domains on SQLite; deploy is played.

mod access;
mod api;
mod bad_input;
mod edge;
mod failing_store;
mod fixture;
mod live;
mod operating;
mod pages;
mod replays;
mod upload;

/// A line of the table that only tests have: a handler of the gateway's own that panics.
pub(crate) fn routes() -> crate::table::Routes {
    let panics = |_| async { panic!("password=hunter2") };
    let endpoint = crate::table::endpoint("test.panic", callboard_messages::Access::Public, panics);
    crate::table::Routes::new("/test").get("/panic", endpoint)
}
