//! Futures that are dropped within their runtime.
//!
//! A worker thread of the HTTP server that ends drops its pending tasks outside its runtime. A database connection
//! returns to its pool by a task when it is dropped, which panics without a runtime.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::future::LocalBoxFuture;
use tokio::runtime::Handle;

/// A future that is within the runtime of its thread also while it is dropped.
pub(crate) struct Anchored<T> {
    runtime: Handle,
    /// `None` only while it is dropped.
    future: Option<LocalBoxFuture<'static, T>>,
}

impl<T> Anchored<T> {
    /// Anchors it to the runtime of this thread.
    pub(crate) fn new(future: impl Future<Output = T> + 'static) -> Self {
        Self { runtime: Handle::current(), future: Some(Box::pin(future)) }
    }
}

impl<T> Future for Anchored<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut self.future {
            Some(future) => future.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Anchored<T> {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.future.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Like a database connection that is handed back to its pool.
    struct SpawnsWhenDropped;

    impl Drop for SpawnsWhenDropped {
        fn drop(&mut self) {
            drop(tokio::spawn(async {}));
        }
    }

    #[test]
    fn what_a_thread_leaves_behind_is_dropped_inside_its_runtime() {
        let thread = std::thread::spawn(|| {
            actix_rt::System::new().block_on(async {
                actix_rt::spawn(Anchored::new(async {
                    let _held = SpawnsWhenDropped;
                    std::future::pending::<()>().await;
                }));
                tokio::task::yield_now().await;
            });
        });
        assert!(thread.join().is_ok(), "the thread ends without a panic");
    }
}
