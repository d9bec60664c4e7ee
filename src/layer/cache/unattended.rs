//! Work that goes on after its client has left: its bound, and the rest of a response that nobody reads.

use std::pin::Pin;
use std::time::Duration;

use crate::cache::Cache;
use crate::layer::record::RequestRecord;
use crate::memory::buffers::BufferReservation;
use crate::message::body::Body;

/// Maximum time to wait for the end of a response that no client reads any more.
const LAST_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a future after its request is gone; does nothing while the runtime shuts down.
pub(super) fn outlive(future: impl Future<Output = ()> + 'static) {
    if tokio::runtime::Handle::try_current().is_ok() {
        tokio::task::spawn_local(future);
    }
}

/// Reserves a place for a read that continues without its client; `None` if there is none.
pub(super) fn unattended(cache: &Cache, record: &RequestRecord) -> Option<BufferReservation> {
    cache.unattended.read(record.info.client_slot(), max_unattended(record))
}

/// Returns the maximum number of reads of an upstream that continue without their clients: an eighth of its
/// connections.
pub(super) fn max_unattended(record: &RequestRecord) -> usize {
    let upstream = record.route_policy().upstream.unwrap_or(0);
    let upstream = record.info.snapshot.policy.upstreams.get(upstream);
    upstream.map_or(1, |upstream| (upstream.max_connections / 8).max(1))
}

/// Reads a response that no client reads to its end, for the sake of the invalidation or the store that waits for it.
pub(crate) async fn to_its_end(mut body: Body) {
    if body.is_endless() || body.is_tunnel() {
        return;
    }
    let end = async {
        while let Some(Ok(_)) =
            std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await
        {}
    };
    let _ = tokio::time::timeout(LAST_TIMEOUT, end).await;
}
