//! Tests of the cache layer on a scripted upstream, one for each behavior.

mod eligibility;
mod hits;
mod revalidation;
mod sharing;
mod uncounted;
mod writes;

use tower::Service;

use super::classify::Lookup;
use super::exchange::{CacheExchange, Fetching};
use super::service::CacheLayer;
use crate::layer::testing::{Asking, Outcome, Scripted, Stage, field};
use crate::message::body::Body;

/// A cache before a scripted upstream.
struct Cached {
    stage: Stage,
    upstream: Scripted,
    layer: CacheLayer<Scripted>,
}

impl Cached {
    fn new(configuration: &str, upstream: Scripted) -> Cached {
        let stage = Stage::new(configuration);
        let layer = CacheLayer::new(upstream.clone(), stage.cache().clone(), Default::default());
        Cached { stage, upstream, layer }
    }

    /// Sends a request through the layer.
    fn send(&self, asking: Asking) -> impl Future<Output = Outcome> + use<> {
        self.layer.clone().call(asking.routed())
    }

    async fn get(&self, target: &str) -> http::Response<Body> {
        self.send(self.stage.ask(&format!("GET {target}"))).await.unwrap()
    }

    /// Sends a request that `change` edits, and returns its `Cache-Status` without the name of the cache.
    async fn status(&self, line: &str, change: impl Fn(Asking) -> Asking) -> String {
        let response = self.send(change(self.stage.ask(line))).await.unwrap();
        cache_status(&response)
    }
}

/// Returns `Cache-Status` without the name of the cache. Lifetimes are rounded to tens of seconds, so that a machine
/// that pauses changes nothing.
fn cache_status(response: &http::Response<Body>) -> String {
    let member = field(response.headers(), "cache-status").strip_prefix("pillion; ").unwrap_or_default();
    let parameters = member.split("; ").map(|parameter| match parameter.strip_prefix("ttl=") {
        Some(seconds) => format!("ttl={}", (seconds.parse::<f64>().unwrap() / 10.0).round() * 10.0 + 0.0),
        None => parameter.to_owned(),
    });
    parameters.collect::<Vec<_>>().join("; ")
}

#[test]
fn boxes_of_every_request_are_allocated_quickly() {
    let sizes = [size_of::<CacheExchange>(), size_of::<Fetching>(), size_of::<Lookup>()];
    assert!(sizes.into_iter().all(crate::layer::is_quick), "{sizes:?}");
}
