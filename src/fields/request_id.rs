//! The fields that tell an app which request it answers: its id, and its place in a trace.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::traceparent::{TRACEPARENT, TraceParent};

/// Names a request from the first proxy to the app.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The name others give it.
pub(crate) const X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// Which request it is. No two have the same, so these go beside the other fields and not through their map.
#[derive(Clone, Copy, Debug)]
pub struct Identified<'a> {
    /// `X-Request-Id`.
    pub id: &'a HeaderValue,
    /// `traceparent`, where Pillion tells of it.
    pub trace: Option<TraceParent>,
    /// Whether the trace has its id from the request: the same digits.
    pub alike: bool,
}

impl Identified<'_> {
    /// Whether it is one of these fields.
    pub fn says(&self, name: &HeaderName) -> bool {
        *name == X_REQUEST_ID || (self.trace.is_some() && *name == TRACEPARENT)
    }

    /// Writes them as lines of a head.
    pub fn write(&self, out: &mut BytesMut) {
        out.put_slice(b"x-request-id: ");
        out.put_slice(self.id.as_bytes());
        out.put_slice(b"\r\n");
        if let Some(trace) = &self.trace {
            let digits = self.id.as_bytes().first_chunk().filter(|_| self.alike);
            out.put_slice(&trace.line(digits));
        }
    }

    /// Puts them in the place of what is said there.
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
