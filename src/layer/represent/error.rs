//! Errors of a request whose representation cannot be had.

use std::fmt;

/// Reasons why there is no response in the requested form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepresentError {
    /// 412: a precondition of the request failed.
    PreconditionFailed,
    /// 406: the client accepts no available coding.
    NotAcceptable,
    /// 416: no requested range is within content of this length in bytes.
    RangeNotSatisfiable(usize),
}

impl fmt::Display for RepresentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepresentError::PreconditionFailed => f.write_str("a precondition of the request failed"),
            RepresentError::NotAcceptable => f.write_str("no coding that the client accepts is available"),
            RepresentError::RangeNotSatisfiable(length) => {
                write!(f, "the range is outside of the content of {length} bytes")
            }
        }
    }
}

impl std::error::Error for RepresentError {}
