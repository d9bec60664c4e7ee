//! The end of the process: it announces it, drains its connections, and stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use crate::admin::control::Command;
use crate::cache::unattended::Unattended;
use crate::log::tail::Tail;
use crate::metrics::Metrics;
use crate::runtime::clock;
use crate::runtime::lifecycle::Phase;
use crate::server::workers::Workers;
use crate::state::live_policy::LivePolicy;

/// Interval between checks whether the last connection has closed while draining.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// Maximum time that the stop waits for readers of live decisions to get the end of their streams.
const LAST_LINES: Duration = Duration::from_millis(200);

pub(super) struct Drain {
    pub workers: Workers,
    pub unattended: Arc<Unattended>,
    pub live: LivePolicy,
    pub leaving: Arc<AtomicBool>,
    pub metrics: Arc<Metrics>,
    pub tail: Arc<Tail>,
    pub announced: Option<clock::Instant>,
}

impl Drain {
    /// Makes `/ready` respond 503 from now on, and every response announce that its connection closes.
    pub(super) fn announce(&mut self) {
        if self.announced.is_none() {
            tracing::info!("draining started: /ready now responds with 503");
            self.announced = Some(clock::now());
            self.leaving.store(true, Ordering::Relaxed);
            self.tail.close();
            self.workers.advance(Phase::Announcing);
        }
    }

    /// Drains and stops the workers. `second` stops them at once, and then the result is false.
    pub(super) async fn finish(
        mut self,
        second: impl Future<Output = ()>,
        orders: &mut UnboundedReceiver<Command>,
    ) -> bool {
        self.announce();
        let requests = self.metrics.routes.in_flight.load(Ordering::Relaxed).max(0);
        let plural = if requests == 1 { "" } else { "s" };
        tracing::info!(
            requests,
            "stopping: waiting for {requests} request{plural} in flight; a second signal (Ctrl-C) stops at once"
        );
        let policy = self.live.load_full();
        let server = &policy.policy.server;
        let announced = self.announced.unwrap_or_else(clock::now);
        let (workers, unattended, tail) = (&self.workers, self.unattended.clone(), self.tail.clone());
        let orderly = async {
            tokio::time::sleep_until((announced + server.drain_delay).into()).await;
            workers.advance(Phase::Draining);
            let deadline = clock::now() + server.drain_timeout;
            // Waits for upstream requests without a client too: invalidation depends on the end of a write.
            let busy = || workers.connections() > 0 || unattended.get() > 0;
            while busy() && clock::now() < deadline {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            let last_lines = clock::now() + LAST_LINES;
            while tail.subscriptions() > 0 && clock::now() < last_lines {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            match workers.connections() {
                0 => tracing::info!("stopped"),
                left => tracing::warn!(left, "stopped with connections still open: drain_timeout has passed"),
            }
        };
        let refused = async {
            // Drops commands that arrive now. The sender of a reload sees its reply channel close.
            while let Some(order) = orders.recv().await {
                drop(order);
            }
            std::future::pending::<bool>().await
        };
        let in_order = tokio::select! {
            () = orderly => true,
            () = second => {
                tracing::warn!("a second signal stopped the process at once");
                false
            }
            never = refused => never,
        };
        self.workers.stop();
        in_order
    }
}
