//! The reasons for refusing a head, with the status and the text of each refusal.

use http::StatusCode;

use super::framing::FramingError;

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Not an HTTP/1 head; the text says where it went wrong.
    Malformed(&'static str),
    /// The length fields contradict each other or are not allowed.
    Framing(FramingError),
    /// Longer than `max_header_size`.
    TooLarge,
    /// More fields than `max_headers`.
    TooManyFields,
    /// The target is longer than a URI here can be.
    TargetTooLong,
    /// HTTP/1.1 without a Host, or with two, or with one that is not a host (RFC 9112 3.2).
    Host,
    /// A version other than 1.0 or 1.1.
    Version,
    /// The head did not arrive within `header_timeout`.
    Timeout,
    /// There is no buffer memory for the half of it that is here.
    NoMemory,
    /// Frames of HTTP/2 in place of a response: the server speaks nothing else.
    Http2,
    /// A TLS record in place of a response.
    Tls,
}

impl HeadError {
    /// The status of the refusal.
    pub fn status(self) -> StatusCode {
        match self {
            HeadError::Malformed(_)
            | HeadError::Framing(_)
            | HeadError::Host
            | HeadError::Http2
            | HeadError::Tls => StatusCode::BAD_REQUEST,
            HeadError::TooLarge | HeadError::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            HeadError::TargetTooLong => StatusCode::URI_TOO_LONG,
            HeadError::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            HeadError::Timeout => StatusCode::REQUEST_TIMEOUT,
            HeadError::NoMemory => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What is wrong, for the problem document.
    pub fn detail(self) -> &'static str {
        match self {
            HeadError::Malformed(what) => what,
            HeadError::Framing(error) => error.as_str(),
            HeadError::TooLarge => "the request head is larger than max_header_size",
            HeadError::TooManyFields => "the request has more fields than max_headers",
            HeadError::TargetTooLong => "the request target is too long",
            HeadError::Host => "exactly one valid Host field is needed",
            HeadError::Version => "only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here",
            HeadError::Timeout => "the request head did not arrive in time",
            HeadError::NoMemory => "server.buffer_memory is used up, or this client's share of it",
            HeadError::Http2 => "HTTP/2 frames in place of an HTTP/1 head",
            HeadError::Tls => "a TLS record in place of an HTTP/1 head",
        }
    }

    /// The same of a response, for the log.
    pub fn detail_of_response(self) -> &'static str {
        match self {
            HeadError::TooLarge => "the response head is larger than server.max_header_size",
            HeadError::TooManyFields => "the response has more fields than server.max_headers",
            HeadError::Version => "the response is not in HTTP/1.0 or HTTP/1.1",
            HeadError::Http2 => "the server speaks HTTP/2: write h2c:// in place of http://",
            HeadError::Tls => "the server speaks TLS: write https:// in place of http://",
            other => other.detail(),
        }
    }

    /// The document's detail where a response was refused so; `None` where only the log says it.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            HeadError::TooLarge | HeadError::TooManyFields | HeadError::Http2 | HeadError::Tls => {
                Some(self.detail_of_response())
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for HeadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for HeadError {}

impl From<FramingError> for HeadError {
    fn from(error: FramingError) -> Self {
        HeadError::Framing(error)
    }
}
