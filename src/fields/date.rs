//! HTTP-date (RFC 9110 5.6.7), in all three of its forms.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName};

/// The date of a field; `None` where it is missing or malformed.
pub fn of(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}
