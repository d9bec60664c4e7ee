//! The one table from errors to answers. Everything Pillion itself says is problem+json (RFC 9457)
//! with a stable `type`, the request's id, and nothing about what is behind it.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use tower::Service;

use super::Observed;
use super::cache::CacheError;
use super::limit::{self, LimitError};
use super::record::{CLIENT_GONE, Record};
use super::represent::RepresentError;
use super::route::RouteError;
use crate::body::{Body, BodyError};
use crate::error::{BoxError, Fault};
use crate::inbound::Refused;
use crate::policy::path::PathError;
use crate::represent::range;
use crate::upstream::ForwardError;

/// Seconds after which a request that found no place may find one.
const RETRY_AFTER: &str = "1";

/// What the types of our own problems begin with.
const OURS: &str = "urn:pillion:problem:";
/// The registry of HTTP Problem Types (RFC 9457 4.2).
const REGISTERED: &str = "https://iana.org/assignments/http-problem-types#";

/// What is said to the client.
struct Answer {
    status: StatusCode,
    /// What `type` begins with.
    kind: &'static str,
    /// The last part of `type`, stable for ever.
    name: &'static str,
    title: &'static str,
    detail: String,
    fault: Fault,
    /// Further members of the document (RFC 9457 3.2).
    members: Vec<(&'static str, serde_json::Value)>,
    /// Further fields.
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Answer {
    fn new(status: StatusCode, name: &'static str, title: &'static str, fault: Fault) -> Answer {
        let (detail, members, fields) = (String::new(), Vec::new(), Vec::new());
        Answer { status, kind: OURS, name, title, detail, fault, members, fields }
    }

    fn detail(mut self, detail: impl Into<String>) -> Answer {
        self.detail = detail.into();
        self
    }

    /// Its type is one of those that everybody knows.
    fn registered(mut self) -> Answer {
        self.kind = REGISTERED;
        self
    }

    fn member(mut self, name: &'static str, value: serde_json::Value) -> Answer {
        self.members.push((name, value));
        self
    }

    fn maybe(self, name: &'static str, value: Option<String>) -> Answer {
        match value {
            Some(value) => self.member(name, value.into()),
            None => self,
        }
    }

    fn field(mut self, name: HeaderName, value: HeaderValue) -> Answer {
        self.fields.push((name, value));
        self
    }

    fn retry(self) -> Answer {
        self.field(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER))
    }

    /// A gRPC client does not read documents: a refusal is an answer of trailers only (gRPC over HTTP/2,
    /// Responses), with the code that its library acts on.
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
        headers.insert("grpc-message", HeaderValue::from_static(self.title));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn into_response(self, id: &HeaderValue) -> Response<Body> {
        let mut document = serde_json::json!({
            "type": format!("{}{}", self.kind, self.name),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "request_id": id.to_str().unwrap_or("-"),
        });
        for (name, value) in self.members {
            document[name] = value;
        }
        let mut response = Response::new(Body::full(format!("{document}\n")));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.fields);
        response
    }
}

/// The status that an error is answered with.
pub fn status(error: &BoxError) -> StatusCode {
    answer(error).status
}

/// The table.
fn answer(error: &BoxError) -> Answer {
    use StatusCode as S;
    if let Some(refused) = error.downcast_ref::<Refused>() {
        let (name, title) = match refused.status {
            S::REQUEST_TIMEOUT => ("request-timeout", "The request did not arrive in time"),
            S::REQUEST_HEADER_FIELDS_TOO_LARGE => ("head-too-large", "The request head is too large"),
            S::NOT_IMPLEMENTED => ("upgrade", "This is not upgraded to"),
            S::URI_TOO_LONG => ("target-too-long", "The request target is too long"),
            S::HTTP_VERSION_NOT_SUPPORTED => ("version", "This version of HTTP is not spoken here"),
            _ => ("malformed-request", "The request is malformed"),
        };
        return Answer::new(refused.status, name, title, Fault::Client).detail(refused.detail);
    }
    if let Some(error) = error.downcast_ref::<PathError>() {
        return Answer::new(
            S::BAD_REQUEST,
            "ambiguous-path",
            "The path can be read in two ways",
            Fault::Client,
        )
        .detail(error.to_string());
    }
    if let Some(error) = error.downcast_ref::<RouteError>() {
        return match error {
            // RFC 9110 15.5.6 asks for Allow.
            RouteError::Connect => {
                let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
                Answer::new(S::METHOD_NOT_ALLOWED, "connect", "This is not a forward proxy", Fault::Client)
                    .field(header::ALLOW, allowed)
            }
            RouteError::CameBack | RouteError::Loop => {
                Answer::new(S::LOOP_DETECTED, "loop", "The request went in a circle", Fault::Pillion)
            }
            RouteError::Denied(status) => Answer::new(*status, "denied", "This is not served", Fault::Client),
            RouteError::NoMemory => {
                let title = "There is no memory for another request";
                Answer::new(S::SERVICE_UNAVAILABLE, "out-of-buffers", title, Fault::Pillion).retry()
            }
        }
        .detail(error.to_string());
    }
    if let Some(error) = error.downcast_ref::<LimitError>() {
        return limited(error);
    }
    if let Some(error) = error.downcast_ref::<RepresentError>() {
        return represent(*error);
    }
    if let Some(error) = error.downcast_ref::<CacheError>() {
        return match error {
            CacheError::Shared(error) => answer(error),
            // RFC 9111 5.2.1.7.
            CacheError::OnlyIfCached => Answer::new(
                S::GATEWAY_TIMEOUT,
                "only-if-cached",
                "Nothing is stored for this request",
                Fault::Client,
            )
            .detail("it takes nothing but what is stored (only-if-cached)"),
        };
    }
    if let Some(error) = error.downcast_ref::<ForwardError>() {
        return forward(error);
    }
    Answer::new(S::INTERNAL_SERVER_ERROR, "internal", "Pillion failed", Fault::Pillion)
        .detail("this is a defect of Pillion; its log has the cause under this request id")
}

fn represent(error: RepresentError) -> Answer {
    use StatusCode as S;
    match error {
        RepresentError::PreconditionFailed => {
            let title = "A condition of the request does not hold";
            Answer::new(S::PRECONDITION_FAILED, "precondition-failed", title, Fault::Client)
                .detail("what it is about has changed, or has no strong entity tag to compare with")
        }
        RepresentError::NotAcceptable => {
            let title = "This cannot be had in a coding that is accepted";
            Answer::new(S::NOT_ACCEPTABLE, "not-acceptable", title, Fault::Client)
                .detail("Accept-Encoding refuses every coding there is, and the content as it is")
                .field(header::VARY, HeaderValue::from_static("accept-encoding"))
        }
        RepresentError::RangeNotSatisfiable(length) => {
            let title = "The range is outside of the content";
            Answer::new(S::RANGE_NOT_SATISFIABLE, "range-not-satisfiable", title, Fault::Client)
                .detail(format!("the content has {length} bytes"))
                .field(header::CONTENT_RANGE, range::unsatisfied(length))
        }
    }
}

fn limited(error: &LimitError) -> Answer {
    match error {
        LimitError::TooLarge(most) => too_large(*most),
        LimitError::Rejected => {
            let title = "The API key is not known";
            // RFC 9110 15.5.2 asks for a challenge; no scheme is registered for keys.
            let challenge = HeaderValue::from_static("ApiKey");
            Answer::new(StatusCode::UNAUTHORIZED, "unknown-api-key", title, Fault::Client)
                .detail("it is not among the keys that are taken here")
                .field(header::WWW_AUTHENTICATE, challenge)
        }
        LimitError::Exceeded { violated, tier, retry_after } => {
            let title = "The quota is used up";
            let names = limit::names(violated, tier);
            let when = match retry_after {
                Some(seconds) => format!("the next request conforms in {seconds} s"),
                None => "one of the requests in flight has to end first".to_owned(),
            };
            let answer = Answer::new(StatusCode::TOO_MANY_REQUESTS, "quota-exceeded", title, Fault::Client)
                .registered()
                .detail(format!("beyond {}; {when}", names.join(", ")))
                .member("violated-policies", names.into())
                .member("tier", tier.name.as_str().into())
                .maybe("upgrade", tier.upgrade.clone());
            match retry_after {
                Some(seconds) => answer.field(header::RETRY_AFTER, HeaderValue::from(*seconds)),
                None => answer.retry(),
            }
        }
    }
}

fn too_large(limit: u64) -> Answer {
    Answer::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body-too-large",
        "The request body is too large",
        Fault::Client,
    )
    .detail(format!("at most {limit} bytes are taken here"))
}

fn forward(error: &ForwardError) -> Answer {
    use StatusCode as S;
    let busy = |detail: &str| {
        Answer::new(
            S::SERVICE_UNAVAILABLE,
            "busy",
            "The app has no place for another request",
            Fault::Pillion,
        )
        .detail(detail)
        .retry()
    };
    match error {
        ForwardError::Shed => Answer::new(
            S::SERVICE_UNAVAILABLE,
            "temporary-reduced-capacity",
            "The app has as much to do as it can bear",
            Fault::Pillion,
        )
        .registered()
        .detail("others were before this request, or come first by their tier")
        .retry(),
        ForwardError::QueueFull => busy("too many requests wait for it already"),
        ForwardError::QueueTimeout(_) => busy("none became free in time"),
        ForwardError::TooManyStreams => busy("too many streams are open"),
        ForwardError::TimedOut => Answer::new(
            S::GATEWAY_TIMEOUT,
            "upstream-timeout",
            "The app did not answer in time",
            Fault::Upstream,
        )
        .detail("no answer came within the time allowed"),
        ForwardError::Connect(_, error) if error.kind() == std::io::ErrorKind::TimedOut => Answer::new(
            S::GATEWAY_TIMEOUT,
            "upstream-timeout",
            "The app did not answer in time",
            Fault::Upstream,
        )
        .detail("no connection could be made within the time allowed"),
        ForwardError::Connect(..) | ForwardError::Resolve(_) => {
            Answer::new(S::BAD_GATEWAY, "upstream-unreachable", "The app cannot be reached", Fault::Upstream)
                .detail("no connection to it could be made")
        }
        ForwardError::HeadTooLarge(limit) => Answer::new(
            S::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "head-too-large",
            "The request head is too large",
            Fault::Client,
        )
        .detail(format!("the app takes at most {limit} bytes of fields")),
        ForwardError::Closed
        | ForwardError::Broken(_)
        | ForwardError::Http2(_)
        | ForwardError::Http2Ended(_)
        | ForwardError::Objected(_) => Answer::new(
            S::BAD_GATEWAY,
            "upstream-broken",
            "The app broke off without an answer",
            Fault::Upstream,
        )
        .detail("the connection to it ended before an answer came"),
        ForwardError::Malformed(_) | ForwardError::NotUpgraded => {
            let title = "The app's answer is malformed";
            let advice = match error {
                ForwardError::Malformed(head) => head.advice(),
                _ => None,
            };
            Answer::new(S::BAD_GATEWAY, "upstream-malformed", title, Fault::Upstream)
                .detail(advice.unwrap_or("what it sent cannot be passed on"))
        }
        ForwardError::CannotUpgrade => {
            Answer::new(S::BAD_GATEWAY, "upgrade", "The app cannot be upgraded to", Fault::Pillion)
                .detail("this upstream is spoken to in HTTP/2 only")
        }
        ForwardError::Body(error) => body(error),
    }
}

fn body(error: &BodyError) -> Answer {
    use StatusCode as S;
    match error {
        BodyError::TooLarge(limit) => too_large(*limit),
        BodyError::TrailersTooLarge(_) => Answer::new(
            S::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "trailers-too-large",
            "The request trailers are too large",
            Fault::Client,
        )
        .detail(error.to_string()),
        BodyError::ClientSilent => Answer::new(
            S::REQUEST_TIMEOUT,
            "request-timeout",
            "The request did not arrive in time",
            Fault::Client,
        )
        .detail("nothing of the body came for too long"),
        BodyError::ClientSlow => Answer::new(
            S::REQUEST_TIMEOUT,
            "request-timeout",
            "The request did not arrive in time",
            Fault::Client,
        )
        .detail("the body came too slowly"),
        // Nobody will read it; the log has the word.
        BodyError::ClientGone => {
            let gone = S::from_u16(CLIENT_GONE).unwrap_or(S::BAD_REQUEST);
            Answer::new(gone, "client-gone", "The client left", Fault::Client)
        }
        error => {
            Answer::new(S::BAD_REQUEST, "malformed-body", "The request body is malformed", Fault::Client)
                .detail(error.to_string())
        }
    }
}

/// See the head of the file.
#[derive(Clone)]
pub struct Rescue<S>(pub S);

impl<S> Service<Observed> for Rescue<S>
where
    S: Service<Observed, Response = Response<Body>, Error = BoxError>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RescueFuture<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // What is below takes everything; it refuses in its answer.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, observed: Observed) -> Self::Future {
        let record = observed.record.clone();
        let called = std::panic::catch_unwind(AssertUnwindSafe(|| self.0.call(observed)));
        RescueFuture { inner: called.ok(), record }
    }
}

/// The answer, whatever happens below.
pub struct RescueFuture<F> {
    /// `None` once it panicked.
    inner: Option<F>,
    record: Rc<Record>,
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
                // One request's panic ends that request; what it held is dropped with it.
                this.inner = None;
                this.record.panicked();
                "panic".into()
            }
        };
        let answer = answer(&error);
        if answer.fault != Fault::Client
            && let Some(others) = this.record.may_tell_failure()
        {
            let request_id = this.record.id.to_str().unwrap_or("-");
            let not_told = (others > 0).then_some(others);
            tracing::warn!(request_id, status = answer.status.as_u16(), %error, not_told, "{}", answer.title);
        }
        this.record.failed(answer.fault, error.to_string());
        this.record.answered(answer.status);
        let mut response =
            if this.record.grpc { answer.into_grpc() } else { answer.into_response(&this.record.id) };
        // So that a browser's script can read a 429 too.
        this.record.edit_own(response.headers_mut());
        Poll::Ready(Ok(response))
    }
}
