//! The service that stands in for an upstream: it notes the request as the upstream would get it, and returns a given
//! response.

use std::cell::RefCell;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Response, Version, header};
use tower::Service;

use super::course::{SentRequest, StandInResponse};
use crate::layer::forward::{Prepared, heed_session, prepare};
use crate::layer::routed::Routed;
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::represent::compression_decision::has_no_content;
use crate::runtime::clock;

/// The stand-in as a tower service; see the head of the file.
#[derive(Clone)]
pub(super) struct StandIn {
    response: Rc<StandInResponse>,
    sent: Rc<RefCell<Option<SentRequest>>>,
}

impl StandIn {
    /// Creates a stand-in that notes each request in `sent`.
    pub(super) fn new(response: StandInResponse, sent: Rc<RefCell<Option<SentRequest>>>) -> StandIn {
        StandIn { response: Rc::new(response), sent }
    }

    fn respond(&self, mut routed: Box<Routed>) -> Result<Response<Body>, BoxError> {
        let record = routed.record.clone();
        let chosen = routed.route.upstream.unwrap_or(0);
        let policy = &record.info.snapshot.policy;
        let upstream = policy.upstreams.get(chosen).ok_or("the route's upstream does not exist")?;
        let now = clock::now();
        record.upstream_started(now);
        record.upstream.progress.sent_whole(now);
        // The request counts as one of HTTP/1.1; only its response needs the fields of HTTP/2.
        *routed.request.version_mut() = Version::HTTP_11;
        let Prepared { fields, identified, asked } = prepare(&record, &mut routed, upstream);
        let headers = routed.request.headers_mut();
        if let Some(fields) = fields {
            fields.insert_into(headers, true);
        }
        if let Some(identified) = identified {
            identified.insert_into(headers);
        }
        self.sent.replace(Some(SentRequest {
            upstream: upstream.name.to_string(),
            target: routed.request.uri().path_and_query().map_or("/", PathAndQuery::as_str).to_owned(),
            fields: routed.request.headers().clone(),
        }));
        record.upstream_ended();
        let response = self.response(routed.request.method());
        record.upstream.set_status(response.status());
        let asked = asked.as_ref().unwrap_or(routed.request.headers());
        heed_session(&record, &record.info.method, asked, response.headers());
        Ok(response)
    }

    /// Returns the response as it comes off an upstream connection.
    fn response(&self, method: &Method) -> Response<Body> {
        let StandInResponse { status, fields, content } = &*self.response;
        let has_content = !has_no_content(*status) && !status.is_informational();
        let is_sent = has_content && *method != Method::HEAD;
        let body = if is_sent { Body::full(content.clone()) } else { Body::empty() };
        let mut response = Response::new(body);
        *response.status_mut() = *status;
        response.headers_mut().clone_from(fields);
        if has_content {
            response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(content.len()));
        }
        response
    }
}

impl Service<Box<Routed>> for StandIn {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, routed: Box<Routed>) -> Self::Future {
        ready(self.respond(routed))
    }
}
