//! The length of a message's body (RFC 9112 6), as pure decisions over the length fields.
//!
//! The rules are stricter than the RFC where leniency enables request smuggling: requests with both length fields, or
//! with any transfer coding but a single `chunked`, are refused.

use http::{Method, StatusCode};

/// The end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The body ends after this many bytes; zero is no body.
    Length(u64),
    Chunked,
    /// The body ends when the connection closes (responses only).
    Close,
}

/// The length fields of one head, gathered while it is read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LengthFields {
    length: Option<u64>,
    transfer_encoding: Option<TransferEncoding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransferEncoding {
    Chunked,
    Unsupported,
}

/// The reason why a head's length fields were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// Content-Length is not a decimal number, or too large.
    MalformedLength,
    /// Two or more Content-Length values differ.
    DifferingLengths,
    /// Content-Length and Transfer-Encoding are both present (RFC 9112 6.1: may be rejected, and is).
    LengthAndEncoding,
    /// The transfer coding is not a single `chunked`.
    UnsupportedEncoding,
    /// An HTTP/1.0 message has Transfer-Encoding (RFC 9112 6.1).
    EncodingInHttp10,
}

impl FramingError {
    /// Returns the text for the problem document.
    pub fn as_str(self) -> &'static str {
        match self {
            FramingError::MalformedLength => "Content-Length is not a decimal number",
            FramingError::DifferingLengths => "Content-Length is given twice with different values",
            FramingError::LengthAndEncoding => "both Content-Length and Transfer-Encoding are present",
            FramingError::UnsupportedEncoding => "the only transfer coding accepted is a single chunked",
            FramingError::EncodingInHttp10 => "Transfer-Encoding in an HTTP/1.0 message",
        }
    }
}

impl LengthFields {
    /// Records one Content-Length field line. A list of equal values counts as a single value (RFC 9110 8.6).
    pub(crate) fn content_length(&mut self, value: &[u8]) -> Result<(), FramingError> {
        for item in value.split(|byte| *byte == b',') {
            let item = item.trim_ascii();
            if item.is_empty() || item.len() > 19 || !item.iter().all(u8::is_ascii_digit) {
                return Err(FramingError::MalformedLength);
            }
            // A `u64` holds any number of 19 digits.
            let length = item.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            match self.length {
                Some(before) if before != length => return Err(FramingError::DifferingLengths),
                _ => self.length = Some(length),
            }
        }
        Ok(())
    }

    /// Records one Transfer-Encoding field line.
    pub(crate) fn transfer_encoding(&mut self, value: &[u8]) {
        let single = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
        self.transfer_encoding = Some(match self.transfer_encoding {
            None if single => TransferEncoding::Chunked,
            _ => TransferEncoding::Unsupported,
        });
    }

    /// Returns the framing of a request (RFC 9112 6.3). Without a length field there is no body.
    pub(crate) fn of_request(self, http11: bool) -> Result<Framing, FramingError> {
        match (self.transfer_encoding, self.length) {
            (Some(_), _) if !http11 => Err(FramingError::EncodingInHttp10),
            (Some(_), Some(_)) => Err(FramingError::LengthAndEncoding),
            (Some(TransferEncoding::Unsupported), None) => Err(FramingError::UnsupportedEncoding),
            (Some(TransferEncoding::Chunked), None) => Ok(Framing::Chunked),
            (None, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }

    /// Returns the framing of a response to `method` with `status` (RFC 9112 6.3), and whether the connection may be
    /// used again. If an upstream sends both lengths, the chunks count and the connection is not used again.
    pub(crate) fn of_response(
        self,
        method: &Method,
        status: StatusCode,
    ) -> Result<(Framing, bool), FramingError> {
        if *method == Method::HEAD
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
        {
            return Ok((Framing::Length(0), true));
        }
        match (self.transfer_encoding, self.length) {
            (Some(TransferEncoding::Chunked), length) => Ok((Framing::Chunked, length.is_none())),
            (Some(TransferEncoding::Unsupported), _) => Err(FramingError::UnsupportedEncoding),
            (None, Some(length)) => Ok((Framing::Length(length), true)),
            (None, None) => Ok((Framing::Close, false)),
        }
    }

    /// Returns the declared length, whether it applies or not (in a response to HEAD it does not).
    pub(crate) fn declared(&self) -> Option<u64> {
        self.length
    }
}
