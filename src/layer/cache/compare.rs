//! Sends a request as one user, as another and as the first again. Stops caching a route if the responses show that
//! users receive each other's; with scope "auto" an operator is only warned. See `cache::tripwire` for when and why.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;

use http::{Response, header};
use tower::Service;
use xxhash_rust::xxh3::Xxh3;

use super::service::CacheLayer;
use super::unattended::outlive;
use crate::cache::invalidation::Mode;
use crate::cache::rules::conditions::CONDITIONS;
use crate::cache::settings::Scope;
use crate::cache::tripwire::{self, Digest, Pair, Sample};
use crate::layer::routed::Routed;
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::message::inbound::Peer;
use crate::runtime::clock;

/// Maximum content that is compared, in bytes; longer responses are not.
const MAX: u64 = 8 * 1024 * 1024;

impl<S> CacheLayer<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    /// Compares the responses of two users in the background.
    pub(super) fn compare(&self, routed: &Routed, pair: Pair) {
        let Some(routed) = routed.again(clock::now()) else { return };
        let mut layer = self.clone();
        outlive(async move {
            let mut digests = Vec::with_capacity(3);
            for user in [&pair.one, &pair.other, &pair.again()] {
                match layer.ask_as(&routed, user).await {
                    Some(digest) => digests.push(digest),
                    None => return,
                }
            }
            layer.cache.counters.compared.add(1);
            let [one, other, again] = digests[..] else { return };
            let route = routed.route.label.as_str();
            let now = clock::now();
            let differs = tripwire::differs(one, other, again);
            let trips = routed.record.cache_counters().tripwire.compared(differs, layer.cache.second(now));
            let path = routed.request.uri().path();
            if trips && routed.route.cache.route_settings.scope == Scope::Auto {
                if routed.record.cache_counters().tripwire.warns(layer.cache.second(now)) {
                    tracing::warn!(
                        route,
                        path,
                        "a route with scope \"auto\" got different responses to two requests that \
                        differ only in fields that may identify the user; the route still shares \
                        responses. The upstream should send private or Vary; or set scope = \
                        \"user\" for a copy for each user, or key_headers for a copy for each value \
                        of a field"
                    );
                }
            } else if trips && layer.cache.stop(route, now) {
                layer.cache.counters.tripped.add(1);
                let mut targets = layer.cache.targets();
                targets.route(route);
                layer.cache.invalidate(&targets, Mode::Hard, now);
                if let Some(outbox) = layer.cache.outbox() {
                    outbox.stop(route);
                }
                tracing::warn!(
                    route,
                    path,
                    "two users got different responses on a route with scope \"shared\"; it is not \
                    cached for an hour. Set scope = \"user\" for a copy for each user"
                );
            }
        });
    }

    /// Repeats the whole request of a user; `None` without a complete response.
    async fn ask_as(&mut self, routed: &Routed, user: &Sample) -> Option<Digest> {
        let mut request = routed.again(clock::now())?;
        *request.request.uri_mut() = user.target.clone();
        let headers = request.request.headers_mut();
        headers.clone_from(&user.headers);
        CONDITIONS.iter().for_each(|name| drop(headers.remove(name)));
        headers.remove(header::RANGE);
        request.peer = Rc::new(Peer::new(user.peer, user.tls));
        let response = self.inner.call(request).await.ok()?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let (mut hash, mut length) = (Box::new(Xxh3::new()), 0);
        while let Some(frame) = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await {
            if let Ok(data) = frame.ok()?.into_data() {
                length += data.len() as u64;
                if length > MAX {
                    return None;
                }
                hash.update(&data);
            }
        }
        Some(Digest { status, content: hash.digest128() })
    }
}
