//! The server-sent events behind the admin page: one event every two seconds with all values the page shows.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use serde_json::{Value, json};
use tokio::time::Sleep;

use super::control::Control;
use super::{addresses, performance};
use crate::message::body::{Body, BodyError};
use crate::metrics::read_process;
use crate::performance::histogram::Merged;
use crate::performance::window::{Figures, Window};
use crate::runtime::clock;

const PACE: Duration = Duration::from_secs(2);
/// Maximum concurrent event streams. Further requests get 503.
pub(super) const MAX_WATCHERS: usize = 16;
const MAX_ROUTES: usize = 100;
const MAX_WARNINGS: usize = 10;

/// Opens an event stream; `None` if [`MAX_WATCHERS`] streams are open.
pub(super) fn stream(control: &Control) -> Option<Body> {
    let watchers = control.watchers.clone();
    let place = Place(watchers);
    if place.0.fetch_add(1, Ordering::Relaxed) >= MAX_WATCHERS {
        return None;
    }
    let sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut body = Body::streaming(Events { control: control.clone(), sleep, _place: place });
    body.set_endless();
    Some(body)
}

struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Events {
    control: Control,
    sleep: Pin<Box<Sleep>>,
    _place: Place,
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        ready!(self.sleep.as_mut().poll(cx));
        self.sleep.as_mut().reset((clock::now() + PACE).into());
        let text = format!("data: {}\n\n", reading(&self.control));
        Poll::Ready(Some(Ok(Frame::data(text.into()))))
    }
}

/// Collects all values that the page shows, at one moment.
fn reading(control: &Control) -> Value {
    let shared_state = &control.shared_state;
    let snapshot = control.live.load();
    let process = read_process();
    let now = clock::unix_seconds(clock::wall());
    let (mut all, mut times) = (Figures::default(), Merged::default());
    let mut routes = Vec::new();
    for (label, route) in shared_state.performance.routes() {
        let (figures, merged, over) = route.times.over(Window::Minute);
        if figures.count == 0 {
            continue;
        }
        all.add(&figures);
        times.join(&merged);
        let mut row = performance::figures(&figures, &merged, over);
        row["route"] = label.into();
        row["state"] = route.verdict().slowness.as_str().into();
        row["failing"] = route.verdict().failing.into();
        routes.push(row);
    }
    routes.sort_by_key(|row| std::cmp::Reverse(row["count"].as_u64()));
    routes.truncate(MAX_ROUTES);
    let quantile =
        |share: f64| (all.count > 0).then(|| performance::milliseconds(times.quantile(share).min(all.max)));
    let tiers: Vec<Value> = shared_state
        .limiter
        .counters
        .by_tier()
        .into_iter()
        .map(|(tier, [allowed, limited, would_limit])| {
            json!({ "tier": tier, "allowed": allowed, "limited": limited, "would_limit": would_limit })
        })
        .collect();
    let limited: u64 = tiers.iter().filter_map(|tier| tier["limited"].as_u64()).sum();
    let warnings: Vec<Value> =
        performance::warnings(&shared_state.performance).into_iter().take(MAX_WARNINGS).collect();
    json!({
        "time": now,
        "version": shared_state.metrics.version(),
        "generation": snapshot.generation,
        "maintenance": shared_state.maintenance.is_on(),
        "uptime_seconds": (now - process.start_seconds).max(0.0),
        "requests": shared_state.metrics.routes.total(),
        "limited": limited,
        "p50_ms": quantile(0.50),
        "p95_ms": quantile(0.95),
        "p99_ms": quantile(0.99),
        "error_rate": performance::share(all.failed, all.count),
        "hit_ratio": performance::share(all.hits, all.asked),
        "in_flight": shared_state.metrics.routes.in_flight.load(Ordering::Relaxed),
        "connections": shared_state.metrics.connections.get(),
        "resident_bytes": process.resident_bytes,
        "cpu_seconds": process.cpu_seconds,
        "routes": routes,
        "upstreams": addresses::addresses(&snapshot, &control.monitor),
        "tiers": tiers,
        "warnings": warnings,
    })
}
