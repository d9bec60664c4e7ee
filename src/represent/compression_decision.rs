//! Decides whether a response is encoded, and gives the reason if not: one value for the metric, the log and the
//! decision.

use http::StatusCode;

use super::coding::Coding;
use crate::rendering::words::words;

/// The decision about the content of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Code(Coding),
    /// The content is sent unencoded.
    Leave(Reason),
}

words! {
    /// Reasons why content is sent unencoded.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Reason {
        /// The client accepts no coding that Pillion makes.
        NotAsked => "not-asked",
        /// The status allows no content, or only a part (204, 206, 304).
        Status => "status",
        /// A stream of events or gRPC messages.
        Stream => "stream",
        Coded => "coded",
        /// It has `Cache-Control: no-transform` (RFC 9111 5.2.2.6).
        NoTransform => "no-transform",
        /// Its type is not one of `compression.types`.
        Type => "type",
        /// It is shorter than `compression.min_size`.
        Small => "small",
        /// It sets a cookie and may echo the request (`compression.breach_guard`).
        Echo => "echo",
        /// Only a requested range of it is sent.
        Range => "range",
        /// The memory for encoders is exhausted.
        Busy => "busy",
    }
}

/// Returns whether content with this head could be encoded for a client that accepts it, apart from its type, its size
/// and the upstream's consent. Such responses vary on Accept-Encoding (RFC 9110 12.5.5). `live`: a stream of events or
/// gRPC messages.
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

/// Returns whether a response with this status has no content (RFC 9110 6.4.1).
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
