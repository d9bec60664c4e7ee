//! Errors of a request whose representation cannot be had.

use std::fmt;

/// Why there is no answer in the form asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepresentError {
    /// 412: a condition of the request does not hold.
    PreconditionFailed,
    /// 406: the client takes no coding in which this can be had.
    NotAcceptable,
    /// 416: no part asked for is within content of this length.
    RangeNotSatisfiable(usize),
}

impl fmt::Display for RepresentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepresentError::PreconditionFailed => f.write_str("a condition of the request does not hold"),
            RepresentError::NotAcceptable => f.write_str("no coding the client takes can be had"),
            RepresentError::RangeNotSatisfiable(length) => {
                write!(f, "the range is outside of {length} bytes")
            }
        }
    }
}

impl std::error::Error for RepresentError {}
