//! Requests that change something: what they invalidate, and when.
//!
//! A guard is armed when the request is sent. It stamps when the app answers without an error, before its answer
//! is passed on, and once more when that has ended; and when nobody can know what became of the request: its
//! client left, the connection broke, the app (or what is behind it) did not answer in time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use tower::Service;

use super::asked::{Forwarded, Passed};
use super::flight::{Errand, Flight};
use super::{Answer, CacheFuture, CacheLayer, answer, outlive, settings};
use crate::body::{Body, BodyError};
use crate::cache::Cache;
use crate::cache::invalidation::Mode;
use crate::cache::marks::Mark;
use crate::clock;
use crate::error::BoxError;
use crate::fields::{host, structured};
use crate::layer::Routed;
use crate::policy::path;
use crate::upstream::ForwardError;

/// Groups to invalidate (RFC 9875 3).
const GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// What one rule, or the request itself, invalidates.
struct Stamp {
    /// The rule, or the cause.
    label: String,
    marks: Vec<Mark>,
    mode: Mode,
    settle: Duration,
}

/// See the head of the file.
pub struct Guard {
    cache: Arc<Cache>,
    stamps: Vec<Stamp>,
    /// Whether dropping it stamps.
    armed: bool,
    /// Whether its answer is waited for when its client has left.
    waits: bool,
}

/// When nobody knows what became of a request, the app may still be at it: it is stamped again then.
const AGAIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

impl<S> CacheLayer<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    /// Sends a request on that changes something.
    pub(super) fn write(&mut self, routed: Box<Routed>) -> CacheFuture<S::Future> {
        let guard = Guard::of(&routed, self.cache.clone());
        routed.record.told_by_cache("write");
        self.send(routed, Errand::Write(Box::new(guard)))
    }

    /// Sends a request on that the cache has nothing to do with.
    pub(super) fn pass(&mut self, routed: Box<Routed>, why: Passed) -> CacheFuture<S::Future> {
        routed.record.cached().count(crate::cache::counters::Event::Bypass);
        routed.record.told_by_cache("bypass");
        routed.record.not_stored(why.as_str());
        self.send(routed, Errand::Pass(why.forwarded()))
    }
}

impl Guard {
    fn of(routed: &Routed, cache: Arc<Cache>) -> Guard {
        let marker = cache.invalidation.marker;
        let path = path::normalise(routed.request.uri().path()).map(|path| path.normal).unwrap_or_default();
        // RFC 9111 4.4: the target itself, whatever the rules say.
        let mut stamps = vec![Stamp {
            label: "target".to_owned(),
            marks: vec![marker.path(&path)],
            mode: Mode::Hard,
            settle: Duration::ZERO,
        }];
        let host = host::text(routed.request.headers());
        let method = routed.request.method();
        for rule in &routed.record.snapshot.policy.invalidate {
            if !rule.on.takes(method, host, &path) {
                continue;
            }
            let tags = rule.tags.iter().map(|tag| marker.tag(&tag.fill(&path)));
            let paths = rule.paths.iter().map(|invalid| {
                let filled = invalid.path.fill(&path);
                if invalid.prefix { marker.prefix(&filled) } else { marker.path(&filled) }
            });
            stamps.push(Stamp {
                label: rule.label.clone(),
                marks: tags.chain(paths).collect(),
                mode: rule.mode,
                settle: rule.settle,
            });
        }
        let waits = routed.upgrade.is_none() && !routed.record.grpc;
        Guard { cache, stamps, armed: true, waits }
    }

    /// Whether its answer is waited for when its client has left.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Nobody knows what became of the request.
    fn fire_again_later(&self) {
        for stamp in &self.stamps {
            for after in AGAIN {
                self.cache.settle(after, stamp.mode, stamp.marks.clone());
            }
        }
    }

    fn fire(&self) {
        let now = clock::now();
        for stamp in &self.stamps {
            self.cache.invalidation.stamp(&stamp.marks, stamp.mode, now);
        }
    }

    /// Counted, and stamped once more where a rule wants that, once for a request.
    fn fire_first(&mut self) {
        self.fire();
        for stamp in &mut self.stamps {
            self.cache.counters.invalidation(&stamp.label).add(1);
            if !stamp.settle.is_zero() {
                self.cache.settle(stamp.settle, stamp.mode, stamp.marks.clone());
            }
        }
    }

    /// The answer, or why there is none.
    pub fn land(mut self: Box<Self>, flight: &Flight, result: Answer) -> Answer {
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                if was_not_sent(&error) {
                    self.armed = false;
                }
                // Dropped here: it stamps where nobody knows what became of the request.
                return Err(error);
            }
        };
        let status = response.status();
        let unknown = matches!(status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
        let upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
        if !status.is_success() && !status.is_redirection() && !unknown && !upgraded {
            self.armed = false;
            return Ok(flight.passed(response, Forwarded::Method, None));
        }
        if !unknown {
            self.told_by(flight, response.headers());
        }
        self.fire_first();
        self.armed = false;
        if unknown {
            self.fire_again_later();
        }
        let response = flight.passed(response, Forwarded::Method, None);
        let (parts, body) = response.into_parts();
        if body.content().is_some() || body.is_tunnel() {
            return Ok(Response::from_parts(parts, body));
        }
        let endless = body.is_endless();
        let mut body = Body::streaming(Watched { body, guard: Some(self) });
        if endless {
            body.set_endless();
        }
        Ok(Response::from_parts(parts, body))
    }

    /// What the answer names: Location and Content-Location of the same origin (RFC 9111 4.4), and groups.
    fn told_by(&mut self, flight: &Flight, answer: &HeaderMap) {
        let marker = self.cache.invalidation.marker;
        let host = &flight.host;
        let mut marks: Vec<Mark> = [header::LOCATION, header::CONTENT_LOCATION]
            .iter()
            .filter_map(|name| answer.get(name)?.to_str().ok())
            .filter_map(|reference| same_origin(reference, flight.path(), host))
            .map(|path| marker.path(&path))
            .collect();
        if settings(&flight.record).groups
            && let Some(groups) = structured::strings(answer, &GROUP_INVALIDATION)
        {
            marks.extend(groups.iter().map(|group| marker.group(host.as_bytes(), group)));
        }
        if let Some(first) = self.stamps.first_mut() {
            first.marks.extend(marks);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            self.fire_first();
            self.fire_again_later();
        }
    }
}

/// Whether the app has seen nothing of a request.
fn was_not_sent(error: &BoxError) -> bool {
    matches!(
        error.downcast_ref::<ForwardError>(),
        Some(
            ForwardError::Resolve(_)
                | ForwardError::Connect(..)
                | ForwardError::Shed
                | ForwardError::QueueFull
                | ForwardError::QueueTimeout(_)
                | ForwardError::CannotUpgrade
        )
    )
}

/// The path in normal form of a reference (RFC 3986 5) to the origin that was asked; `None`: it is another one.
fn same_origin(reference: &str, target: &str, asked: &str) -> Option<String> {
    let path = if let Some(rest) = reference.strip_prefix("http://").or(reference.strip_prefix("https://")) {
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let https = reference.starts_with("https:");
        let plain = |authority: &str| {
            let host = host::without_default_port(authority.as_bytes(), https);
            host::without_default_port(host, !https).to_ascii_lowercase()
        };
        if plain(authority) != plain(asked) {
            return None;
        }
        if path.starts_with('/') { path.to_owned() } else { "/".to_owned() }
    } else if reference.starts_with("//") || reference.split(['/', '?', '#']).next()?.contains(':') {
        return None;
    } else if reference.starts_with('/') {
        reference.to_owned()
    } else if reference.is_empty() || reference.starts_with(['?', '#']) {
        target.to_owned()
    } else {
        // Relative: to the folder of the target.
        let folder = target.rfind('/').map_or("/", |at| &target[..=at]);
        format!("{folder}{reference}")
    };
    let path = path.split(['?', '#']).next().unwrap_or("/");
    path::normalise(path).ok().map(|path| path.normal.into_owned())
}

/// The answer to a write: when it has ended, or nobody wants its rest, what it changed is changed.
struct Watched {
    body: Body,
    /// `None` once it has stamped.
    guard: Option<Box<Guard>>,
}

impl Watched {
    fn ended(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.fire();
        }
    }
}

impl Drop for Watched {
    /// The app goes on although nobody wants the rest: its end is waited for.
    fn drop(&mut self) {
        let Some(guard) = self.guard.take() else { return };
        let body = std::mem::replace(&mut self.body, Body::empty());
        guard.fire();
        if !guard.waits {
            return;
        }
        let Some(place) = guard.cache.unattended.take(1) else {
            guard.fire_again_later();
            return;
        };
        outlive(async move {
            let _place = place;
            answer::to_its_end(body).await;
            guard.fire();
        });
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_the_same_origin() {
        let target = "/api/orders/7";
        for (reference, wanted) in [
            ("/api/orders/8", Some("/api/orders/8")),
            ("8", Some("/api/orders/8")),
            ("./8?x=1#y", Some("/api/orders/8")),
            ("../8", Some("/api/8")),
            ("http://a.example/x/../y", Some("/y")),
            ("https://A.example/y", Some("/y")),
            ("https://A.example:8443/y", None),
            ("http://a.example", Some("/")),
            ("http://b.example/y", None),
            ("//b.example/y", None),
            ("mailto:x", None),
            ("?x=1", Some("/api/orders/7")),
        ] {
            assert_eq!(same_origin(reference, target, "a.example:80").as_deref(), wanted, "{reference}");
        }
    }
}
