//! How long a message's body is (RFC 9112 6), as pure decisions over the fields that say so.
//!
//! Stricter than the RFC allows where leniency is how requests are smuggled: both lengths at once,
//! and any transfer coding but one `chunked`, are refused from clients.

use http::{Method, StatusCode};

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes; zero is no body.
    Length(u64),
    Chunked,
    /// When the connection closes (responses only).
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

/// Why a head's length fields were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// Not a decimal number, or too large a one.
    MalformedLength,
    /// Two Content-Length values that are not the same.
    DifferingLengths,
    /// Both Content-Length and Transfer-Encoding (RFC 9112 6.1: may be rejected, and is).
    LengthAndEncoding,
    /// A transfer coding other than one single `chunked`.
    UnsupportedEncoding,
    /// Transfer-Encoding in an HTTP/1.0 message (RFC 9112 6.1).
    EncodingInHttp10,
}

impl FramingError {
    /// For the problem document.
    pub fn as_str(self) -> &'static str {
        match self {
            FramingError::MalformedLength => "Content-Length is not a decimal number",
            FramingError::DifferingLengths => "Content-Length is given twice with different values",
            FramingError::LengthAndEncoding => "both Content-Length and Transfer-Encoding are present",
            FramingError::UnsupportedEncoding => "the only transfer coding accepted is one chunked",
            FramingError::EncodingInHttp10 => "Transfer-Encoding in an HTTP/1.0 message",
        }
    }
}

impl LengthFields {
    /// Takes one Content-Length field line. A list of equal values counts as one (RFC 9110 8.6).
    pub(crate) fn content_length(&mut self, value: &[u8]) -> Result<(), FramingError> {
        for item in value.split(|byte| *byte == b',') {
            let item = item.trim_ascii();
            if item.is_empty() || item.len() > 19 || !item.iter().all(u8::is_ascii_digit) {
                return Err(FramingError::MalformedLength);
            }
            // At most 19 digits fit a u64.
            let length = item.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            match self.length {
                Some(before) if before != length => return Err(FramingError::DifferingLengths),
                _ => self.length = Some(length),
            }
        }
        Ok(())
    }

    /// Takes one Transfer-Encoding field line.
    pub(crate) fn transfer_encoding(&mut self, value: &[u8]) {
        let single = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
        self.transfer_encoding = Some(match self.transfer_encoding {
            None if single => TransferEncoding::Chunked,
            _ => TransferEncoding::Unsupported,
        });
    }

    /// The framing of a request (RFC 9112 6.3). No field at all: no body.
    pub(crate) fn of_request(self, http11: bool) -> Result<Framing, FramingError> {
        match (self.transfer_encoding, self.length) {
            (Some(_), _) if !http11 => Err(FramingError::EncodingInHttp10),
            (Some(_), Some(_)) => Err(FramingError::LengthAndEncoding),
            (Some(TransferEncoding::Unsupported), None) => Err(FramingError::UnsupportedEncoding),
            (Some(TransferEncoding::Chunked), None) => Ok(Framing::Chunked),
            (None, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }

    /// The framing of a response to `method` with `status` (RFC 9112 6.3), and whether the connection
    /// may be used again. An app that sends both lengths is believed in its chunks alone, once.
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

    /// The declared length, whether it counts or not (a HEAD answer's does not).
    pub(crate) fn declared(&self) -> Option<u64> {
        self.length
    }
}
