//! Shared by both sides of HTTP/2.

pub mod hpack;
pub mod refusals;
pub mod trailers;

use std::future::Future;

/// Maximum data of one stream that the library holds on its way out; bytes.
pub const SEND_BUFFER: usize = 128 * 1024;

/// Runs hyper's tasks on the worker they belong to.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
