//! The end of the process: it announces it, drains its connections, and stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use crate::admin::control::Command;
use crate::cache::unattended::Unattended;
use crate::runtime::clock;
use crate::runtime::lifecycle::Phase;
use crate::server::workers::Workers;
use crate::state::live_policy::LivePolicy;

/// How often the end of the last connection is looked for while draining.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

pub(super) struct Drain {
    pub workers: Workers,
    pub unattended: Arc<Unattended>,
    pub live: LivePolicy,
    pub leaving: Arc<AtomicBool>,
    pub announced: Option<clock::Instant>,
}

impl Drain {
    /// Not ready from now on, and every answer says that its connection ends.
    pub(super) fn announce(&mut self) {
        if self.announced.is_none() {
            tracing::info!("draining: not ready any more");
            self.announced = Some(clock::now());
            self.leaving.store(true, Ordering::Relaxed);
            self.workers.advance(Phase::Announcing);
        }
    }

    /// All of it; `second` ends it at once, and then it is false.
    pub(super) async fn finish(
        mut self,
        second: impl Future<Output = ()>,
        orders: &mut UnboundedReceiver<Command>,
    ) -> bool {
        self.announce();
        let policy = self.live.load_full();
        let server = &policy.policy.server;
        let announced = self.announced.unwrap_or_else(clock::now);
        let (workers, unattended) = (&self.workers, self.unattended.clone());
        let orderly = async {
            tokio::time::sleep_until((announced + server.drain_delay).into()).await;
            workers.advance(Phase::Draining);
            let deadline = clock::now() + server.drain_timeout;
            // What goes on without its client is waited for too: a write's end is what its readers depend on.
            let busy = || workers.connections() > 0 || unattended.get() > 0;
            while busy() && clock::now() < deadline {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            match workers.connections() {
                0 => tracing::info!("stopped"),
                left => tracing::warn!(left, "stopped with connections open: drain_timeout passed"),
            }
        };
        let refused = async {
            // Whoever orders something now is told by the closed channel.
            while let Some(order) = orders.recv().await {
                drop(order);
            }
            std::future::pending::<bool>().await
        };
        let in_order = tokio::select! {
            () = orderly => true,
            () = second => {
                tracing::warn!("stopped at once by a second signal");
                false
            }
            never = refused => never,
        };
        self.workers.stop();
        in_order
    }
}
