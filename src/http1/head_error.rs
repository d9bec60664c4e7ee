//! The reasons for refusing a head, with the status and the text of each refusal.

use http::StatusCode;

use super::framing::FramingError;

/// The reason why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The bytes are not an HTTP/1 head; the text says where they are wrong.
    Malformed(&'static str),
    /// The length fields contradict each other or are not allowed.
    Framing(FramingError),
    /// The head is longer than `max_header_size`.
    TooLarge,
    /// The head has more fields than `max_headers`.
    TooManyFields,
    /// The target is longer than a [`http::Uri`] can hold.
    TargetTooLong,
    /// An HTTP/1.1 request has no Host, two, or an invalid Host (RFC 9112 3.2).
    Host,
    /// The version is not 1.0 or 1.1.
    Version,
    /// The head did not arrive within `header_timeout`.
    Timeout,
    /// No buffer memory is left for the incomplete head.
    NoMemory,
    /// HTTP/2 frames came instead of a response: the server speaks nothing else.
    Http2,
    /// A TLS record came instead of a response.
    Tls,
}

impl HeadError {
    /// Returns the status code of the refusal.
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

    /// Returns the problem document's detail.
    pub fn detail(self) -> &'static str {
        match self {
            HeadError::Malformed(what) => what,
            HeadError::Framing(error) => error.as_str(),
            HeadError::TooLarge => "the request head is larger than max_header_size",
            HeadError::TooManyFields => "the request has more fields than max_headers",
            HeadError::TargetTooLong => "the request target is too long",
            HeadError::Host => "exactly one valid Host field is needed",
            HeadError::Version => "only HTTP/1.0, HTTP/1.1 and HTTP/2 are supported",
            HeadError::Timeout => "the request head did not arrive in time",
            HeadError::NoMemory => "server.buffer_memory is used up, or this client's share of it",
            HeadError::Http2 => "HTTP/2 frames in place of an HTTP/1 head",
            HeadError::Tls => "a TLS record in place of an HTTP/1 head",
        }
    }

    /// Returns the detail for a refused response, for the log.
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

    /// Returns the problem document's detail for a refused response; `None` if only the log reports it.
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
