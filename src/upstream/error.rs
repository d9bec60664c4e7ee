//! The error of a request that got no response: one small type for all causes, with their meaning for the client, the
//! metrics and the health of the address.

use std::fmt;
use std::time::Duration;

use super::address::Target;
use crate::http1::head_error::HeadError;
use crate::message::body::BodyError;

/// The reason why a request got no response from an upstream.
#[derive(Debug)]
pub(crate) enum ForwardError {
    /// The name of the upstream does not resolve.
    Resolve(std::io::Error),
    /// The connection could not be made.
    Connect(Target, std::io::Error),
    /// The upstream is overloaded, so adaptive concurrency shed the request.
    Shed,
    /// The queue of the address is full.
    QueueFull,
    /// No connection became free in time.
    QueueTimeout(Duration),
    /// The limit `max_streams` of streams without an expected end is reached.
    TooManyStreams,
    /// No response head arrived within `response_timeout`.
    TimedOut,
    /// The upstream closed the connection without a response.
    Closed,
    Broken(std::io::Error),
    /// The upstream sent no valid HTTP/1 response.
    Malformed(HeadError),
    Body(BodyError),
    /// An HTTP/2 stream failed; the text comes from the library.
    Http2(String),
    /// The HTTP/2 connection ended under the request; the text comes from the library.
    Http2Ended(String),
    /// The upstream ended the stream or the connection with a code that complains about the frames it got (RFC 9113 7);
    /// the text comes from the library.
    Objected(String),
    /// The fields of the request, or its trailers, are larger than the limit that the upstream announces over HTTP/2
    /// (RFC 9113 6.5.2); in bytes.
    HeadTooLarge(usize),
    /// The upstream sent an ordinary response to an upgrade request.
    NotUpgraded,
    /// The upstream is configured for HTTP/2 only, which cannot be upgraded.
    CannotUpgrade,
}

/// The kinds of failures in metrics, by [`ForwardError::kind_index`].
pub(crate) const KINDS: [&str; 9] =
    ["resolve", "connect", "queue", "timeout", "closed", "malformed", "client", "http2", "shed"];

impl ForwardError {
    pub(super) fn kind_index(&self) -> usize {
        match self {
            ForwardError::Resolve(_) => 0,
            ForwardError::Connect(..) => 1,
            ForwardError::QueueFull | ForwardError::QueueTimeout(_) | ForwardError::TooManyStreams => 2,
            ForwardError::TimedOut => 3,
            ForwardError::Closed | ForwardError::Broken(_) => 4,
            ForwardError::Malformed(_) | ForwardError::NotUpgraded => 5,
            ForwardError::Body(_) | ForwardError::HeadTooLarge(_) => 6,
            ForwardError::Http2(_)
            | ForwardError::Http2Ended(_)
            | ForwardError::Objected(_)
            | ForwardError::CannotUpgrade => 7,
            ForwardError::Shed => 8,
        }
    }

    /// Returns whether the connection ended under the request.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, ForwardError::Closed | ForwardError::Broken(_))
    }

    /// Returns whether the request itself may be why the upstream ended the stream or the connection.
    pub(super) fn may_be_of_request(&self) -> bool {
        self.is_broken()
            || matches!(
                self,
                ForwardError::Http2(_) | ForwardError::Http2Ended(_) | ForwardError::Objected(_)
            )
    }

    /// Returns whether the error counts against the health of the address. A complaint about the request does not: the
    /// upstream works.
    pub(super) fn is_unhealthy(&self) -> bool {
        // A response beyond our limits comes from a working upstream; the client's own input may have made it long.
        if matches!(self, ForwardError::Malformed(HeadError::TooLarge | HeadError::TooManyFields)) {
            return false;
        }
        matches!(
            self,
            ForwardError::Connect(..)
                | ForwardError::TimedOut
                | ForwardError::Closed
                | ForwardError::Broken(_)
                | ForwardError::Malformed(_)
                | ForwardError::Http2(_)
                | ForwardError::Http2Ended(_)
        )
    }

    /// Writes the error with `who` as the name of the peer: the upstream, or another server.
    pub(crate) fn tell(&self, who: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ForwardError::Resolve(error) => write!(f, "{who}'s name does not resolve: {error}"),
            ForwardError::Connect(target, error) => write!(f, "cannot connect to {target}: {error}"),
            ForwardError::Shed => write!(f, "{who} is overloaded"),
            ForwardError::QueueFull => write!(f, "too many requests wait for {who}"),
            ForwardError::QueueTimeout(after) => {
                write!(f, "no connection to {who} became free in {after:?}")
            }
            ForwardError::TooManyStreams => write!(f, "too many streams to {who} are open"),
            ForwardError::TimedOut => write!(f, "{who} did not answer in time"),
            ForwardError::Closed => write!(f, "{who} closed the connection without a response"),
            ForwardError::Broken(error) => write!(f, "the connection to {who} broke: {error}"),
            ForwardError::Malformed(error) => {
                write!(f, "{who}'s response is malformed: {}", error.detail_of_response())
            }
            ForwardError::Body(error) => write!(f, "{error}"),
            ForwardError::Http2(error) | ForwardError::Http2Ended(error) => {
                write!(f, "HTTP/2 with {who} failed: {error}")
            }
            ForwardError::Objected(error) => write!(f, "{who} rejected the request over HTTP/2: {error}"),
            ForwardError::HeadTooLarge(limit) => {
                write!(f, "{who} accepts at most {limit} bytes of fields over HTTP/2; the request has more")
            }
            ForwardError::NotUpgraded => write!(f, "{who} did not upgrade the connection"),
            ForwardError::CannotUpgrade => {
                f.write_str("an upstream configured for HTTP/2 only has no Upgrade")
            }
        }
    }
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tell("the upstream", f)
    }
}

impl std::error::Error for ForwardError {}
