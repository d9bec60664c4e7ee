//! The problem types (RFC 9457 3.1.1) of Pillion's own responses, each with its title. A type never changes, because
//! clients branch on it. Each type has one title (RFC 9457 3.1.3). The admin listener has types of its own,
//! `urn:pillion:problem:admin-STATUS`.

/// Prefix of Pillion's own problem types.
const OURS: &str = "urn:pillion:problem:";
/// Prefix of types in the registry of HTTP Problem Types (RFC 9457 4.2).
const REGISTERED: &str = "https://iana.org/assignments/http-problem-types#";

/// A problem type and its title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProblemType {
    base: &'static str,
    name: &'static str,
    /// The title of every problem of this type.
    pub title: &'static str,
}

impl ProblemType {
    /// Returns the value of the `type` member.
    pub(crate) fn uri(&self) -> String {
        format!("{}{}", self.base, self.name)
    }
}

/// Declares the constants and their list: `NAME = base, "name", "title";`.
macro_rules! problem_types {
    ($($constant:ident = $base:ident, $name:literal, $title:literal;)+) => {
        $(pub(super) const $constant: ProblemType = ProblemType { base: $base, name: $name, title: $title };)+

        pub(crate) const ALL: [ProblemType; [$($name),+].len()] = [$($constant),+];
    };
}

problem_types! {
    REQUEST_TIMEOUT = OURS, "request-timeout", "The request did not arrive in time";
    HEAD_TOO_LARGE = OURS, "head-too-large", "The request head is too large";
    NO_UPGRADE = OURS, "upgrade", "This is not upgraded to";
    TARGET_TOO_LONG = OURS, "target-too-long", "The request target is too long";
    VERSION = OURS, "version", "This version of HTTP is not spoken here";
    MALFORMED_REQUEST = OURS, "malformed-request", "The request is malformed";
    OUT_OF_BUFFERS = OURS, "out-of-buffers", "There is no memory for another request";
    PRECONDITION_FAILED = OURS, "precondition-failed", "A condition of the request does not hold";
    NOT_ACCEPTABLE = OURS, "not-acceptable", "This cannot be had in a coding that is accepted";
    RANGE_NOT_SATISFIABLE = OURS, "range-not-satisfiable", "The range is outside of the content";
    UNKNOWN_API_KEY = OURS, "unknown-api-key", "The API key is not known";
    LIMITS_UNAVAILABLE = OURS, "limits-unavailable", "The limits cannot be counted now";
    QUOTA_EXCEEDED = REGISTERED, "quota-exceeded", "The quota is used up";
    UPSTREAM_MALFORMED = OURS, "upstream-malformed", "The app's answer is malformed";
    AMBIGUOUS_PATH = OURS, "ambiguous-path", "The path can be read in two ways";
    CONNECT = OURS, "connect", "This is not a forward proxy";
    LOOP = OURS, "loop", "The request went in a circle";
    DENIED = OURS, "denied", "This is not served";
    NOT_ALLOWED = OURS, "not-allowed", "This is not served to this client";
    MAINTENANCE = OURS, "maintenance", "The app is under maintenance";
    ONLY_IF_CACHED = OURS, "only-if-cached", "Nothing is stored for this request";
    INTERNAL = OURS, "internal", "Pillion failed";
    BODY_TOO_LARGE = OURS, "body-too-large", "The request body is too large";
    BUSY = OURS, "busy", "The app has no place for another request";
    TEMPORARY_REDUCED_CAPACITY = REGISTERED, "temporary-reduced-capacity", "The app has as much to do as it can bear";
    UPSTREAM_TIMEOUT = OURS, "upstream-timeout", "The app did not answer in time";
    UPSTREAM_UNREACHABLE = OURS, "upstream-unreachable", "The app cannot be reached";
    UPSTREAM_BROKEN = OURS, "upstream-broken", "The app broke off without an answer";
    UPSTREAM_NO_UPGRADE = OURS, "upgrade", "The app cannot be upgraded to";
    TRAILERS_TOO_LARGE = OURS, "trailers-too-large", "The request trailers are too large";
    CLIENT_GONE = OURS, "client-gone", "The client left";
    MALFORMED_BODY = OURS, "malformed-body", "The request body is malformed";
}
