//! Whether an answer may be coded, and if not, why not: one value for the metric, the log and the decision.

use http::StatusCode;

use super::coding::Coding;
use crate::rendering::words::words;

/// What becomes of an answer's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Code(Coding),
    /// It goes as it is.
    Leave(Reason),
}

words! {
    /// Why content goes as it is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Reason {
        /// The client did not ask for a coding we make.
        NotAsked => "not-asked",
        /// No content, or a part of it (204, 206, 304).
        Status => "status",
        /// A stream of events, or messages of gRPC.
        Stream => "stream",
        Coded => "coded",
        /// `Cache-Control: no-transform` (RFC 9111 5.2.2.6).
        NoTransform => "no-transform",
        /// Not one of `compression.types`.
        Type => "type",
        /// Less than `compression.min_size`.
        Small => "small",
        /// It sets a cookie and may echo the request (`compression.breach_guard`).
        Echo => "echo",
        /// A part of it was asked for and is sent.
        Range => "range",
        /// As many encoders are at work as may be.
        Busy => "busy",
    }
}

/// Whether content with this head could be coded for a client that asks, as far as its type and size and the
/// app's consent do not matter. What could is what varies on Accept-Encoding (RFC 9110 12.5.5). `live`: events or
/// messages of gRPC.
pub(crate) fn codable(status: StatusCode, coded: bool, live: bool) -> Result<(), Reason> {
    if live {
        Err(Reason::Stream)
    } else if status.is_informational() || has_no_content(status) || status == StatusCode::PARTIAL_CONTENT {
        Err(Reason::Status)
    } else if coded {
        Err(Reason::Coded)
    } else {
        Ok(())
    }
}

/// RFC 9110 6.4.1.
pub(crate) fn has_no_content(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_coded() {
        for (status, coded, live, wanted) in [
            (200, false, false, Ok(())),
            (404, false, false, Ok(())),
            (500, false, false, Ok(())),
            (200, false, true, Err(Reason::Stream)),
            (204, false, false, Err(Reason::Status)),
            (205, false, false, Err(Reason::Status)),
            (206, false, false, Err(Reason::Status)),
            (304, false, false, Err(Reason::Status)),
            (200, true, false, Err(Reason::Coded)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(codable(status, coded, live), wanted, "{status}");
        }
    }
}
