//! Code shared by both sides of HTTP/2.

pub(crate) mod hpack;
pub(crate) mod intake;
pub(crate) mod library_refusals;
pub(crate) mod settings;
pub(crate) mod trailers;

use std::future::Future;

use http::HeaderMap;

/// Maximum data of one stream that the library holds for sending; bytes.
pub(crate) const SEND_BUFFER: usize = 128 * 1024;

/// Bytes that each field adds to the size of its section beside its name and value (RFC 9113 6.5.2).
pub(crate) const FIELD_OVERHEAD: usize = 32;

/// Returns the size in bytes of a field section without pseudo-header fields, as SETTINGS_MAX_HEADER_LIST_SIZE counts
/// it (RFC 9113 6.5.2).
pub(crate) fn section_size(headers: &HeaderMap) -> usize {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + FIELD_OVERHEAD
    };
    headers.iter().map(field).sum()
}

/// An executor that runs hyper's tasks on their own worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

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
