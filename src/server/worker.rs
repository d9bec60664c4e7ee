//! One worker, as its connections see it, and the state that all workers share.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::connection::seats::Seats;
use crate::http1::server::Settings;
use crate::layer::stack;
use crate::memory::buffers::{BufferMemory, ClientSlot};
use crate::metrics::{Metrics, RefusedLabels};
use crate::runtime::clock;
use crate::runtime::lifecycle::Lifecycle;
use crate::runtime::log_throttle::LogThrottle;
use crate::state::live_policy::{LivePolicy, PolicyView, SharedState, Snapshot};

#[derive(Clone)]
pub(crate) struct Shared {
    pub live: LivePolicy,
    pub shared_state: SharedState,
    /// One permit for each client connection.
    pub connections: Arc<Semaphore>,
    /// The client and state of each connection.
    pub seats: Arc<Seats>,
}

/// One worker, as its connections see it.
pub(crate) struct Worker {
    pub(super) view: RefCell<PolicyView>,
    pub(super) parts: stack::Parts,
    /// Limit on log events about refused connections.
    pub refusals: LogThrottle,
    /// The worker's phase of the shutdown.
    pub lifecycle: Rc<Lifecycle>,
}

impl Worker {
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.view.borrow_mut().load().clone()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.parts.sink.shared_state.metrics
    }

    /// Returns the memory for bytes that wait for slow clients.
    pub(crate) fn buffers(&self) -> &Arc<BufferMemory> {
        &self.parts.shared_state.buffers
    }

    /// Returns the present settings of client connections, without touching a reference count.
    pub(crate) fn settings(&self) -> Settings {
        self.view.borrow_mut().load().policy.server.settings
    }

    /// Returns a client's slot, and whether it is a trusted proxy, which carries the requests of others.
    pub(super) fn client(&self, address: IpAddr) -> (ClientSlot, bool) {
        let mut view = self.view.borrow_mut();
        let policy = &view.load().policy;
        let client = ClientSlot::new(address, policy.limits.ipv6_prefix);
        (client, policy.server.trusts(address.to_canonical()))
    }

    /// Counts a connection that is closed because its client has its share.
    pub(crate) fn refuse_beyond_share(&self, seats: &Seats, address: IpAddr) {
        self.metrics().refused.get_or_create(&RefusedLabels { reason: "share" }).inc();
        if let Some(connections) = seats.count_refused(clock::now()) {
            tracing::warn!(client = %address, connections, "connections closed: their client has reached its share of max_connections");
        }
    }

    /// Builds the stack for one connection.
    pub(crate) fn service(
        &self,
    ) -> impl tower::Service<
        crate::message::inbound::Inbound,
        Response = http::Response<crate::message::body::Body>,
        Error = std::convert::Infallible,
        Future: 'static,
    > + Clone
    + use<> {
        stack::build(&self.parts)
    }
}
