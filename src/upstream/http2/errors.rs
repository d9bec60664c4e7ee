//! Classification of HTTP/2 errors: their meaning for the request.

use crate::upstream::error::ForwardError;

/// Nothing left: the connection was gone, or told to go.
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

/// A code by which an upstream says that what it was sent is wrong, or too much (RFC 9113 7): of one client's request it
/// says so to all who share the connection.
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

/// RFC 9113 8.7: a refused stream, and one beyond the last that a leaving upstream takes, were not processed.
fn is_unprocessed(error: &h2::Error) -> bool {
    let reason = error.reason();
    error.is_remote()
        && (error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM)
            || error.is_go_away() && reason == Some(h2::Reason::NO_ERROR))
}

/// A first frame that is longer than any may be: the letters HTTP read as its length, most often.
fn is_no_frame(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_library() && error.reason() == Some(h2::Reason::FRAME_SIZE_ERROR)
}
