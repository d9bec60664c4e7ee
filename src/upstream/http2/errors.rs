//! Classification of HTTP/2 errors: their meaning for the request.

use crate::upstream::error::ForwardError;

/// Returns the error of a request that was not sent: the connection was closed or told to close.
pub(super) fn not_sent(error: &h2::Error) -> ForwardError {
    if error.is_io() || error.is_go_away() || error.is_reset() {
        ForwardError::Closed
    } else {
        ForwardError::Http2(error.to_string())
    }
}

pub(super) fn classify(error: &h2::Error) -> ForwardError {
    if is_unprocessed(error) {
        return ForwardError::Closed;
    }
    if is_no_frame(error) {
        let advice = "the server may speak HTTP/1 only: then write http:// in place of h2c://";
        return ForwardError::Http2(format!("{error}; {advice}"));
    }
    match error.get_io() {
        Some(io) => ForwardError::Broken(std::io::Error::new(io.kind(), io.to_string())),
        None if is_objection(error) => ForwardError::Objected(error.to_string()),
        None if error.is_go_away() => ForwardError::Http2Ended(error.to_string()),
        None => ForwardError::Http2(error.to_string()),
    }
}

/// Returns whether the error is a code that complains about the sent frames or their amount (RFC 9113 7). An upstream
/// that dislikes one client's request ends the connection for all requests on it.
fn is_objection(error: &h2::Error) -> bool {
    const OBJECTIONS: [h2::Reason; 6] = [
        h2::Reason::PROTOCOL_ERROR,
        h2::Reason::FLOW_CONTROL_ERROR,
        h2::Reason::STREAM_CLOSED,
        h2::Reason::FRAME_SIZE_ERROR,
        h2::Reason::COMPRESSION_ERROR,
        h2::Reason::ENHANCE_YOUR_CALM,
    ];
    error.is_remote() && error.reason().is_some_and(|reason| OBJECTIONS.contains(&reason))
}

/// Returns whether the request was not processed (RFC 9113 8.7): the stream was refused, or is beyond the last that a
/// closing upstream accepts.
fn is_unprocessed(error: &h2::Error) -> bool {
    let reason = error.reason();
    error.is_remote()
        && (error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM)
            || error.is_go_away() && reason == Some(h2::Reason::NO_ERROR))
}

/// Returns whether the first frame exceeds any permitted length: usually the letters HTTP, read as a length.
fn is_no_frame(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_library() && error.reason() == Some(h2::Reason::FRAME_SIZE_ERROR)
}
