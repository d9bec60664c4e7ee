//! Tests of the table from errors to responses.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use tower::Service;

use super::Rescue;
use crate::http1::head_error::HeadError;
use crate::layer::cache::error::CacheError;
use crate::layer::limit::LimitError;
use crate::layer::represent::error::RepresentError;
use crate::layer::route::RouteError;
use crate::layer::testing::{Asking, Scripted, Stage, content, field, on_worker, response};
use crate::message::body::{Body, BodyError};
use crate::message::error::BoxError;
use crate::message::inbound::Refused;
use crate::policy::path::PathError;
use crate::upstream::{ForwardError, Target};

/// Returns the response to a request that fails below with `error`.
async fn rescued(
    configuration: &str,
    error: impl Into<BoxError>,
    change: impl Fn(Asking) -> Asking,
) -> Response<Body> {
    let mut error = Some(error.into());
    let below = Scripted::by(move |_| Err(error.take().unwrap()));
    let observed = change(Stage::new(configuration).ask("GET /a")).observed();
    let Ok(response) = Rescue(below).call(observed).await;
    response
}

async fn document(response: Response<Body>) -> serde_json::Value {
    serde_json::from_str(&content(response).await.unwrap()).unwrap()
}

fn connect(kind: io::ErrorKind) -> ForwardError {
    ForwardError::Connect(Target::Tcp(([192, 0, 2, 1], 80).into()), kind.into())
}

/// Checks the status and the type of the response to each error.
async fn check(cases: Vec<(BoxError, u16, &str)>) {
    for (error, status, name) in cases {
        let shown = error.to_string();
        let response = rescued("", error, |asking| asking).await;
        assert_eq!(response.status().as_u16(), status, "{shown}");
        assert_eq!(field(response.headers(), "content-type"), "application/problem+json", "{shown}");
        assert_eq!(field(response.headers(), "cache-control"), "no-store", "{shown}");
        let document = document(response).await;
        let kind = document["type"].as_str().unwrap();
        assert_eq!(kind.rsplit([':', '#']).next(), Some(name), "{shown}");
        assert_eq!(document["status"], status, "{shown}");
        assert_eq!(document["request_id"].as_str().map(str::len), Some(32), "{shown}");
        let known = super::problem_types::ALL.iter().any(|known| document["title"] == known.title);
        assert!(known, "{shown}: {document}");
    }
}

#[test]
fn each_failure_of_the_upstream_has_its_status_and_type() {
    on_worker(async {
        let cases: Vec<(ForwardError, u16, &str)> = vec![
            (ForwardError::Resolve(io::ErrorKind::NotFound.into()), 502, "upstream-unreachable"),
            (connect(io::ErrorKind::ConnectionRefused), 502, "upstream-unreachable"),
            (connect(io::ErrorKind::TimedOut), 504, "upstream-timeout"),
            (ForwardError::TimedOut, 504, "upstream-timeout"),
            (ForwardError::Shed, 503, "temporary-reduced-capacity"),
            (ForwardError::QueueFull, 503, "busy"),
            (ForwardError::QueueTimeout(Duration::from_secs(1)), 503, "busy"),
            (ForwardError::TooManyStreams, 503, "busy"),
            (ForwardError::Closed, 502, "upstream-broken"),
            (ForwardError::Broken(io::ErrorKind::ConnectionReset.into()), 502, "upstream-broken"),
            (ForwardError::Http2("a".to_owned()), 502, "upstream-broken"),
            (ForwardError::Http2Ended("a".to_owned()), 502, "upstream-broken"),
            (ForwardError::Objected("a".to_owned()), 502, "upstream-broken"),
            (ForwardError::Malformed(HeadError::TooLarge), 502, "upstream-malformed"),
            (ForwardError::Malformed(HeadError::Tls), 502, "upstream-malformed"),
            (ForwardError::NotUpgraded, 502, "upstream-malformed"),
            (ForwardError::CannotUpgrade, 502, "upgrade"),
            (ForwardError::HeadTooLarge(9), 431, "head-too-large"),
            (ForwardError::Body(BodyError::TooLarge(9)), 413, "body-too-large"),
            (ForwardError::Body(BodyError::TrailersTooLarge(9)), 431, "trailers-too-large"),
            (ForwardError::Body(BodyError::ClientSilent), 408, "request-timeout"),
            (ForwardError::Body(BodyError::ClientSlow), 408, "request-timeout"),
            (ForwardError::Body(BodyError::ClientGone), 499, "client-gone"),
            (ForwardError::Body(BodyError::ClientMalformed("a")), 400, "malformed-body"),
        ];
        check(cases.into_iter().map(|(error, status, name)| (error.into(), status, name)).collect()).await;
    });
}

#[test]
fn each_refusal_of_a_layer_has_its_status_and_type() {
    on_worker(async {
        let refused = |status| Refused { status, detail: "a reason" };
        let shared = CacheError::Shared(Arc::new(ForwardError::TimedOut.into()));
        check(vec![
            (refused(StatusCode::REQUEST_TIMEOUT).into(), 408, "request-timeout"),
            (refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE).into(), 431, "head-too-large"),
            (refused(StatusCode::NOT_IMPLEMENTED).into(), 501, "upgrade"),
            (refused(StatusCode::URI_TOO_LONG).into(), 414, "target-too-long"),
            (refused(StatusCode::HTTP_VERSION_NOT_SUPPORTED).into(), 505, "version"),
            (refused(StatusCode::BAD_REQUEST).into(), 400, "malformed-request"),
            (PathError::Null.into(), 400, "ambiguous-path"),
            (RouteError::Connect.into(), 405, "connect"),
            (RouteError::Loop.into(), 508, "loop"),
            (RouteError::CameBack.into(), 508, "loop"),
            (RouteError::Denied(StatusCode::FORBIDDEN).into(), 403, "denied"),
            (RouteError::NoMemory.into(), 503, "out-of-buffers"),
            (LimitError::TooLarge(9).into(), 413, "body-too-large"),
            (LimitError::Rejected.into(), 401, "unknown-api-key"),
            (RepresentError::PreconditionFailed.into(), 412, "precondition-failed"),
            (RepresentError::NotAcceptable.into(), 406, "not-acceptable"),
            (RepresentError::RangeNotSatisfiable(5).into(), 416, "range-not-satisfiable"),
            (CacheError::OnlyIfCached.into(), 504, "only-if-cached"),
            (shared.into(), 504, "upstream-timeout"),
            ("an error that no table knows".into(), 500, "internal"),
        ])
        .await;
    });
}

#[test]
fn fields_that_a_status_requires_are_there() {
    on_worker(async {
        for (error, name, value) in [
            (BoxError::from(RouteError::Connect), "allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            (LimitError::Rejected.into(), "www-authenticate", "ApiKey"),
            (RepresentError::RangeNotSatisfiable(5).into(), "content-range", "bytes */5"),
            (RepresentError::NotAcceptable.into(), "vary", "accept-encoding"),
            (ForwardError::QueueFull.into(), "retry-after", "1"),
            (ForwardError::Shed.into(), "retry-after", "1"),
            (RouteError::NoMemory.into(), "retry-after", "1"),
        ] {
            let response = rescued("", error, |asking| asking).await;
            assert_eq!(field(response.headers(), name), value, "{name}");
        }
    });
}

#[test]
fn a_quota_that_is_used_up_names_its_limits_and_the_time_to_wait() {
    on_worker(async {
        let configuration = "
            [rate_limit.tiers.free]
            upgrade = 'https://example.com/pricing'
            [rate_limit.tiers.free.limits]
            requests = { rate = '60/min', burst = 2 }
        ";
        let tier = Stage::new(configuration).snapshot.policy.limits.default.clone();
        for (retry_after, told) in [(Some(7), "7"), (None, "1")] {
            let violated = [crate::limit::Which::Quota(0)].into_iter().collect();
            let error = LimitError::Exceeded { violated, tier: tier.clone(), retry_after };
            let response = rescued("", error, |asking| asking).await;
            assert_eq!(response.status(), 429);
            assert_eq!(field(response.headers(), "retry-after"), told);
            let document = document(response).await;
            assert_eq!(document["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
            assert_eq!(document["violated-policies"], serde_json::json!(["requests"]));
            assert_eq!(
                (&document["tier"], &document["upgrade"]),
                (&"free".into(), &"https://example.com/pricing".into())
            );
        }
    });
}

#[test]
fn grpc_clients_get_a_status_that_their_library_acts_on() {
    on_worker(async {
        for (error, code) in [
            (BoxError::from(ForwardError::TimedOut), "4"),
            (ForwardError::Closed.into(), "14"),
            (LimitError::Rejected.into(), "16"),
            (LimitError::TooLarge(9).into(), "8"),
            (RouteError::Denied(StatusCode::FORBIDDEN).into(), "7"),
            (RouteError::Denied(StatusCode::NOT_FOUND).into(), "12"),
            (PathError::Null.into(), "13"),
            ("unknown".into(), "2"),
        ] {
            let shown = error.to_string();
            let mut error = Some(error);
            let below = Scripted::by(move |_| Err(error.take().unwrap()));
            let asking = Stage::new("").ask("POST /a.Service/Call");
            let call = asking.field("content-type", "application/grpc").field("te", "trailers");
            let Ok(response) = Rescue(below).call(call.observed()).await;
            let told = ["content-type", "grpc-status"].map(|name| field(response.headers(), name));
            assert_eq!((response.status().as_u16(), told), (200, ["application/grpc", code]), "{shown}");
        }
    });
}

#[test]
fn a_panic_ends_its_own_request_alone() {
    on_worker(async {
        let stage = Stage::new("");
        let below = Scripted::by(|asked| match asked.target.as_str() {
            "/panics" => panic!("this is a test"),
            _ => Ok(response(200, &[], "hello")),
        });
        let mut layer = Rescue(below);
        let Ok(failed) = layer.call(stage.ask("GET /panics").observed()).await;
        assert_eq!(failed.status(), 500);
        assert_eq!(document(failed).await["type"], "urn:pillion:problem:internal");
        let Ok(served) = layer.call(stage.ask("GET /a").observed()).await;
        assert_eq!(served.status(), 200);
        assert_eq!(stage.sink.shared_state.metrics.panics.get(), 1);
    });
}
