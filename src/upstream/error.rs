//! Why a request got no answer: one small type for all causes, with what each of them means for the
//! client, the metrics and the health of the address.

use std::fmt;
use std::time::Duration;

use super::address::Target;
use crate::http1::head_error::HeadError;
use crate::message::body::BodyError;

/// Why a request got no answer from an app.
#[derive(Debug)]
pub(crate) enum ForwardError {
    /// The name of the app does not resolve.
    Resolve(std::io::Error),
    /// No connection could be made.
    Connect(Target, std::io::Error),
    /// It has as much to do as it can bear.
    Shed,
    /// The waiting line of the address is full.
    QueueFull,
    /// No connection became free in time.
    QueueTimeout(Duration),
    /// As many streams without end as `max_streams` allows are open.
    TooManyStreams,
    /// No head of an answer within `response_timeout`.
    TimedOut,
    /// The app closed the connection instead of answering.
    Closed,
    Broken(std::io::Error),
    /// What the app sent is no HTTP/1 answer.
    Malformed(HeadError),
    Body(BodyError),
    /// An HTTP/2 failure of one stream; the text is the library's.
    Http2(String),
    /// The HTTP/2 connection ended under the request; the text is the library's.
    Http2Ended(String),
    /// The app ended the stream or the connection with a code that speaks of what it was sent (RFC 9113 7); the text is
    /// the library's.
    Objected(String),
    /// The fields of the request, or its trailers, are larger than the app announces to take over HTTP/2 (RFC 9113 6.5.2);
    /// bytes.
    HeadTooLarge(usize),
    /// The app answered a request to upgrade as if it were an ordinary one.
    NotUpgraded,
    /// The app is spoken to in HTTP/2 only, which cannot be upgraded.
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

    /// Whether the connection ended under the request.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, ForwardError::Closed | ForwardError::Broken(_))
    }

    /// Whether the app may have ended the stream or its connection because of the request it was sent.
    pub(super) fn may_be_of_request(&self) -> bool {
        self.is_broken()
            || matches!(
                self,
                ForwardError::Http2(_) | ForwardError::Http2Ended(_) | ForwardError::Objected(_)
            )
    }

    /// Whether it speaks against the health of the address. An objection to what was sent does not: the app works.
    pub(super) fn is_unhealthy(&self) -> bool {
        // A response that exceeds our limits comes from an app that works; a client's own words may have made it long.
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

    /// Says it of `who` was asked: an app, or a server that is none.
    pub(crate) fn tell(&self, who: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ForwardError::Resolve(error) => write!(f, "{who}'s name does not resolve: {error}"),
            ForwardError::Connect(target, error) => write!(f, "cannot connect to {target}: {error}"),
            ForwardError::Shed => write!(f, "{who} has as much to do as it can bear"),
            ForwardError::QueueFull => write!(f, "too many requests wait for {who}"),
            ForwardError::QueueTimeout(after) => {
                write!(f, "no connection to {who} became free in {after:?}")
            }
            ForwardError::TooManyStreams => write!(f, "too many streams to {who} are open"),
            ForwardError::TimedOut => write!(f, "{who} did not answer in time"),
            ForwardError::Closed => write!(f, "{who} closed the connection instead of answering"),
            ForwardError::Broken(error) => write!(f, "the connection to {who} broke: {error}"),
            ForwardError::Malformed(error) => {
                write!(f, "{who}'s answer is malformed: {}", error.detail_of_response())
            }
            ForwardError::Body(error) => write!(f, "{error}"),
            ForwardError::Http2(error) | ForwardError::Http2Ended(error) => {
                write!(f, "HTTP/2 with {who} failed: {error}")
            }
            ForwardError::Objected(error) => write!(f, "{who} refused what it was sent over HTTP/2: {error}"),
            ForwardError::HeadTooLarge(limit) => {
                write!(f, "{who} takes at most {limit} bytes of fields over HTTP/2; the request has more")
            }
            ForwardError::NotUpgraded => write!(f, "{who} did not upgrade the connection"),
            ForwardError::CannotUpgrade => f.write_str("an upstream spoken to in HTTP/2 cannot be upgraded"),
        }
    }
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tell("the app", f)
    }
}

impl std::error::Error for ForwardError {}
