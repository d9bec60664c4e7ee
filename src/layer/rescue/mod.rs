//! The table from errors to responses. Pillion's own error responses are problem+json (RFC 9457) with a stable `type`
//! and the request id, and reveal nothing about the upstream.

pub(crate) mod problem_types;

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use problem_types::ProblemType;
use tower::Service;

use super::cache::error::CacheError;
use super::limit::{self, LimitError};
use super::maintenance::UnderMaintenance;
use super::record::{CLIENT_GONE, RequestRecord};
use super::represent::error::RepresentError;
use super::route::RouteError;
use super::routed::Observed;
use crate::message::body::{Body, BodyError};
use crate::message::error::{BoxError, Fault};
use crate::message::inbound::Refused;
use crate::policy::maintenance::Document;
use crate::policy::path::PathError;
use crate::represent::range;
use crate::upstream::ForwardError;

/// Value of `Retry-After`, in seconds, for requests that found no free slot.
const RETRY_AFTER: &str = "1";

/// The parts of an error response.
struct ProblemResponse {
    status: StatusCode,
    problem_type: ProblemType,
    detail: String,
    fault: Fault,
    /// Additional members of the document (RFC 9457 3.2).
    members: Vec<(&'static str, serde_json::Value)>,
    fields: Vec<(HeaderName, HeaderValue)>,
    /// The content in place of the problem document.
    document: Option<Document>,
}

impl ProblemResponse {
    fn new(status: StatusCode, problem_type: ProblemType, fault: Fault) -> ProblemResponse {
        let (detail, members, fields) = (String::new(), Vec::new(), Vec::new());
        ProblemResponse { status, problem_type, detail, fault, members, fields, document: None }
    }

    fn detail(mut self, detail: impl Into<String>) -> ProblemResponse {
        self.detail = detail.into();
        self
    }

    fn member(mut self, name: &'static str, value: serde_json::Value) -> ProblemResponse {
        self.members.push((name, value));
        self
    }

    fn maybe(self, name: &'static str, value: Option<String>) -> ProblemResponse {
        match value {
            Some(value) => self.member(name, value.into()),
            None => self,
        }
    }

    fn field(mut self, name: HeaderName, value: HeaderValue) -> ProblemResponse {
        self.fields.push((name, value));
        self
    }

    fn retry(self) -> ProblemResponse {
        self.field(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER))
    }

    /// Converts to a gRPC response. gRPC clients do not read problem documents: an error is a response of trailers only
    /// (gRPC over HTTP/2, Responses), with the code that the client's library acts on.
    fn into_grpc(self) -> Response<Body> {
        let code = match self.status {
            StatusCode::BAD_REQUEST | StatusCode::REQUEST_TIMEOUT => "13",
            StatusCode::UNAUTHORIZED => "16",
            StatusCode::FORBIDDEN => "7",
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "12",
            StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            | StatusCode::TOO_MANY_REQUESTS => "8",
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "14",
            StatusCode::GATEWAY_TIMEOUT => "4",
            _ => "2",
        };
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static(code));
        headers.insert("grpc-message", HeaderValue::from_static(self.problem_type.title));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn into_response(self, id: &HeaderValue) -> Response<Body> {
        let mut document = serde_json::json!({
            "type": self.problem_type.uri(),
            "title": self.problem_type.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "request_id": id.to_str().unwrap_or("-"),
        });
        for (name, value) in self.members {
            document[name] = value;
        }
        let (media_type, content) = match self.document {
            Some(Document { media_type, content }) => (media_type, content),
            None => ("application/problem+json", format!("{document}\n").into()),
        };
        let mut response = Response::new(Body::full(content));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.fields);
        response
    }
}

/// Returns the status of the response to an error.
pub(super) fn status(error: &BoxError) -> StatusCode {
    problem_for(error).status
}

fn problem_for(error: &BoxError) -> ProblemResponse {
    use StatusCode as S;
    if let Some(refused) = error.downcast_ref::<Refused>() {
        let problem_type = match refused.status {
            S::REQUEST_TIMEOUT => problem_types::REQUEST_TIMEOUT,
            S::REQUEST_HEADER_FIELDS_TOO_LARGE => problem_types::HEAD_TOO_LARGE,
            S::NOT_IMPLEMENTED => problem_types::NO_UPGRADE,
            S::URI_TOO_LONG => problem_types::TARGET_TOO_LONG,
            S::HTTP_VERSION_NOT_SUPPORTED => problem_types::VERSION,
            _ => problem_types::MALFORMED_REQUEST,
        };
        return ProblemResponse::new(refused.status, problem_type, Fault::Client).detail(refused.detail);
    }
    if let Some(error) = error.downcast_ref::<PathError>() {
        return ProblemResponse::new(S::BAD_REQUEST, problem_types::AMBIGUOUS_PATH, Fault::Client)
            .detail(error.to_string());
    }
    if let Some(error) = error.downcast_ref::<RouteError>() {
        return match error {
            // A 405 requires `Allow` (RFC 9110 15.5.6).
            RouteError::Connect => {
                let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
                ProblemResponse::new(S::METHOD_NOT_ALLOWED, problem_types::CONNECT, Fault::Client)
                    .field(header::ALLOW, allowed)
            }
            RouteError::CameBack | RouteError::Loop => {
                ProblemResponse::new(S::LOOP_DETECTED, problem_types::LOOP, Fault::Pillion)
            }
            RouteError::NotAllowed => {
                ProblemResponse::new(S::FORBIDDEN, problem_types::NOT_ALLOWED, Fault::Client)
            }
            RouteError::Denied(status) => ProblemResponse::new(*status, problem_types::DENIED, Fault::Client),
            RouteError::NoMemory => {
                ProblemResponse::new(S::SERVICE_UNAVAILABLE, problem_types::OUT_OF_BUFFERS, Fault::Pillion)
                    .retry()
            }
        }
        .detail(error.to_string());
    }
    if let Some(refusal) = error.downcast_ref::<UnderMaintenance>() {
        return ProblemResponse {
            document: refusal.document.clone(),
            ..ProblemResponse::new(S::SERVICE_UNAVAILABLE, problem_types::MAINTENANCE, Fault::Pillion)
                .detail("The app is not served for a while; try again later.")
                .field(header::RETRY_AFTER, refusal.retry_after.clone())
        };
    }
    if let Some(error) = error.downcast_ref::<LimitError>() {
        return limited(error);
    }
    if let Some(error) = error.downcast_ref::<RepresentError>() {
        return represent(*error);
    }
    if let Some(error) = error.downcast_ref::<CacheError>() {
        return match error {
            CacheError::Shared(error) => problem_for(error),
            // RFC 9111 5.2.1.7 defines this 504.
            CacheError::OnlyIfCached => {
                ProblemResponse::new(S::GATEWAY_TIMEOUT, problem_types::ONLY_IF_CACHED, Fault::Client).detail(
                    "The request allows only a stored response (only-if-cached), and none \
                        can be used.",
                )
            }
        };
    }
    if let Some(error) = error.downcast_ref::<ForwardError>() {
        return forward(error);
    }
    ProblemResponse::new(S::INTERNAL_SERVER_ERROR, problem_types::INTERNAL, Fault::Pillion)
        .detail("This is a defect of Pillion; its log has the cause under this request id.")
}

fn represent(error: RepresentError) -> ProblemResponse {
    use StatusCode as S;
    match error {
        RepresentError::PreconditionFailed => {
            ProblemResponse::new(S::PRECONDITION_FAILED, problem_types::PRECONDITION_FAILED, Fault::Client)
                .detail("The resource has changed, or has no strong entity tag to compare with.")
        }
        RepresentError::NotAcceptable => {
            ProblemResponse::new(S::NOT_ACCEPTABLE, problem_types::NOT_ACCEPTABLE, Fault::Client)
                .detail(
                    "Accept-Encoding rejects every available coding, and the content without a \
                    coding.",
                )
                .field(header::VARY, HeaderValue::from_static("accept-encoding"))
        }
        RepresentError::RangeNotSatisfiable(length) => ProblemResponse::new(
            S::RANGE_NOT_SATISFIABLE,
            problem_types::RANGE_NOT_SATISFIABLE,
            Fault::Client,
        )
        .detail(format!("The content has {length} bytes."))
        .field(header::CONTENT_RANGE, range::unsatisfied(length)),
    }
}

fn limited(error: &LimitError) -> ProblemResponse {
    match error {
        LimitError::TooLarge(max) => too_large(*max),
        LimitError::Rejected => {
            // A 401 requires a challenge (RFC 9110 15.5.2), but no scheme is registered for API keys.
            let challenge = HeaderValue::from_static("ApiKey");
            ProblemResponse::new(StatusCode::UNAUTHORIZED, problem_types::UNKNOWN_API_KEY, Fault::Client)
                .detail("The key is not one of the API keys accepted here.")
                .field(header::WWW_AUTHENTICATE, challenge)
        }
        LimitError::Unavailable => ProblemResponse::new(
            StatusCode::SERVICE_UNAVAILABLE,
            problem_types::LIMITS_UNAVAILABLE,
            Fault::Pillion,
        )
        .detail("Pillion cannot reach the place where limits are counted.")
        .retry(),
        LimitError::Exceeded { violated, tier, retry_after } => {
            let names = limit::names(violated, tier);
            let when = match retry_after {
                Some(seconds) => format!("the next request is allowed in {seconds} s."),
                None => "one of the requests in flight must end first.".to_owned(),
            };
            let response = ProblemResponse::new(
                StatusCode::TOO_MANY_REQUESTS,
                problem_types::QUOTA_EXCEEDED,
                Fault::Client,
            )
            .detail(format!("The request is beyond the limit {}; {when}", names.join(", ")))
            .member("violated-policies", names.into())
            .member("tier", tier.name.as_str().into())
            .maybe("upgrade", tier.upgrade.clone());
            match retry_after {
                Some(seconds) => response.field(header::RETRY_AFTER, HeaderValue::from(*seconds)),
                None => response.retry(),
            }
        }
    }
}

fn too_large(limit: u64) -> ProblemResponse {
    ProblemResponse::new(StatusCode::PAYLOAD_TOO_LARGE, problem_types::BODY_TOO_LARGE, Fault::Client)
        .detail(format!("The request body may have at most {limit} bytes."))
}

fn forward(error: &ForwardError) -> ProblemResponse {
    use StatusCode as S;
    let busy = |detail: &str| {
        ProblemResponse::new(S::SERVICE_UNAVAILABLE, problem_types::BUSY, Fault::Pillion)
            .detail(detail)
            .retry()
    };
    match error {
        ForwardError::Shed => ProblemResponse::new(
            S::SERVICE_UNAVAILABLE,
            problem_types::TEMPORARY_REDUCED_CAPACITY,
            Fault::Pillion,
        )
        .detail("The request was shed by adaptive concurrency; higher tiers are served first.")
        .retry(),
        ForwardError::QueueFull => busy("Too many requests already wait for the upstream."),
        ForwardError::QueueTimeout(_) => busy("No connection to the upstream became free in time."),
        ForwardError::TooManyStreams => busy("Too many streams to the upstream are open."),
        ForwardError::TimedOut => {
            ProblemResponse::new(S::GATEWAY_TIMEOUT, problem_types::UPSTREAM_TIMEOUT, Fault::Upstream)
                .detail("The upstream sent no response within the time allowed.")
        }
        ForwardError::Connect(_, error) if error.kind() == std::io::ErrorKind::TimedOut => {
            ProblemResponse::new(S::GATEWAY_TIMEOUT, problem_types::UPSTREAM_TIMEOUT, Fault::Upstream)
                .detail("No connection to the upstream could be made within the time allowed.")
        }
        ForwardError::Connect(..) | ForwardError::Resolve(_) => {
            ProblemResponse::new(S::BAD_GATEWAY, problem_types::UPSTREAM_UNREACHABLE, Fault::Upstream)
                .detail("No connection to the upstream could be made.")
        }
        ForwardError::HeadTooLarge(limit) => ProblemResponse::new(
            S::REQUEST_HEADER_FIELDS_TOO_LARGE,
            problem_types::HEAD_TOO_LARGE,
            Fault::Client,
        )
        .detail(format!("The upstream accepts at most {limit} bytes of fields.")),
        ForwardError::Closed
        | ForwardError::Broken(_)
        | ForwardError::Http2(_)
        | ForwardError::Http2Ended(_)
        | ForwardError::Objected(_) => {
            ProblemResponse::new(S::BAD_GATEWAY, problem_types::UPSTREAM_BROKEN, Fault::Upstream)
                .detail("The connection to the upstream ended before a response came.")
        }
        ForwardError::Malformed(_) | ForwardError::NotUpgraded => {
            let advice = match error {
                ForwardError::Malformed(head) => head.advice(),
                _ => None,
            };
            ProblemResponse::new(S::BAD_GATEWAY, problem_types::UPSTREAM_MALFORMED, Fault::Upstream)
                .detail(advice.unwrap_or("The upstream sent a response that cannot be passed on."))
        }
        ForwardError::CannotUpgrade => {
            ProblemResponse::new(S::BAD_GATEWAY, problem_types::UPSTREAM_NO_UPGRADE, Fault::Pillion)
                .detail("The upstream is configured for HTTP/2 only, which has no Upgrade.")
        }
        ForwardError::Body(error) => body(error),
    }
}

fn body(error: &BodyError) -> ProblemResponse {
    use StatusCode as S;
    match error {
        BodyError::TooLarge(limit) => too_large(*limit),
        BodyError::TrailersTooLarge(_) => ProblemResponse::new(
            S::REQUEST_HEADER_FIELDS_TOO_LARGE,
            problem_types::TRAILERS_TOO_LARGE,
            Fault::Client,
        )
        .detail(error.to_string()),
        BodyError::ClientSilent => {
            ProblemResponse::new(S::REQUEST_TIMEOUT, problem_types::REQUEST_TIMEOUT, Fault::Client)
                .detail("No part of the request body arrived for too long.")
        }
        BodyError::ClientSlow => {
            ProblemResponse::new(S::REQUEST_TIMEOUT, problem_types::REQUEST_TIMEOUT, Fault::Client)
                .detail("The request body arrived too slowly.")
        }
        // No client reads this response; only its status appears in the log.
        BodyError::ClientGone => {
            let gone = S::from_u16(CLIENT_GONE).unwrap_or(S::BAD_REQUEST);
            ProblemResponse::new(gone, problem_types::CLIENT_GONE, Fault::Client)
        }
        error => ProblemResponse::new(S::BAD_REQUEST, problem_types::MALFORMED_BODY, Fault::Client)
            .detail(error.to_string()),
    }
}

/// The rescue layer as a tower layer; see the head of the file.
#[derive(Clone)]
pub(super) struct Rescue<S>(pub S);

impl<S> Service<Observed> for Rescue<S>
where
    S: Service<Observed, Response = Response<Body>, Error = BoxError>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RescueFuture<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The layers below are always ready; they refuse in their responses.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, observed: Observed) -> Self::Future {
        let record = observed.record.clone();
        let called = std::panic::catch_unwind(AssertUnwindSafe(|| self.0.call(observed)));
        RescueFuture { inner: called.ok(), record }
    }
}

/// The future of a response, which also handles errors and panics below.
pub(super) struct RescueFuture<F> {
    /// The future of the layer below; `None` once it panicked.
    inner: Option<F>,
    record: Rc<RequestRecord>,
}

impl<F> Future for RescueFuture<F>
where
    F: Future<Output = Result<Response<Body>, BoxError>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let polled = match &mut this.inner {
            Some(inner) => std::panic::catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll(cx))).ok(),
            None => None,
        };
        let error: BoxError = match polled {
            Some(Poll::Pending) => return Poll::Pending,
            Some(Poll::Ready(Ok(response))) => return Poll::Ready(Ok(response)),
            Some(Poll::Ready(Err(error))) => error,
            None => {
                // A panic ends only its own request. Dropping the future frees what it held.
                this.inner = None;
                this.record.count_panic();
                "panic".into()
            }
        };
        let response = problem_for(&error);
        // The operator knows of the maintenance, which is logged when it starts.
        if response.fault != Fault::Client
            && response.problem_type != problem_types::MAINTENANCE
            && let Some(others) = this.record.may_log_failure()
        {
            let request_id = this.record.info.id.to_str().unwrap_or("-");
            let not_told = (others > 0).then_some(others);
            tracing::warn!(request_id, status = response.status.as_u16(), %error, not_told, "{}", response.problem_type.title);
        }
        this.record.error.set(response.fault, error.to_string());
        this.record.response_started(response.status);
        let mut response = if this.record.info.grpc {
            response.into_grpc()
        } else {
            response.into_response(&this.record.info.id)
        };
        // Applies the route's edits, for example so that a browser's script may read a 429.
        this.record.edit_own_response(response.headers_mut());
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests;
