//! The fields that identify a request to the upstream: its request id, and its position in a trace.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::traceparent::{TRACEPARENT, TraceParent};

/// The request id, which every proxy on the way and the app share.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The name that other proxies use for the request id.
pub(crate) const X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// The identity of one request. It differs in every request, so these fields are kept apart from the shared field map.
#[derive(Clone, Copy, Debug)]
pub struct Identified<'a> {
    /// The request id, sent as `X-Request-Id`.
    pub id: &'a HeaderValue,
    /// The value of `traceparent`, if Pillion sends one.
    pub trace: Option<TraceParent>,
    /// Whether the trace id has the same digits as the request id, so that they can be copied.
    pub alike: bool,
}

impl Identified<'_> {
    /// Returns whether a field is one of those that this type writes.
    pub fn says(&self, name: &HeaderName) -> bool {
        *name == X_REQUEST_ID || (self.trace.is_some() && *name == TRACEPARENT)
    }

    /// Writes the fields as lines of a head.
    pub fn write(&self, out: &mut BytesMut) {
        out.put_slice(b"x-request-id: ");
        out.put_slice(self.id.as_bytes());
        out.put_slice(b"\r\n");
        if let Some(trace) = &self.trace {
            let digits = self.id.as_bytes().first_chunk().filter(|_| self.alike);
            out.put_slice(&trace.line(digits));
        }
    }

    /// Inserts the fields, and replaces existing values.
    pub fn insert_into(&self, headers: &mut HeaderMap) {
        headers.insert(X_REQUEST_ID, self.id.clone());
        if let Some(trace) = &self.trace {
            headers.insert(TRACEPARENT, trace.value());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_fields_say() {
        let of_trace = HeaderValue::from_str(&format!("{:032x}", 0xab)).unwrap();
        let trace = Some(TraceParent { trace: 0xab, span: 0xcd, flags: 3 });
        let one = HeaderValue::from_static("one");
        for (id, trace, alike) in [(&one, None, false), (&one, trace, false), (&of_trace, trace, true)] {
            let identified = Identified { id, trace, alike };
            let mut lines = BytesMut::new();
            identified.write(&mut lines);
            let mut headers = HeaderMap::new();
            identified.insert_into(&mut headers);
            let written =
                headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
            assert_eq!(lines, written.collect::<String>());
            assert!(headers.keys().all(|name| identified.says(name)));
        }
    }
}
