//! Observers of both bodies: they count the bytes that pass, and the end of the response ends the request.

use std::rc::{Rc, Weak};

use super::RequestRecord;
use crate::message::body::{BodyError, Observer};
use crate::message::error::Fault;

/// Counts the content of a request as it passes. The weak reference does not keep a request that ended.
pub(crate) struct RequestBodyObserver(pub Weak<RequestRecord>);

impl Observer for RequestBodyObserver {
    fn data(&mut self, bytes: usize) {
        if let Some(record) = self.0.upgrade() {
            record.timeline.add_received(bytes);
        }
    }

    fn end(&mut self, _: Result<(), &BodyError>) {}
}

/// Counts the content of a response as it passes, and ends the request with it.
pub(crate) struct ResponseBodyObserver(pub Rc<RequestRecord>);

impl Observer for ResponseBodyObserver {
    fn data(&mut self, bytes: usize) {
        self.0.timeline.add_sent(bytes);
    }

    fn end(&mut self, result: Result<(), &BodyError>) {
        if let Err(error) = result {
            let fault = match error {
                BodyError::UpstreamGone | BodyError::UpstreamMalformed(_) | BodyError::UpstreamSilent => {
                    Fault::Upstream
                }
                BodyError::Http2(_) => Fault::Upstream,
                BodyError::Draining => Fault::Pillion,
                _ => Fault::Client,
            };
            self.0.error.set(fault, error.to_string());
        }
        self.0.finish();
    }
}
