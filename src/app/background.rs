//! Tasks that run beside the requests: the checks of health, the judgment of routes, the care of the cache.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::finding::State;
use crate::admin::health;
use crate::admin::monitor::{Change, Monitor};
use crate::cache::Cache;
use crate::log::recent::Recent;
use crate::performance::{Performance, Warning, window};
use crate::policy::Check;
use crate::runtime::clock;
use crate::runtime::systemd;
use crate::state::live_policy::{LivePolicy, SharedState};

/// Interval between runs of the health checks.
const LOOK: Duration = Duration::from_secs(1);

/// Interval between runs of the periodic maintenance of the cache and of the latest decisions.
const TICK: Duration = Duration::from_millis(100);

pub(super) async fn look(
    live: LivePolicy,
    shared_state: SharedState,
    monitor: Arc<Monitor>,
    changes: tokio::sync::mpsc::Sender<Change>,
) {
    loop {
        tokio::time::sleep(LOOK).await;
        if health::run(Check::Workers, &live.load(), &shared_state).status != State::Unhealthy {
            systemd::alive();
        }
        for change in monitor.look(&live.load(), &shared_state, clock::wall()) {
            let check = change.check.as_str();
            let (from, to, detail) = (change.from.as_str(), change.to.status.as_str(), &change.to.detail);
            let text = format!("{check} is {to}: {detail}");
            let recovered = change.to.status == State::Healthy;
            shared_state.performance.warn(Warning { at: change.at, text, recovered });
            if change.to.status > change.from {
                tracing::warn!(check, from, to, detail, "a health check changed its state");
            } else {
                tracing::info!(check, from, to, detail, "a health check changed its state");
            }
            if live.load().policy.health.webhook.is_some() && changes.try_send(change).is_err() {
                shared_state.metrics.webhook("dropped");
                tracing::warn!(check, "health webhook queue is full; state change not delivered");
            }
        }
    }
}

/// Judges the performance of routes at the interval of the measuring windows, and logs the changes.
pub(super) async fn step(performance: Arc<Performance>) {
    loop {
        tokio::time::sleep(window::STEP).await;
        for Warning { text, recovered, .. } in performance.step(clock::wall()) {
            if recovered {
                tracing::info!("recovered: {text}");
            } else {
                tracing::warn!("{text}");
            }
        }
    }
}

pub(super) async fn tick(cache: Arc<Cache>, recent: Arc<Recent>) {
    loop {
        tokio::time::sleep(TICK).await;
        cache.tick(clock::now());
        recent.tick();
    }
}
